"""Any file -> Mammogram, told apart by content; and which files a command line means."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from glam_deploy import images
from glam_deploy.errors import BackendUnavailable, InputError, UsageError
from glam_deploy.records import VIEW_NAMES, Mammogram, Notice, View, parse_view


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
    view name, BackendUnavailable where pydicom is needed and not installed.
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


def find_inputs(paths: Sequence[Path | str]) -> list[Path]:
    """The files that `paths` mean, each once: files as given, folders searched to the bottom in sorted order.

    In a folder DICOM is found by content, PNG, TIFF and npy by suffix; hidden files and DICOMDIR are passed over.
    Raises UsageError for a path that does not exist and a folder without any image.
    """
    return list(dict.fromkeys(found for path in paths for found in _expand(Path(path))))


def is_dicom(head: bytes) -> bool:
    """Whether a file that starts with `head` (132 bytes or more) is in the DICOM file format (PS3.10 section 7.1)."""
    return head[128:132] == b"DICM"


def _expand(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UsageError(f"{path} does not exist, expected a file or a folder: check the path")
    found = sorted(_images_in(path))
    if not found:
        raise UsageError(f"{path} holds no DICOM, PNG, TIFF or npy file: check the folder")
    return found


def _images_in(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden and path.name != "DICOMDIR" and _looks_like_image(path):
            yield path


def _looks_like_image(path: Path) -> bool:
    return path.suffix.lower() in images.SUFFIXES or is_dicom(_head(path))


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(132)
    except OSError as error:
        raise InputError(f"the file cannot be read ({type(error).__name__}): check its path and rights") from error


def _read_dicom(path: Path, for_processing: bool, view: View | None, horizontal_flip: bool) -> Mammogram:
    try:
        from glam_deploy.dicom.read import read_view
    except ModuleNotFoundError as error:
        # a broken install of ours must not look like a missing package
        if (error.name or "").partition(".")[0] != "pydicom":
            raise
        raise BackendUnavailable(
            'DICOM needs pydicom, which is not installed: pip install "glam-deploy[dicom]"'
        ) from error
    return read_view(path, for_processing=for_processing, view=view, horizontal_flip=horizontal_flip)


def _read_named(path: Path, horizontal_flip: bool) -> Mammogram:
    view = images.view_from_name(path)
    if view is None:
        raise InputError(f"the file name tells no view, and none was given: name it with --view, one of {VIEW_NAMES}")
    mammogram = images.read_image(path, view=view, horizontal_flip=horizontal_flip)
    told = Notice(code="view-from-name", message=f"the view {view.value} was taken from the file name")
    return replace(mammogram, notices=(told, *mammogram.notices))
