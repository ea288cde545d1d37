"""Members of zip and tar files, in the order of the file; a container in a container is not opened.

A member is read only after those before it, because a compressed tar file has no index: a reader that takes entries in
their order decompresses the container once, and one that goes back begins again.
"""

import bz2
import gzip
import io
import itertools
import lzma
import stat
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import IO, Any, BinaryIO, NoReturn

from glam_deploy.archive.sources.locations import (
    is_archive,
    is_container_name,
    is_hidden,
    is_named_image,
    may_be_image,
    path_part,
)
from glam_deploy.archive.sources.storage import open_binary, read_bounded
from glam_deploy.errors import GlamError, InputError
from glam_deploy.images import foreign
from glam_deploy.input_files import has_image
from glam_deploy.signatures import HEAD, SIGNATURES, Kind, kind_of

MAX_STEP = 64 << 20
"""Most bytes of one read: the directory of a zip file (about 600,000 members)."""
_MAX_HEADER = 8 << 20
"""Most bytes of the headers of one member of a tar file: names, extended attributes and the map of a sparse file."""
_MAX_ZEROS = 64 << 20
"""Most bytes between the end of a tar file and one that follows; programs fill it to some KiB or MiB."""
_NAMELESS = "unnamed"
_EXTRACT = "extract it with another program, and give the folder"
_ZIP_HEADER = 30
"""Bytes of the header of a zip member without its name (APPNOTE.TXT, 4.3.7)."""
_FREE = 1 << 30
"""Bytes that a compressed tar file may have after decompression, whatever its own size."""
_RATIO = 200
"""Largest ratio of decompressed to compressed bytes beyond `_FREE`; views without compression have up to about 20."""
_DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, ValueError,
    NotImplementedError, RuntimeError, LookupError, OverflowError,
)  # fmt: skip

_KINDS: Mapping[str, Kind] = MappingProxyType(
    {"zip": Kind.ZIP, "gz": Kind.GZIP, "bz2": Kind.BZIP2, "xz": Kind.XZ, "tar": Kind.TAR}
)
"""End of a container's name -> format of its content."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A file in a container; it can be opened until the next member is asked for."""

    name: str
    """As stored, perhaps with folders; no path or URL of this machine."""
    label: str
    """Its name, with `!2` for the second member of that name, and so on."""
    size: int
    open: Callable[[], IO[bytes]]

    def read(self) -> bytes:
        """The content. Raises InputError if it is damaged, encrypted, too large, or a container itself."""
        if is_container_name(self.name):
            raise InputError("it is an archive in an archive, which is not opened: extract it")
        with _damage("the member is damaged"), self.open() as file:
            return read_bounded(file)  # type: ignore[arg-type]

    def is_wanted(self) -> bool:
        """Whether it counts as an image: by its suffix or its content, as in `input_files.find_inputs`."""
        if is_hidden(self.name):
            return False
        if is_named_image(self.name):
            return True
        try:
            with _damage("the member is damaged"), self.open() as file:
                head = file.read(HEAD)
            return has_image(PurePosixPath(self.name), head) or is_archive(self.name, head)
        except InputError:
            return may_be_image(self.name)


def members(file: BinaryIO, location: str) -> Iterator[Member]:
    """All files of a container, in its order. `location` names its kind.

    Raises InputError where the container is damaged: members before that place have been yielded.
    """
    seen: set[str] = set()
    numbers: dict[str, int] = {}
    is_zip = path_part(location).lower().endswith(".zip")
    with _archive_damage(file, path_part(location).lower(), seen):
        for name, size, opened in _in_zip(file) if is_zip else _in_tar(file, location):
            label, number = name, numbers.get(name, 1)
            while label in seen:
                number += 1
                label = f"{name}!{number}"
            if number > 1:
                numbers[name] = number
            seen.add(label)
            yield Member(name=name, label=label, size=size, open=opened)


_Found = tuple[str, int, Callable[[], IO[bytes]]]


def _in_zip(file: BinaryIO) -> Iterator[_Found]:
    with zipfile.ZipFile(_Limited(file)) as archive:
        _require_apart(archive.infolist(), archive.start_dir)
        for info in archive.infolist():
            if not info.filename.endswith("/") and not stat.S_ISLNK(info.external_attr >> 16):
                yield info.filename or _NAMELESS, info.file_size, _zip_opener(archive, info)
        begin = min((info.header_offset for info in archive.infolist()), default=archive.start_dir)
    file.seek(0)
    if begin and SIGNATURES[Kind.ZIP](file.read(HEAD)):
        raise InputError(
            f"another zip archive is in its first {begin} bytes, of which no member can be read: give them one by one, "
            f"or {_EXTRACT}"
        )


def _require_apart(members: Sequence[zipfile.ZipInfo], end: int) -> None:
    """Raise InputError if members share bytes, so that they cost far more than the file has (CVE-2024-0450)."""
    spans = sorted((info.header_offset, info.compress_size) for info in members)
    following = [start for start, _ in spans[1:]] + [end]
    if any(start + _ZIP_HEADER + size > after for (start, size), after in zip(spans, following, strict=False)):
        raise InputError(f"the archive is damaged (members share bytes): copy it again, or {_EXTRACT}")


def _zip_opener(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    def opened() -> IO[bytes]:
        if info.flag_bits & 1:
            raise InputError("it is encrypted: extract the archive with its password")
        return archive.open(info)

    return opened


def _in_tar(file: BinaryIO, location: str) -> Iterator[_Found]:
    """Members of a tar file, and of those that follow it, as `cat` and `tar --concatenate` put them there."""
    limited = _Limited(*_decompressed(file, path_part(location).lower()))
    yield from _in_one_tar(limited)
    while _goes_on(limited):
        yield from _in_one_tar(limited)


def _in_one_tar(limited: "_Limited") -> Iterator[_Found]:
    with limited.header():
        archive = tarfile.TarFile(fileobj=limited, errors="replace")
    with archive:
        holes = 0
        while (info := _next(archive, limited)) is not None:
            holes += info.size if info.issparse() else 0
            if holes > _FREE:
                raise InputError(f"the archive has more than {_FREE} bytes of sparse files: it is no archive of images")
            # POSIX (pax, ustar typeflag): a member whose type flag is not defined is a regular file
            if info.isreg() or info.type not in tarfile.SUPPORTED_TYPES:
                yield info.name or _NAMELESS, info.size, _tar_opener(archive, info)
            if archive.offset >= sys.maxsize:
                raise InputError("the archive is damaged (a member has an impossible size): copy or pack it again")
        # tarfile takes a damaged or missing header for the end of the archive
        is_end = limited.tell() == archive.offset + tarfile.BLOCKSIZE
    if not is_end or not limited.last or limited.last.strip(b"\0"):
        raise InputError(
            "the archive ends without its end mark, or other data follow it: it is incomplete or damaged, copy it again"
        )


def _goes_on(limited: "_Limited") -> bool:
    """Whether something follows the end mark and the zeros behind it."""
    for _ in range(_MAX_ZEROS // tarfile.BLOCKSIZE):
        if not (block := limited.read(tarfile.BLOCKSIZE)):
            return False
        if block.strip(b"\0"):
            limited.unread(block)
            return True
    raise InputError(f"more than {_MAX_ZEROS} zeros follow the end mark of the archive: pack it again")


def _next(archive: tarfile.TarFile, limited: "_Limited") -> tarfile.TarInfo | None:
    """The next member. Raises InputError for one after which the archive does not go on.

    A header may state a negative size, in itself or in those that extend it, and Python follows it backwards without
    end (CVE-2025-8194). The map of a sparse file is searched from its beginning at each step against its order.
    """
    with limited.header():
        info = archive.next()
    archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps all of them
    if info is None:
        return None
    if info.size < 0 or archive.offset < info.offset_data:
        raise InputError("the archive is damaged (a member has a negative size): copy or pack it again")
    if not _is_ascending(info.sparse):  # type: ignore[arg-type]  # typeshed says bytes
        raise InputError("the archive is damaged (the parts of a sparse file have no order): copy or pack it again")
    return info


def _is_ascending(parts: Sequence[tuple[int, int]] | None) -> bool:
    """Whether parts of a file, (offset, size) in bytes, follow each other; empty ones may be anywhere.

    None: the file is stored as a whole.
    """
    filled = [(offset, size) for offset, size in parts or () if size]
    ends = itertools.accumulate((offset + size for offset, size in filled), max, initial=0)
    return all(size > 0 and offset >= end for (offset, size), end in zip(filled, ends, strict=False))


def _tar_opener(archive: tarfile.TarFile, info: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    def opened() -> IO[bytes]:
        file = archive.extractfile(info)
        assert file is not None, "a regular member has content"
        return file

    return opened


def _decompressed(file: BinaryIO, name: str) -> tuple[Any, BinaryIO | None]:
    """The tar file in `file`, and `file` itself if it is compressed."""
    if name.endswith("gz"):
        return gzip.GzipFile(fileobj=file, mode="rb"), file
    if name.endswith("bz2"):
        return bz2.BZ2File(file), file
    if name.endswith("xz"):
        return lzma.LZMAFile(file), file
    return file, None


class _Limited(io.BufferedIOBase):
    """A file with limits for the size of one read, for all reads of a header, and for the ratio of a compression."""

    def __init__(self, file: Any, compressed: BinaryIO | None = None) -> None:
        self._file, self._compressed = file, compressed
        self.last = b""
        """The bytes of the last read."""
        self._unread = b""
        self._header: int | None = None
        """How many more bytes the header may have that is read now."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return int(self._file.tell()) - len(self._unread)

    def unread(self, block: bytes) -> None:
        """Give back the last read; the next one, of the same size, gets it."""
        self._unread = block

    def read(self, size: int | None = -1, /) -> bytes:
        if self._unread:
            self.last, self._unread = self._unread, b""
            return self.last
        is_all = size is None or size < 0
        most = MAX_STEP if self._header is None else self._header
        self.last = self._file.read(most + 1 if is_all else min(size or 0, most + 1))
        if len(self.last) > most:
            limit = MAX_STEP if self._header is None else _MAX_HEADER
            raise InputError(f"the archive has a header of more than {limit} bytes: split it")
        if self._header is not None:
            self._header -= len(self.last)
        self._check_ratio()
        return self.last

    @contextmanager
    def header(self) -> Iterator[None]:
        """Context in which one header is read, of at most _MAX_HEADER bytes in all."""
        self._header = _MAX_HEADER
        try:
            yield
        finally:
            self._header = None

    def seek(self, offset: int, whence: int = 0, /) -> int:
        if whence == 0 and self._compressed is not None:
            self._pass_to(offset)
        return int(self._file.seek(offset, whence))

    def _pass_to(self, offset: int) -> None:
        """Decompress step by step to less than a step before `offset`, or to the end of the file."""
        before = -1
        while before < (place := self.tell()) < offset - MAX_STEP:
            self._file.seek(MAX_STEP, io.SEEK_CUR)
            self._check_ratio()
            before = place

    def _check_ratio(self) -> None:
        if self._compressed is None or (size := self.tell()) <= _FREE:
            return
        if size > _RATIO * max(self._compressed.tell(), 1):
            raise InputError(f"the archive grows to more than {_RATIO} times its size: it is no archive of images")


@contextmanager
def _damage(what: str) -> Iterator[None]:
    """Convert exceptions of the archive libraries to InputError; their texts may quote names."""
    try:
        yield
    except _DAMAGE as error:
        _refuse(what, error)


@contextmanager
def _archive_damage(file: BinaryIO, name: str, seen: Collection[str]) -> Iterator[None]:
    """As `_damage` for a whole archive; if no member was `seen`, the message says what the file is instead."""
    try:
        yield
    except _DAMAGE as error:
        if not seen:
            _require_kind(file, name)
        is_no_tar = not seen and isinstance(error, tarfile.ReadError)
        _refuse("the content is no tar archive, or is damaged" if is_no_tar else "the archive is damaged", error)


def _require_kind(file: BinaryIO, name: str) -> None:
    """Raise InputError if the first bytes of an archive are not those of the format that its name has."""
    try:
        file.seek(0)
        head = file.read(HEAD)
    except (GlamError, OSError):
        return
    suffix, kind = next((suffix, kind) for suffix, kind in _KINDS.items() if name.endswith(suffix))
    found = kind_of(head)
    if found is kind or (found, kind) in ((Kind.NPZ, Kind.ZIP), (None, Kind.TAR)):
        return  # npz is zip; the oldest tar files have no signature
    if found is None or found not in foreign.KINDS:
        content = f"no archive (it starts with {head[:4].hex()})"
    else:
        content = foreign.KINDS[found].name
    remedy = "give it the right name" if found in _KINDS.values() else "copy or download it again"
    raise InputError(f"the file is {content}, expected {kind} because its name ends with {suffix}: {remedy}")


def _refuse(what: str, error: Exception) -> NoReturn:
    if isinstance(error, NotImplementedError):
        raise InputError("its compression is not supported: pack it again with deflate") from None
    if isinstance(error, UnicodeDecodeError):
        raise InputError(f"the name of a member is not UTF-8, as the archive says that it is: {_EXTRACT}") from None
    raise InputError(f"{what} ({type(error).__name__}): copy it again, or {_EXTRACT}") from None


@dataclass(frozen=True, kw_only=True)
class ContainerMember:
    """Which member of which container is asked for."""

    container: str
    """Location of the container, which names its kind."""
    address: str = field(repr=False)
    """Its path or URL with credentials: two containers may not be taken for one, whatever their locations."""
    version: str
    label: str


class LastContainer:
    """The container that this process read last, kept open; a copy in another process begins with none."""

    def __init__(self) -> None:
        self._key, self._passed = ("", ""), set[str]()
        self._members: Iterator[Member] = iter(())
        self._file: BinaryIO | None = None

    def __reduce__(self) -> tuple[type["LastContainer"], tuple[()]]:
        return LastContainer, ()

    def read(self, member: ContainerMember) -> bytes:
        """The content of a member. Raises InputError if it is damaged or not there, Doubt if it cannot be read."""
        try:
            if self._key != (member.address, member.version) or member.label in self._passed:
                self._begin(member)
            for found in self._members:
                self._passed.add(found.label)
                if found.label == member.label:
                    return found.read()
        except BaseException:
            # the position in the file is unknown
            self.close()
            raise
        self.close()
        raise InputError("the archive has no such member any more: run again, so that it is listed again")

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        self._members = iter(())
        if self._file is not None:
            self._file.close()
        self._key, self._passed, self._file = ("", ""), set(), None

    def _begin(self, member: ContainerMember) -> None:
        self.close()
        self._file = open_binary(member.address)
        self._key, self._members = (member.address, member.version), members(self._file, member.container)
