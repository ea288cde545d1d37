"""Image files of paths and folders: which files count as images, and how a DICOM file is recognized."""

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import NoReturn

from glam_deploy.errors import InputError, UsageError, unreadable
from glam_deploy.images import image_files
from glam_deploy.regular import open_regular
from glam_deploy.signatures import HEAD, SIGNATURES, Kind, kind_of, may_hold_image, unpacked_kind

SUFFIXES = frozenset({*image_files.SUFFIXES, ".dcm", ".dicom"})
"""Suffixes of images in lower case; a file with one of them counts as an image, whatever its content."""
PACKED = frozenset(
    {".gz", ".gzip", ".bz2", ".bz", ".xz", ".zst", ".z", ".lz", ".lz4", ".lzma", ".lzo", ".br", ".zip", ".7z", ".rar"}
)
"""Suffixes behind that of an image that is packed: its reading fails and tells to unpack it."""
_PACKED_IMAGES = frozenset({Kind.DICOM, Kind.NO_PREAMBLE, Kind.DATA_SET, Kind.PNG, Kind.TIFF, Kind.NPY, Kind.TAR})


def find_inputs(
    paths: Sequence[Path | str],
    *,
    on_passed_over: Callable[[Path, Sequence[Path]], None] = lambda folder, others: None,
) -> list[Path]:
    """Image files of `paths`, without repeats: files as given, folders searched recursively in sorted order.

    In a folder, images are found by suffix (.dcm, .dicom, .png, .tif, .tiff, .npy, in any case, also packed as
    .dcm.gz), and DICOM files also by content, with those that lack preamble or header; so are images and tar files that
    are packed with gzip. A file without a suffix, as on DICOM media (PS3.10 section 8.2), that cannot be opened, or may
    be a damaged or packed image, is included too; reading it then raises the error. So is a file with one of these
    suffixes that cannot be opened. `on_passed_over` is called with each folder and its other files, if there are any,
    without hidden files and DICOMDIR. Links are followed, and each folder is searched once. A subfolder that cannot be
    searched, because of its permissions or a path that is too long for the system (PATH_MAX), is included as if it were
    a file, because it may hold images; reading it raises the error.

    Raises UsageError for a path that does not exist or cannot be accessed or searched, and for a folder without images.
    """
    expanded = [_expand(Path(path), on_passed_over) for path in dict.fromkeys(paths)]
    return list(dict.fromkeys(found for each in expanded for found in each))


def is_dicom(head: bytes) -> bool:
    """Whether `head`, the first 132 bytes or more of a file, is that of the DICOM file format (PS3.10 section 7.1)."""
    return SIGNATURES[Kind.DICOM](head)


def resembles_dicom(head: bytes) -> bool:
    """Whether `head`, the first `HEAD` bytes of a file, is that of a DICOM file, also without preamble or header."""
    return any(SIGNATURES[kind](head) for kind in (Kind.DICOM, Kind.NO_PREAMBLE, Kind.DATA_SET))


def is_directory_name(name: str) -> bool:
    """Whether a file name is that of a DICOMDIR, also as systems show it that mount ISO 9660 without its extensions."""
    return re.fullmatch(r"dicomdir\.?(;1)?", name, re.IGNORECASE) is not None


def is_image_name(name: PurePath) -> bool:
    """Whether a file name has the suffix of an image, also of a packed one: `a.dcm`, `a.dcm.gz`."""
    *_, first, last = ["", "", *map(str.lower, name.suffixes)]
    return last in SUFFIXES or (last in PACKED and first in SUFFIXES)


def has_no_suffix(path: PurePath) -> bool:
    """Whether a file name has no suffix, as on DICOM media; a file named by a UID seems to have one of digits."""
    return not path.suffix.strip(".0123456789")


def head_of(path: Path) -> bytes:
    """First bytes of a regular file, as many as its kind needs. Raises InputError if it cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read(HEAD)
    except IsADirectoryError as error:
        raise InputError("the path is a folder, expected a file: name the files in it") from error
    except OSError as error:
        raise InputError(f"the file cannot be read {unreadable(error)}") from error


def has_image(name: PurePath, head: bytes) -> bool:
    """Whether a file of a folder or container counts as an image by its content, or may be one that is damaged.

    `name`: of the file; `head`: its first `HEAD` bytes.
    """
    is_packed = kind_of(head) is Kind.GZIP and unpacked_kind(head) in _PACKED_IMAGES
    return resembles_dicom(head) or is_packed or (has_no_suffix(name) and may_hold_image(head))


def _expand(path: Path, on_passed_over: Callable[[Path, Sequence[Path]], None]) -> list[Path]:
    mode = _mode(path)
    if stat.S_ISREG(mode):
        return [path]
    if not stat.S_ISDIR(mode):
        raise UsageError(f"{path} is a device or pipe, expected a file or a folder: save it as a file")
    unsearched: list[Path] = []
    files = sorted(_files_in(path, unsearched))
    found = sorted([*filter(looks_like_image, files), *unsearched])
    if not found:
        raise UsageError(f"{path} contains no DICOM, PNG, TIFF or npy file: check the folder")
    if others := sorted(set(files) - set(found)):
        on_passed_over(path, others)
    return found


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UsageError(f"{path} does not exist, expected a file or a folder: check the path") from error
    except (OSError, ValueError) as error:  # ValueError: an invalid file name
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"{path} cannot be accessed ({reason}), expected a file or a folder: check the path and its permissions"
        ) from error


def _files_in(folder: Path, unsearched: list[Path]) -> Iterator[Path]:
    """All files in a folder and its subfolders, without hidden files and DICOMDIR; links to folders are followed.

    Appends subfolders that cannot be searched to `unsearched`. Raises UsageError if `folder` itself cannot.
    """

    def leave(error: OSError) -> None:
        if Path(error.filename) == folder:
            _refuse_folder(error)
        unsearched.append(Path(error.filename))

    seen: set[Path] = set()
    for place, folders, names in os.walk(folder, onerror=leave, followlinks=True):
        # a link may refer to a parent folder
        if (real := Path(place).resolve()) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in names if not (name.startswith(".") or is_directory_name(name)))


def _refuse_folder(error: OSError) -> NoReturn:
    raise UsageError(
        f"{error.filename} cannot be searched ({error.strerror}): give read permission, or name the files themselves"
    ) from error


def looks_like_image(path: Path) -> bool:
    """Whether a file of a folder counts as an image (`find_inputs`)."""
    named = is_image_name(path)
    try:
        # opening a pipe would block
        return stat.S_ISREG(path.stat().st_mode) and (named or has_image(path, head_of(path)))
    except (OSError, InputError):
        return named or has_no_suffix(path)
