"""Values of any attributes in the header of a DICOM file in memory, by keyword, as texts."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from io import BytesIO

from pydicom.datadict import dictionary_VR, keyword_dict, tag_for_keyword
from pydicom.valuerep import PersonName

from glam_deploy.dicom.elements import BEFORE_PIXELS
from glam_deploy.dicom.header import dicom_errors
from glam_deploy.dicom.part10 import open_data_set
from glam_deploy.dicom.read import silence_pydicom
from glam_deploy.dicom.received import MAX_HEADER
from glam_deploy.dicom.values import Elements
from glam_deploy.errors import DicomError, UsageError

_META = frozenset({"TransferSyntaxUID", "MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID"})
"""The elements of file meta information that are read."""
_NO_VALUES = frozenset({"SQ", "OB", "OD", "OF", "OL", "OV", "OW", "UN", "AT"})


def vr_of(keyword: str) -> str:
    """Value representation of a DICOM keyword (PS3.6), the first one if there are several.

    Raises UsageError for an unknown keyword, with similar ones, and for an element that has no values to compare.
    """
    tag = tag_for_keyword(keyword)
    if tag is None:
        near = get_close_matches(keyword, keyword_dict, n=3, cutoff=0.7)
        same = [name for name in keyword_dict if name.lower() == keyword.lower()]
        hint = ", ".join(same or near)
        raise UsageError(
            f"{keyword} is no keyword of DICOM (PS3.6 chapter 6)" + (f", similar ones are {hint}" if hint else "")
        )
    vr = dictionary_VR(tag).partition(" ")[0]
    if vr in _NO_VALUES or tag > BEFORE_PIXELS or (tag < 0x00080000 and keyword not in _META):
        raise UsageError(f"{keyword} cannot be compared: expected an attribute of the header with texts or numbers")
    return vr


def values_of(data: bytes, keywords: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
    """Keyword -> its values without padding; () for an element that is absent, empty or damaged.

    Reads `data` up to the last of the keywords, at most `MAX_HEADER` bytes, never the pixels. Raises DicomError if the
    header cannot be read or has no SOP class.
    """
    silence_pydicom()
    asked = ("SOPClassUID", *keywords)
    meta, reader = open_data_set(BytesIO(data), asked, limit=MAX_HEADER, part="the header")
    with dicom_errors("the header is damaged or incomplete: export the object again"):
        dataset = reader.read_through(max(tag for keyword in asked if (tag := tag_for_keyword(keyword)) is not None))
    elements, head = Elements(dataset), Elements(meta)
    if not elements.values("SOPClassUID"):
        raise DicomError("the header has no SOPClassUID: it is damaged or incomplete, export the object again")
    return {keyword: _texts(head if keyword in _META else elements, keyword) for keyword in keywords}


def _texts(elements: Elements, keyword: str) -> tuple[str, ...]:
    values = elements.values(keyword)
    if dictionary_VR(keyword) == "PN" and values:
        name = elements.dataset.get(keyword)  # a single name is a sequence of its characters
        return (str(name),) if isinstance(name, PersonName) else tuple(str(each) for each in values)
    return tuple(text for text in elements.texts(keyword) if text) if values else ()
