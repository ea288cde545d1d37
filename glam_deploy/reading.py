"""Files, bytes, binary file objects and pydicom Datasets -> Mammogram."""

import os
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from glam_deploy.errors import DicomError, InputError, Remedy, UsageError
from glam_deploy.images import image_files
from glam_deploy.input_files import head_of, is_dicom
from glam_deploy.installation import refusal
from glam_deploy.preprocess import from_cropped, from_standardized
from glam_deploy.records import MAX_PIXELS, Mammogram, NetworkInput, Notice, Source, View, parse_view
from glam_deploy.view_names import not_a_mammogram, other_kind, require_mammogram_name, view_from_name

MAX_BYTES = 8 * MAX_PIXELS + (1 << 20)
"""Largest number of bytes read from a binary file: `MAX_PIXELS` float64 values and a header."""

_CHUNK = 1 << 24
_KINDS = "a path, bytes, a file opened in binary mode or a pydicom Dataset"


@dataclass(frozen=True, kw_only=True)
class Content:
    """An image file in memory."""

    name: str
    """Name of the original file, else "bytes", "file" or "dataset"."""
    data: bytes | bytearray


@contextmanager
def in_file(path: Path) -> Iterator[None]:
    """Context that puts `path` before the message of an InputError, for a caller that reads several files."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{path}: {error.args[0]}", *error.remedies) from error


def is_source(value: object) -> bool:
    """Whether the type of `value` is one that `read` accepts."""
    return (
        isinstance(value, str | os.PathLike | bytes | bytearray | memoryview) or _is_file(value) or _is_dataset(value)
    )


def content_of(source: Any) -> Content:
    """Bytes and name of a source that is not a path.

    `source`: bytes, bytearray or memoryview; a file opened in binary mode, which is read from its position to its end
    and stays open; or a pydicom Dataset with file meta information, which is encoded and not changed. Raises UsageError
    for another type, and for a file that is closed, in text mode or at its end; InputError for a file that cannot be
    read or has more than MAX_BYTES; DicomError for a Dataset that cannot be encoded.
    """
    if isinstance(source, bytes | bytearray | memoryview):
        return Content(name="bytes", data=bytes(source) if isinstance(source, memoryview) else source)
    if _is_dataset(source):
        from glam_deploy.dicom.read import file_bytes

        return Content(name=_name(getattr(source, "filename", None), "dataset"), data=file_bytes(source))
    if _is_file(source):
        return Content(name=_name(getattr(source, "name", None), "file"), data=_read(source))
    raise UsageError(f"an image has the type {type(source).__name__}, expected {_KINDS}")


@contextmanager
def as_file(data: bytes | bytearray) -> Iterator[Path]:
    """Context manager for the path of a temporary file with the content `data`.

    On Linux the file is in memory (memfd_create(2)), so that no image of a patient is written to a disk; on other
    systems only this user can read it.
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
    """Whether `value` is a pydicom Dataset; does not import pydicom, because a Dataset exists only after its import."""
    module = sys.modules.get("pydicom.dataset")
    return module is not None and isinstance(value, module.Dataset)


def _name(given: object, otherwise: str) -> str:
    # the name of a file from `os.fdopen` or `tempfile.TemporaryFile` is its descriptor number
    named = os.fsdecode(given) if isinstance(given, str | bytes | os.PathLike) else ""
    return Path(named).name or otherwise


def _read(file: Any) -> bytes:
    if getattr(file, "closed", False):
        raise UsageError("the file of the image is closed: open it again in binary mode")
    start = _position(file)
    content = bytearray()
    try:
        while chunk := file.read(_CHUNK):
            if not isinstance(chunk, bytes | bytearray | memoryview):
                raise UsageError(
                    f"the file of the image returns {type(chunk).__name__}, expected bytes: open it in binary mode "
                    "('rb')"
                )
            content += chunk
            if len(content) > MAX_BYTES:
                raise InputError(f"the file of the image has more than {MAX_BYTES} bytes, too many for one mammogram")
    except ValueError as error:  # UnsupportedOperation is one, and an OSError too
        raise InputError(
            f"the file of the image cannot be read ({type(error).__name__}): open it in binary mode for reading ('rb')"
        ) from error
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:  # of gzip and zipfile for damaged content
        raise InputError(
            f"the file of the image cannot be read ({type(error).__name__}): check that its content is complete, and "
            "in the format for which it was opened"
        ) from error
    if not content and start:
        raise UsageError(f"the file of the image is at its end (byte {start}): call seek(0) first")
    return bytes(content)


def _position(file: Any) -> int:
    try:
        return int(file.tell())
    except (OSError, ValueError, AttributeError):
        return 0  # a pipe or socket has no position


@dataclass(frozen=True, kw_only=True)
class _Options:
    """Options of `read`."""

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
    """Read the mammogram in a DICOM, PNG, TIFF or npy file; the format is identified by content.

    `source`: a path; the content of a file as bytes, bytearray or memoryview; a file opened in binary mode, which is
    read from its position to its end and stays open; or a pydicom Dataset with file meta information, which is not
    changed. `view` is required for other formats than DICOM if the file name has no view; the tags of a DICOM object
    must agree with it. If neither `view` nor the tags state the view of a DICOM object, its file name is used
    (`view_names`); tags have priority over the name, and a contradiction gives the notice `view-name-differs`.
    `horizontal_flip`: the image is stored mirrored; PatientOrientation of a DICOM object must agree. `for_processing`
    accepts For Processing DICOM images. Raises InputError and its subclasses (NotForThisNetwork also for a PNG, TIFF or
    npy file with the name of a mask), UsageError for a wrong view name or another type of source, BackendUnavailable if
    pydicom or a decoder is required and not installed.
    """
    wanted = parse_view(view) if view is not None else None
    options = _Options(view=wanted, horizontal_flip=horizontal_flip, for_processing=for_processing)
    if isinstance(source, str | os.PathLike):
        path = Path(os.fsdecode(source))
        return _read_file(path, path, options)
    content = content_of(source)
    with as_file(content.data) as path:
        return _read_renamed(path, PurePath(content.name), options)


def read_under_name(path: Path, name: PurePath, *, for_processing: bool = False) -> Mammogram:
    """Read the mammogram in the file `path`, as `read` does, as if its path were `name`."""
    return _read_renamed(path, name, _Options(view=None, horizontal_flip=False, for_processing=for_processing))


def _read_renamed(path: Path, name: PurePath, options: _Options) -> Mammogram:
    mammogram = _read_file(path, name, options)
    return replace(mammogram, source=replace(mammogram.source, name=name.name))


def read_standardized(path: Path, *, view: View | None = None) -> NetworkInput:
    """Network input from a file that is already cropped to 2944 x 1920, upright and facing right.

    A npy or 32-bit float TIFF file contains the standardized image (`preprocess.from_standardized`). A 16-bit PNG, TIFF
    or npy file contains the cropped pixels, which are standardized here over the whole image
    (`preprocess.from_cropped`), as the published programs do after loading. Raises InputError for other files, also for
    8-bit images, because masks have 8 bits.
    """
    require_mammogram_name(path)
    if is_dicom(head_of(path)):
        raise InputError("the file is DICOM, which is never a cropped and standardized input", Remedy.RAW)
    kind, notices = image_files.image_kind(path, head_of(path)), tuple[Notice, ...]()
    if kind == "npy":
        pixels = image_files.read_array(path)
    else:
        pixels, _, notices = image_files.read_pixels(path)
    make = from_standardized if np.issubdtype(pixels.dtype, np.floating) else from_cropped
    made = make(pixels, source=Source(name=path.name, kind=kind), view=view)
    return replace(made, notices=(*_kind_notices(path), *notices, *made.notices))


def read_patient(path: Path) -> tuple[tuple[str, str], ...] | None:
    """`Source.patient` of a file; () for other formats than DICOM, None if it cannot be read on this machine."""
    try:
        if not is_dicom(head_of(path)):
            return ()
        from glam_deploy.dicom import read as dicom_read
    except (InputError, ModuleNotFoundError):
        return None
    return dicom_read.read_patient(path)


def read_study(path: Path) -> str:
    """StudyInstanceUID of a DICOM file, also of one without a result; "" for other formats, or if it is unknown."""
    return read_uids(path).get("StudyInstanceUID", "")


def read_uids(path: Path) -> Mapping[str, str]:
    """`Source.uids` of a DICOM file, also of one without a result; without UIDs that are unknown or not valid."""
    try:
        if not is_dicom(head_of(path)):
            return {}
        from glam_deploy.dicom import read as dicom_read
    except (InputError, ModuleNotFoundError):
        return {}
    return dicom_read.read_uids(path)


def uids_of(data: bytes) -> Mapping[str, str]:
    """As `read_uids`, of the content of a file."""
    return {} if (dicom := _dicom_for(data)) is None else dicom.uids_of(data)


def has_view_of_name(data: bytes) -> bool:
    """Whether the view of an image with this content is, or is completed by, that of its file name."""
    return not is_dicom(data[:132]) or ((dicom := _dicom_for(data)) is not None and dicom.needs_given_view(data))


def _dicom_for(data: bytes) -> Any:
    """The module `dicom.read`; None for another format and without pydicom."""
    if not is_dicom(data[:132]):
        return None
    try:
        from glam_deploy.dicom import read as dicom_read
    except ModuleNotFoundError:
        return None
    return dicom_read


def _read_file(path: Path, name: PurePath, options: _Options) -> Mammogram:
    """Read the file `path`; `name`: its original name."""
    head = head_of(path)
    if is_dicom(head):
        return _read_dicom(path, name, options)
    kind = image_files.image_kind(path, head)
    require_mammogram_name(name)
    view = options.view or view_from_name(name)
    if view is None:
        image_files.refuse_standardized(path)
        raise InputError(
            f"the view is unknown: a {kind} file has no tags, and neither a file name nor the caller states it",
            Remedy.VIEW_OF_PICTURE,
        )
    mammogram = _with_kind(image_files.read_image(path, view=view, horizontal_flip=options.horizontal_flip), name)
    return mammogram if options.view else _named(mammogram)


def _read_dicom(path: Path, name: PurePath, options: _Options) -> Mammogram:
    """Read a DICOM file; its name is used only if the tags do not state the view."""
    try:
        mammogram = _read_view(path, options)
    except DicomError as error:
        if options.view is not None or Remedy.NAME_VIEW not in error.remedies or not_a_mammogram(name):
            raise
        if (view := view_from_name(name)) is None:
            raise
        named = _read_view(path, replace(options, view=view), view_given_by="the file name")
        return _named(_with_kind(named, name))
    return mammogram if options.view else _compared(mammogram, name)


def _read_view(path: Path, options: _Options, *, view_given_by: str = "the view option") -> Mammogram:
    try:
        from glam_deploy.dicom.read import read_view
    except ModuleNotFoundError as error:
        if (absence := refusal(error, user="DICOM")) is None:  # glam-deploy itself is incomplete
            raise
        raise absence from error
    return read_view(
        path,
        for_processing=options.for_processing,
        view=options.view,
        view_given_by=view_given_by,
        horizontal_flip=options.horizontal_flip,
    )


def _named(mammogram: Mammogram) -> Mammogram:
    notice = Notice(code="view-from-name", message=f"the view {mammogram.view.value} was taken from the file name")
    return replace(mammogram, notices=(notice, *mammogram.notices))


def _with_kind(mammogram: Mammogram, name: PurePath) -> Mammogram:
    return replace(mammogram, notices=(*_kind_notices(name), *mammogram.notices))


def _kind_notices(name: PurePath) -> tuple[Notice, ...]:
    """Notice for an image whose view no header states, if its name states another kind, which a header would show."""
    if (found := other_kind(name)) is None:
        return ()
    message = (
        f"the file name has the word {found[0]} ({found[1]}): the network was made for conventional full views only"
    )
    return (Notice(code="name-of-other-kind", message=message),)


def _compared(mammogram: Mammogram, name: PurePath) -> Mammogram:
    """`mammogram` with a notice if the file name has another view than the tags."""
    try:
        view = view_from_name(name)
    except InputError:  # the name has several views
        return mammogram
    if view in (None, mammogram.view):
        return mammogram
    message = f"the file name has the view {view}, the DICOM tags {mammogram.view}: the view of the tags was used"
    return replace(mammogram, notices=(Notice(code="view-name-differs", message=message), *mammogram.notices))
