"""Any file, or bytes, binary files and pydicom Datasets -> Mammogram; and the files that a command line means."""

import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any, NoReturn

import numpy as np

from glam_deploy.errors import DicomError, InputError, Remedy, UsageError, disk_reason
from glam_deploy.images import image_files
from glam_deploy.installation import refusal
from glam_deploy.preprocess import from_cropped, from_standardized
from glam_deploy.records import MAX_PIXELS, Mammogram, NetworkInput, Notice, Source, View, parse_view
from glam_deploy.regular import open_regular
from glam_deploy.signatures import HEAD, SIGNATURES, Kind
from glam_deploy.view_names import not_a_mammogram, other_kind, require_mammogram_name, view_from_name

MAX_BYTES = 8 * MAX_PIXELS + (1 << 20)
"""Most bytes that are taken from a binary file: the largest image in float64, and a header."""

_CHUNK = 1 << 24
_KINDS = "a path, bytes, a file opened in binary mode or a pydicom Dataset"


@dataclass(frozen=True, kw_only=True)
class Content:
    """An image that is in memory."""

    name: str
    """What a person calls it: the name of the file that it came from, else "bytes", "file" or "dataset"."""
    data: bytes | bytearray


def is_source(value: object) -> bool:
    """Whether `content_of` or a path reader takes `value`, as far as its type tells."""
    return (
        isinstance(value, str | os.PathLike | bytes | bytearray | memoryview) or _is_file(value) or _is_dataset(value)
    )


def content_of(source: Any) -> Content:
    """The bytes of a source that is no path, and its name.

    `source`: bytes, bytearray or memoryview; a file opened in binary mode, which is read from where it stands to its
    end and left open; or a pydicom Dataset with file meta, which is encoded as it is and not changed. Raises UsageError
    for anything else, and for a file that is closed, in text mode or at its end; InputError for one that cannot be read
    or has more than MAX_BYTES; DicomError for a Dataset that cannot be encoded.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return Content(name="bytes", data=bytes(source) if isinstance(source, memoryview) else source)
    if _is_dataset(source):
        from glam_deploy.dicom.read import file_bytes

        return Content(name=_name(getattr(source, "filename", None), "dataset"), data=file_bytes(source))
    if _is_file(source):
        return Content(name=_name(getattr(source, "name", None), "file"), data=_read(source))
    raise UsageError(f"an image was given as {type(source).__name__}; expected {_KINDS}")


@contextmanager
def as_file(data: bytes | bytearray) -> Iterator[Path]:
    """A path with `data` behind it for as long as the block lasts.

    On Linux the file is in memory (memfd_create(2)), so that no image of a patient reaches a disk; elsewhere it is a
    temporary file that only this user can read.
    """
    if sys.platform == "linux" and Path("/proc/self/fd").is_dir():
        number = os.memfd_create("glam-deploy")
        with os.fdopen(number, "wb") as file:
            file.write(data)
            file.flush()
            yield Path(f"/proc/self/fd/{number}")
        return
    with tempfile.TemporaryDirectory(prefix="glam-deploy-") as folder:
        path = Path(folder) / "image"
        path.write_bytes(data)
        yield path


def _is_file(value: object) -> bool:
    return callable(getattr(value, "read", None)) and not isinstance(value, os.PathLike)


def _is_dataset(value: object) -> bool:
    """Without importing pydicom: who has a Dataset has it imported."""
    module = sys.modules.get("pydicom.dataset")
    return module is not None and isinstance(value, module.Dataset)


def _name(given: object, otherwise: str) -> str:
    # a file of `os.fdopen` or `tempfile.TemporaryFile` has its number for a name
    named = os.fsdecode(given) if isinstance(given, str | bytes | os.PathLike) else ""
    return Path(named).name or otherwise


def _read(file: Any) -> bytes:
    if getattr(file, "closed", False):
        raise UsageError("the image's file is closed: open it again in binary mode")
    start = _position(file)
    content = bytearray()
    try:
        while chunk := file.read(_CHUNK):
            if not isinstance(chunk, bytes | bytearray | memoryview):
                raise UsageError(f"the image's file gives {type(chunk).__name__}: open it in binary mode ('rb')")
            content += chunk
            if len(content) > MAX_BYTES:
                raise InputError(f"the image's file has more than {MAX_BYTES} bytes, too many for one mammogram")
    except (OSError, ValueError) as error:
        raise InputError(f"the image's file cannot be read ({type(error).__name__}): open it in binary mode") from error
    if not content and start:
        raise UsageError(f"the image's file is at its end (byte {start}): seek(0) first")
    return bytes(content)


def _position(file: Any) -> int:
    try:
        return int(file.tell())
    except (OSError, ValueError, AttributeError):
        return 0  # a pipe or socket has none


_SUFFIXES = {*image_files.SUFFIXES, ".dcm", ".dicom"}
"""In lower case; what is named so is meant as an image, whatever it holds."""


@dataclass(frozen=True, kw_only=True)
class _Options:
    """How to take one image; see `read`."""

    view: View | None
    horizontal_flip: bool
    for_processing: bool


def read(
    source: Any,
    *,
    view: View | str | None = None,
    horizontal_flip: bool = False,
    for_processing: bool = False,
) -> Mammogram:
    """The mammogram in a DICOM, PNG, TIFF or npy file, told apart by content.

    `source`: a path; the content of a file as bytes, bytearray or memoryview; a file opened in binary mode, which is
    read from where it stands to its end and left open; or a pydicom Dataset with file meta, which is not changed.
    `view` is needed for files other than DICOM whose name tells none; the tags of a DICOM object must agree with it.
    Where neither `view` nor the tags tell the view of a DICOM object, its file name may (`view_names`); tags count
    before the name, and a notice (`view-name-differs`) tells of a contradiction. `horizontal_flip` says that the image
    is stored mirrored; a DICOM object's PatientOrientation must agree. `for_processing` lets For Processing DICOM
    images pass. Raises InputError and its subclasses (NotForThisNetwork also for a PNG, TIFF or npy file that is named
    like a mask), UsageError for a wrong view name or another kind of source, BackendUnavailable where pydicom or a
    decoder is needed and not installed.
    """
    wanted = parse_view(view) if view is not None else None
    options = _Options(view=wanted, horizontal_flip=horizontal_flip, for_processing=for_processing)
    if isinstance(source, str | os.PathLike):
        path = Path(os.fsdecode(source))
        return _read_file(path, path, options)
    content = content_of(source)
    with as_file(content.data) as path:
        mammogram = _read_file(path, PurePath(content.name), options)
    return replace(mammogram, source=replace(mammogram.source, name=content.name))


def read_standardized(path: Path, *, view: View | None = None) -> NetworkInput:
    """What the network sees, from a file that is cropped to 2944 x 1920, upright and facing right already.

    A npy or 32-bit float TIFF file holds the standardized image itself (`preprocess.from_standardized`). A 16-bit PNG,
    TIFF or npy file holds the cropped pixels, which are standardized here over the whole image
    (`preprocess.from_cropped`), as the published programs do after loading. Raises InputError for anything else, 8-bit
    images, which outlines are, among them.
    """
    require_mammogram_name(path)
    if is_dicom(_head(path)):
        raise InputError("the file is DICOM, which is never cropped and standardized already", Remedy.RAW)
    kind, notices = image_files.image_kind(path, _head(path)), tuple[Notice, ...]()
    if kind == "npy":
        pixels = image_files.read_array(path)
    else:
        pixels, _, notices = image_files.read_pixels(path)
    make = from_standardized if np.issubdtype(pixels.dtype, np.floating) else from_cropped
    made = make(pixels, source=Source(name=path.name, kind=kind), view=view)
    return replace(made, notices=(*_kind_notices(path), *notices, *made.notices))


def find_inputs(
    paths: Sequence[Path | str],
    *,
    on_passed_over: Callable[[Path, Sequence[Path]], None] = lambda folder, others: None,
) -> list[Path]:
    """The files that `paths` mean, each once: files as given, folders searched to the bottom in sorted order.

    In a folder images are found by suffix (.dcm, .dicom, .png, .tif, .tiff, .npy, in any case), and DICOM by content
    too. What cannot be opened counts where its suffix says so or it has none, as files on DICOM media (PS3.10 section
    8.2): reading it will tell. `on_passed_over` is given each folder and its other files, where there are any; hidden
    ones and DICOMDIR are not among them. Links are followed, and each folder is searched once.

    Raises UsageError for a path that does not exist or cannot be looked at, a folder that cannot be searched, and one
    without any image.
    """
    expanded = [_expand(Path(path), on_passed_over) for path in dict.fromkeys(paths)]
    return list(dict.fromkeys(found for each in expanded for found in each))


def is_dicom(head: bytes) -> bool:
    """Whether a file that starts with `head` (132 bytes or more) is in the DICOM file format (PS3.10 section 7.1)."""
    return SIGNATURES[Kind.DICOM](head)


def _expand(path: Path, on_passed_over: Callable[[Path, Sequence[Path]], None]) -> list[Path]:
    mode = _mode(path)
    if stat.S_ISREG(mode):
        return [path]
    if not stat.S_ISDIR(mode):
        raise UsageError(f"{path} is a device or pipe, expected a file or a folder: save it as a file")
    files = sorted(_files_in(path))
    found = [file for file in files if _looks_like_image(file)]
    if not found:
        raise UsageError(f"{path} holds no DICOM, PNG, TIFF or npy file: check the folder")
    if others := sorted(set(files) - set(found)):
        on_passed_over(path, others)
    return found


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{path} does not exist, expected a file or a folder: check the path") from error
    except (OSError, ValueError) as error:  # ValueError: a name that no file system can hold
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"{path} cannot be looked at ({reason}), expected a file or a folder: check the path and its rights"
        ) from error


def _files_in(folder: Path) -> Iterator[Path]:
    """Every file below that is not hidden and no DICOMDIR, links to folders followed."""
    seen: set[Path] = set()
    for place, folders, names in os.walk(folder, onerror=_refuse_folder, followlinks=True):
        # a link may lead back to where it came from
        if (real := Path(place).resolve()) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in names if not name.startswith(".") and name != "DICOMDIR")


def _refuse_folder(error: OSError) -> NoReturn:
    raise UsageError(
        f"{error.filename} cannot be searched ({error.strerror}): give access to it, or name the files themselves"
    ) from error


def _looks_like_image(path: Path) -> bool:
    suffix = path.suffix.lower()
    named = suffix in _SUFFIXES
    try:
        # opening a pipe would wait for its writer
        return stat.S_ISREG(path.stat().st_mode) and (named or is_dicom(_head(path)))
    except (OSError, InputError):
        # the end of a UID looks like a suffix
        return named or not suffix.strip(".0123456789")


def _head(path: Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read(HEAD)
    except IsADirectoryError as error:
        raise InputError("it is a folder, expected a file: name the files in it") from error
    except OSError as error:
        raise InputError(f"the file cannot be read ({disk_reason(error)}): check its path and rights") from error


def _read_file(path: Path, name: PurePath, options: _Options) -> Mammogram:
    """`name` is what the file is called where it came from."""
    head = _head(path)
    if is_dicom(head):
        return _read_dicom(path, name, options)
    image_files.image_kind(path, head)
    require_mammogram_name(name)
    view = options.view or view_from_name(name)
    if view is None:
        image_files.refuse_standardized(path)
        raise InputError("the file name tells no view, and none was given", Remedy.NAME_VIEW)
    mammogram = image_files.read_image(path, view=view, horizontal_flip=options.horizontal_flip)
    mammogram = replace(mammogram, notices=(*_kind_notices(name), *mammogram.notices))
    return mammogram if options.view else _named(mammogram)


def _read_dicom(path: Path, name: PurePath, options: _Options) -> Mammogram:
    """Tags count before the name: it is asked where they tell no view."""
    try:
        mammogram = _read_view(path, options)
    except DicomError as error:
        if options.view is not None or Remedy.NAME_VIEW not in error.remedies or not_a_mammogram(name):
            raise
        if (view := view_from_name(name)) is None:
            raise
        return _named(_read_view(path, replace(options, view=view)))
    return mammogram if options.view else _compared(mammogram, name)


def _read_view(path: Path, options: _Options) -> Mammogram:
    try:
        from glam_deploy.dicom.read import read_view
    except ModuleNotFoundError as error:
        if (absence := refusal(error, user="DICOM")) is None:  # a broken install of ours
            raise
        raise absence from error
    return read_view(
        path,
        for_processing=options.for_processing,
        view=options.view,
        horizontal_flip=options.horizontal_flip,
    )


def _named(mammogram: Mammogram) -> Mammogram:
    told = Notice(code="view-from-name", message=f"the view {mammogram.view.value} was taken from the file name")
    return replace(mammogram, notices=(told, *mammogram.notices))


def _kind_notices(name: PurePath) -> tuple[Notice, ...]:
    """Of a file without a header: what its name says that a header would be refused for."""
    if (found := other_kind(name)) is None:
        return ()
    told = f"the file name has the word {found[0]} ({found[1]}): the network was made for plain full-field views only"
    return (Notice(code="name-of-other-kind", message=told),)


def _compared(mammogram: Mammogram, name: PurePath) -> Mammogram:
    """With a notice where the file name tells another view than the tags."""
    try:
        view = view_from_name(name)
    except InputError:  # it names several
        return mammogram
    if view in (None, mammogram.view):
        return mammogram
    message = f"the file name tells the view {view}, the DICOM tags {mammogram.view}: the tags count"
    return replace(mammogram, notices=(Notice(code="view-name-differs", message=message), *mammogram.notices))
