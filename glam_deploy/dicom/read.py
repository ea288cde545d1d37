"""DICOM file -> Mammogram; pydicom Dataset in memory -> bytes of a DICOM file."""

import copy
import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID

from glam_deploy.dicom import acceptance, views
from glam_deploy.dicom.elements import BEFORE_PIXELS, PIXEL_DATA
from glam_deploy.dicom.header import KEYWORDS, Header, dicom_errors, read_header, store_parsed_values
from glam_deploy.dicom.part10 import open_data_set
from glam_deploy.dicom.pixels import StoredImage, read_pixels
from glam_deploy.dicom.values import LIBRARY_ERRORS, Elements
from glam_deploy.errors import DicomError, IncompleteObject, NotForThisNetwork, Remedy, UsageError, unreadable
from glam_deploy.records import MAX_PIXELS, PATIENT_KEYWORDS, UID_KEYWORDS, Mammogram, Notice, Pixels, Source, View
from glam_deploy.regular import open_regular

MAX_BYTES = 4 * MAX_PIXELS
"""Largest number of bytes read from one object, after inflation: twice the size of `MAX_PIXELS` 16-bit pixels."""
_SQUARE = 0.02
"""Largest difference of the two spacings of square pixels, relative; some headers have rounded or measured ones."""


def read_view(
    path: Path,
    *,
    for_processing: bool = False,
    view: View | None = None,
    view_given_by: str = views.OPTION,
    horizontal_flip: bool = False,
) -> Mammogram:
    """Read the mammogram in the DICOM file `path`.

    `for_processing` accepts For Processing images. `view` and `horizontal_flip` (stored mirrored) complete missing and
    unknown tags; they must not contradict known tags. `view_given_by`: where `view` is from, for messages. Pixels are
    uint8 (up to 8 bits stored) or uint16 [rows, columns], source frame, no VOI LUT applied. `source.facts` has
    transfer_syntax, bits_stored, imager_pixel_spacing_mm ([row, column] or None), photometric_interpretation,
    sop_class, presentation_intent and voi; also field_of_view_horizontal_flip if the header has it, laterality_from if
    that is "option", and padding if the header states as padding what is above 0 (`StoredImage.padding`). Raises
    DicomError or NotForThisNetwork (see `acceptance.check`, `views.view_of`), before the pixels are read if the header
    is sufficient, and BackendUnavailable if a decoder is not installed; no message contains an identifier.
    """
    silence_pydicom()
    with _opened(path) as file:
        parsed = _Parsed(file, KEYWORDS)
        with parsed.tell_end():
            header = read_header(parsed.read_through(BEFORE_PIXELS))
            notices = acceptance.check(header, for_processing=for_processing, view_is_given=view is not None)
            found = views.view_of(header, view, given_by=view_given_by)
        stored = views.stored_orientation(header, found)
        if horizontal_flip and stored and not stored.mirrored:
            raise DicomError("PatientOrientation states that the image is not stored mirrored", Remedy.NO_FLIP)
        parsed.refuse_float_pixels()
        # pixels are read last, because a refused object may contain gigabytes of pixels
        dataset = parsed.read_through(PIXEL_DATA)
        store_parsed_values(dataset, header)
        image = read_pixels(dataset, header)
    facts = _facts(header) | ({"padding": image.padding} if image.padding else {})
    return Mammogram(
        pixels=image.pixels,
        view=found,
        horizontal_flip=horizontal_flip or bool(stored and stored.mirrored),
        half_turn=bool(stored and stored.half_turn),
        source=Source(name=path.name, kind="dicom", uids=_valid_uids(header), facts=facts, patient=read_patient(path)),
        notices=_merge_lossy_notices(
            (*notices, *image.notices, *_spacing_notices(header), *_orientation_notices(header, stored))
        ),
    )


def read_film(path: Path, view: View) -> Mammogram:
    """Read the scan of a film of a labelled set, a grey DICOM object of any SOP class whose header states no view.

    Pixels and `source` as of `read_view`, without presentation_intent. No acceptance rule for mammograms applies, so it
    is not for images of patients. Raises as `read_grey`.
    """
    header, image = _grey(path)
    facts = {name: value for name, value in _facts(header).items() if name != "presentation_intent"}
    source = Source(name=path.name, kind="dicom", uids=_valid_uids(header), facts=facts)
    return Mammogram(pixels=image.pixels, view=view, source=source, notices=image.notices)


def read_grey(path: Path) -> Pixels:
    """Read the pixels of a grey DICOM object of any SOP class, such as a mask: uint8 or uint16 [rows, columns].

    Raises DicomError, and BackendUnavailable if a decoder is not installed.
    """
    return _grey(path)[1].pixels


def _grey(path: Path) -> tuple[Header, StoredImage]:
    silence_pydicom()
    with _opened(path) as file:
        parsed = _Parsed(file, KEYWORDS)
        header = read_header(parsed.read_through(BEFORE_PIXELS))
        acceptance.check_grey(header)
        parsed.refuse_float_pixels()
        dataset = parsed.read_through(PIXEL_DATA)
        store_parsed_values(dataset, header)
        return header, read_pixels(dataset, header)


def read_stated_view(path: Path) -> View:
    """The view in the header of a DICOM file. Raises DicomError if it has none, NotForThisNetwork for another view."""
    return views.view_of(read_header(read_elements(path, KEYWORDS)), None)


def read_patient(path: Path) -> tuple[tuple[str, str], ...]:
    """(keyword, SHA-256 of the value) for each of PATIENT_KEYWORDS; an element that cannot be read counts as empty."""
    values = dict.fromkeys(PATIENT_KEYWORDS, "")
    with suppress(DicomError):
        elements = Elements(read_elements(path, PATIENT_KEYWORDS))
        values = {
            keyword: "\\".join(elements.texts(keyword)) for keyword in PATIENT_KEYWORDS if elements.values(keyword)
        }
    return tuple(
        (keyword, hashlib.sha256(values.get(keyword, "").encode(errors="backslashreplace")).hexdigest())
        for keyword in PATIENT_KEYWORDS
    )


def read_uids(path: Path) -> dict[str, str]:
    """`Source.uids` of a DICOM file, also of one that is not for the networks; without those that are not valid."""
    with suppress(DicomError), _opened(path) as file:
        return _valid_uids_in(file)
    return {}


def needs_given_view(data: bytes) -> bool:
    """Whether the view in the header of a DICOM file is missing or incomplete, so that a given one completes it."""
    silence_pydicom()
    try:
        views.view_of(read_header(_Parsed(BytesIO(data), KEYWORDS).read_through(BEFORE_PIXELS)), None)
    except NotForThisNetwork:
        return False
    except DicomError as error:
        return Remedy.NAME_VIEW in error.remedies
    return False


def uids_of(data: bytes) -> dict[str, str]:
    """As `read_uids`, of the content of a file, which is not copied."""
    with suppress(DicomError):
        return _valid_uids_in(BytesIO(data))
    return {}


def _valid_uids_in(file: BinaryIO) -> dict[str, str]:
    silence_pydicom()
    elements = Elements(_Parsed(file, UID_KEYWORDS).read_through(BEFORE_PIXELS))
    stated = {keyword: elements.texts(keyword)[0] for keyword in UID_KEYWORDS if elements.values(keyword)}
    return {keyword: uid for keyword, uid in stated.items() if UID(uid).is_valid}


def read_texts(path: Path, keywords: Sequence[str]) -> dict[str, str]:
    """The first value of each text element of a DICOM file, in its character set; "" for an absent or damaged one.

    Raises DicomError if the file cannot be read.
    """
    dataset = read_elements(path, ("SpecificCharacterSet", *keywords))
    with suppress(*LIBRARY_ERRORS):
        dataset.decode()
    elements = Elements(dataset)
    return {keyword: elements.texts(keyword)[0] if elements.values(keyword) else "" for keyword in keywords}


def read_elements(path: Path, keywords: Sequence[str]) -> Dataset:
    """The elements `keywords` of the DICOM file `path`, without pixels, with file meta information.

    Absent elements are left out. Raises DicomError.
    """
    silence_pydicom()
    with _opened(path) as file:
        return _Parsed(file, keywords).read_through(BEFORE_PIXELS)


def silence_pydicom() -> None:
    """Disable warnings and log messages of pydicom in this process, because both quote values of elements.

    They are not enabled again, because that would not be thread-safe. Call it before each use of pydicom, because the
    host program may reset warnings or logging.
    """
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)


def _opened(path: Path) -> BinaryIO:
    try:
        return open_regular(path)
    except OSError as error:
        raise DicomError(f"the file cannot be opened {unreadable(error)}") from error


class _Parsed:
    """Reader of the listed elements of a DICOM file, from its beginning, in one or more calls of `read_through`."""

    def __init__(self, file: BinaryIO, keywords: Sequence[str]) -> None:
        self._meta, self._reader = open_data_set(file, keywords, limit=MAX_BYTES)

    def read_through(self, last: int) -> Dataset:
        """The listed elements up to and including the tag `last`, with file meta information."""
        with dicom_errors("not a readable DICOM file (PS3.10): it is damaged, incomplete or in another format"):
            dataset = self._reader.read_through(last)
        dataset.file_meta = self._meta
        return dataset

    def refuse_float_pixels(self) -> None:
        """Raise DicomError if the pixels, which were passed, are floats (PS3.3 C.7.6.24)."""
        if self._reader.has_float_pixels:
            raise DicomError(
                "the pixels are in FloatPixelData or DoubleFloatPixelData, expected integers in PixelData: export the "
                "object again with them"
            )

    @contextmanager
    def tell_end(self) -> Iterator[None]:
        """Context that raises DicomError of the block as IncompleteObject if the data set ends before its pixels."""
        try:
            yield
        except DicomError as error:
            self.refuse_float_pixels()
            if isinstance(error, IncompleteObject) or not self._reader.has_ended:
                raise
            raise IncompleteObject(
                "the data set ends before its pixels, so it is truncated or never had any: export the object again"
            ) from error


def _valid_uids(header: Header) -> dict[str, str]:
    """Valid UIDs only, because another text could be a name."""
    return {keyword: uid for keyword, uid in header.uids.items() if UID(uid).is_valid}


def _merge_lossy_notices(notices: tuple[Notice, ...]) -> tuple[Notice, ...]:
    """Join the messages of all notices `lossy`, from the header and from the stream, in the first of them."""
    losses = [notice for notice in notices if notice.code == "lossy"]
    if len(losses) < 2:
        return notices
    merged = replace(losses[0], message="; ".join(notice.message for notice in losses))
    return tuple(merged if notice is losses[0] else notice for notice in notices if notice not in losses[1:])


def _facts(header: Header) -> dict[str, object]:
    intent = "FOR PROCESSING" if header.sop_class == acceptance.FOR_PROCESSING else "FOR PRESENTATION"
    facts: dict[str, object] = {
        "transfer_syntax": header.transfer_syntax.name,
        "bits_stored": header.bits_stored,
        "imager_pixel_spacing_mm": None if header.spacing_mm is None else list(header.spacing_mm),
        "photometric_interpretation": header.photometric,
        "sop_class": header.sop_class.name,
        "presentation_intent": intent,
        "voi": "none",
    }
    if header.fov_flip:
        facts["field_of_view_horizontal_flip"] = header.fov_flip
    if not (header.image_laterality or header.laterality):
        facts["laterality_from"] = "option"
    return facts


def _spacing_notices(header: Header) -> tuple[Notice, ...]:
    row, column = header.spacing_mm or (1.0, 1.0)
    if abs(row / column - 1) <= _SQUARE:
        return ()
    message = (
        f"ImagerPixelSpacing states pixels that are not square ({row:g} and {column:g} mm): the network, which knows "
        "square ones only, sees the breast distorted"
    )
    return (Notice(code="pixels-not-square", message=message),)


def _orientation_notices(header: Header, stored: views.StoredOrientation | None) -> tuple[Notice, ...]:
    if stored is None:
        message = (
            f"PatientOrientation {header.unknown.get('PatientOrientation', 'is missing')}: the image is assumed to be "
            "stored upright, and not mirrored unless the caller states it"
        )
        return (Notice(code="orientation-unknown", message=message),)
    if stored.half_turn:
        message = (
            "the image is stored rotated by 180 degrees according to PatientOrientation, and was turned; positions are "
            "those of the stored image"
        )
        return (Notice(code="stored-rotated", message=message),)
    message = "the image is stored mirrored according to PatientOrientation, and was read as mirrored"
    return (Notice(code="stored-mirrored", message=message),) if stored.mirrored else ()


def file_bytes(dataset: Dataset) -> bytes:
    """Encode `dataset` in the DICOM file format (PS3.10 section 7.1), with its encoded pixels; does not change it.

    Raises UsageError if its file meta information has no transfer syntax, DicomError if it cannot be encoded.
    """
    meta = getattr(dataset, "file_meta", None)
    if meta is None or not meta.get("TransferSyntaxUID"):
        raise UsageError(
            "the Dataset's file_meta has no TransferSyntaxUID, so its pixels cannot be decoded: set it, in a C-STORE "
            "handler of pynetdicom by `dataset.file_meta = event.file_meta`"
        )
    with dicom_errors("the Dataset cannot be written as a DICOM file"):
        whole = copy.copy(dataset)
        whole.preamble = bytes(128)
        whole.file_meta = copy.deepcopy(meta)
        whole.file_meta.FileMetaInformationGroupLength = 0  # filled in as it is written
        buffer = BytesIO()
        # not enforced, because a view without an instance UID can be read
        dcmwrite(buffer, whole, enforce_file_format=False)
        return buffer.getvalue()
