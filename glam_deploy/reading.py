"""Any file -> Mammogram, told apart by content; and which files a command line means."""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from glam_deploy import images
from glam_deploy.errors import InputError, Remedy, UsageError
from glam_deploy.installation import refusal
from glam_deploy.records import Mammogram, Notice, View, parse_view

_SUFFIXES = {*images.SUFFIXES, ".dcm", ".dicom"}
"""In lower case; what is named so is meant as an image, whatever it holds."""


def read(
    path: Path | str,
    *,
    view: View | str | None = None,
    horizontal_flip: bool = False,
    for_processing: bool = False,
) -> Mammogram:
    """The mammogram in a DICOM, PNG, TIFF or npy file, told apart by content.

    `view` is needed for files other than DICOM whose name tells none; the tags of a DICOM object must agree with it.
    `horizontal_flip` says that the image is stored mirrored; a DICOM object's PatientOrientation must agree.
    `for_processing` lets For Processing DICOM images pass. Raises InputError and its subclasses, UsageError for a wrong
    view name, BackendUnavailable where pydicom or a decoder is needed and not installed.
    """
    path = Path(path)
    wanted = parse_view(view) if view is not None else None
    head = _head(path)
    if is_dicom(head):
        return _read_dicom(path, for_processing, wanted, horizontal_flip)
    images.image_kind(path, head)
    if wanted is None:
        return _read_named(path, horizontal_flip)
    return images.read_image(path, view=wanted, horizontal_flip=horizontal_flip)


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
    return head[128:132] == b"DICM"


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
        with path.open("rb") as file:
            return file.read(132)
    except IsADirectoryError as error:
        raise InputError("it is a folder, expected a file: name the files in it (reading.find_inputs does)") from error
    except OSError as error:
        raise InputError(f"the file cannot be read ({type(error).__name__}): check its path and rights") from error


def _read_dicom(path: Path, for_processing: bool, view: View | None, horizontal_flip: bool) -> Mammogram:
    try:
        from glam_deploy.dicom.read import read_view
    except ModuleNotFoundError as error:
        if (absence := refusal(error, user="DICOM")) is None:  # a broken install of ours
            raise
        raise absence from error
    return read_view(path, for_processing=for_processing, view=view, horizontal_flip=horizontal_flip)


def _read_named(path: Path, horizontal_flip: bool) -> Mammogram:
    view = images.view_from_name(path)
    if view is None:
        images.refuse_standardized(path)
        raise InputError("the file name tells no view, and none was given", Remedy.NAME_VIEW)
    mammogram = images.read_image(path, view=view, horizontal_flip=horizontal_flip)
    told = Notice(code="view-from-name", message=f"the view {view.value} was taken from the file name")
    return replace(mammogram, notices=(told, *mammogram.notices))
