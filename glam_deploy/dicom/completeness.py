"""Completeness of a received mammogram: whether all of its pixels are in the file. Pixels are not decoded."""

from pathlib import Path
from struct import iter_unpack
from typing import BinaryIO

from pydicom.dataset import Dataset

from glam_deploy.dicom.elements import BEFORE_PIXELS, PixelLayout
from glam_deploy.dicom.header import KEYWORDS, Header, dicom_errors, read_header
from glam_deploy.dicom.part10 import open_data_set
from glam_deploy.dicom.read import MAX_BYTES
from glam_deploy.dicom.received import MAX_HEADER
from glam_deploy.errors import DicomError, IncompleteObject

_DAMAGED = "the header is damaged: export the object again"


def require_complete(path: Path) -> None:
    """Raise IncompleteObject if the data set of the mammogram in the DICOM file `path` ends before its pixels do, or if
    its pixels are too few for its header.

    Native pixel data need Rows x Columns x NumberOfFrames values of BitsAllocated (PS3.5 section 8.1.1).
    Encapsulated ones (PS3.5 annex A.4) need a delimiter, a fragment for each frame, and the fragments to which the
    basic or extended offset table refers. More pixels than the header states are no sign of a cut. Raises DicomError if
    the data set cannot be read up to its pixels. Values of the header that are wrong, and pixels that are floats, pass,
    because they are refused when they are classified or read.
    """
    with path.open("rb") as file:
        _check(file)


def _check(file: BinaryIO) -> None:
    meta, reader = open_data_set(file, KEYWORDS, limit=MAX_HEADER, part="the header", most=MAX_BYTES)
    with dicom_errors(_DAMAGED):
        dataset = reader.read_through(BEFORE_PIXELS)
        layout = reader.measure_pixels()
    if layout is None and reader.has_float_pixels:
        return
    if layout is None:
        raise IncompleteObject("PixelData is missing: send the object again")
    dataset.file_meta = meta
    header = _header(dataset)
    if layout.stated is not None:
        _check_native(layout, header)
    else:
        _check_fragments(layout, dataset, (header and header.frames) or 1)


def _header(dataset: Dataset) -> Header | None:
    try:
        return read_header(dataset)
    except DicomError:
        return None


def _check_native(layout: PixelLayout, header: Header | None) -> None:
    """Compare what is in the file with the length field, and with the header if that states the size of one sample."""
    expected = layout.stated or 0
    if header and header.transfer_syntax.is_transfer_syntax and not header.transfer_syntax.is_encapsulated:
        expected = max(expected, native_bytes(header))
    if layout.found < expected:
        raise IncompleteObject(f"PixelData has {layout.found} of {expected} bytes: send the object again")


def native_bytes(header: Header) -> int:
    """Length of native pixel data in bytes; 0 for an image of several samples, or if the header lacks a number."""
    numbers = header.rows, header.columns, header.bits_allocated
    if header.samples != 1 or not all(number and number > 0 for number in numbers):
        return 0
    rows, columns, bits = (number or 0 for number in numbers)
    return (rows * columns * bits * max(header.frames or 1, 1) + 7) // 8


def _check_fragments(layout: PixelLayout, dataset: Dataset, frames: int) -> None:
    if len(layout.fragments) < frames or not layout.found:
        raise IncompleteObject(
            f"PixelData has {len(layout.fragments)} fragments of {layout.found} bytes for {frames} frames: "
            "send the object again"
        )
    # an offset counts the item heads of 8 bytes
    available = layout.found + 8 * len(layout.fragments)
    if max(_basic_ends(layout), default=0) > available or max(_extended_ends(dataset), default=0) > available:
        raise IncompleteObject(
            f"PixelData has {available} bytes, fewer than its offset table states: send the object again"
        )


def _basic_ends(layout: PixelLayout) -> list[int]:
    """First byte after the item head of each frame."""
    whole = len(layout.offsets) // 4 * 4
    return [offset + 8 for (offset,) in iter_unpack("<L", layout.offsets[:whole])]


def _extended_ends(dataset: Dataset) -> list[int]:
    """First byte after the fragment of each frame, by the extended offset table (PS3.3 C.7.6.3.1.8)."""
    with dicom_errors(_DAMAGED):
        tables = [dataset.get(name) for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")]
    if not all(isinstance(table, bytes) and len(table) % 8 == 0 for table in tables):
        return []
    offsets, lengths = ([number for (number,) in iter_unpack("<Q", table)] for table in tables)
    return [offset + 8 + length for offset, length in zip(offsets, lengths, strict=False)]
