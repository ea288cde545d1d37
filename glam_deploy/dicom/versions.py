"""Comparison of two versions of one mammogram: the elements in which they differ and on which results depend."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from glam_deploy.dicom.header import dicom_errors
from glam_deploy.dicom.read import read_elements
from glam_deploy.dicom.results.source import SOURCE_KEYWORDS
from glam_deploy.errors import DicomError

_ENCODING = (
    "PixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths", "PlanarConfiguration", "SpecificCharacterSet",
)  # fmt: skip
"""Elements that belong to the encoding of pixels and texts, which another transfer syntax or character set changes."""
_KEYWORDS = tuple(dict.fromkeys(keyword for keyword in SOURCE_KEYWORDS if keyword not in _ENCODING))
_EMPTY: tuple[object, ...] = ("", None, b"", [])
_ABSENT = {"LossyImageCompression": "00"}
"""Values that mean the same as an absent element."""


def differing_elements(first: Path, second: Path) -> tuple[str, ...]:
    """Keywords of the elements in which two DICOM files differ; pixels are not read.

    Only elements on which a result depends are compared: those that decide how a mammogram is read, and those of
    patient and study that results repeat. An empty element equals an absent one. Values are compared decoded, so that
    the transfer syntax and the character set make no difference. Raises DicomError if a file cannot be parsed.
    """
    return tuple(keyword for keyword, one, other in _pairs(first, second) if one != other)


def contradicting_elements(first: Path, second: Path) -> tuple[str, ...]:
    """Keywords of the elements that both files state, with different values; else as `differing_elements`."""
    return tuple(keyword for keyword, *both in _pairs(first, second) if None not in both and both[0] != both[1])


def _pairs(first: Path, second: Path) -> Iterator[tuple[str, Any, Any]]:
    """The keyword of each compared element, and its values in both files."""
    one, other = (read_elements(path, _KEYWORDS) for path in (first, second))
    return ((keyword, _value(one, keyword), _value(other, keyword)) for keyword in _KEYWORDS)


def _value(dataset: Dataset, keyword: str) -> Any:
    """The decoded value; the encoded one if it cannot be decoded; None if it is empty or absent."""
    if keyword not in dataset:
        return None
    try:
        with dicom_errors("a value cannot be decoded: compare it encoded"):
            value = dataset[keyword].value
            # parses the elements of a sequence
            value = str(value) if dataset[keyword].VR == "SQ" else value
    except DicomError:
        value = dataset.get_item(keyword).value
    return None if value in _EMPTY or value == _ABSENT.get(keyword) else value
