"""Rejection notes: Key Object Selection documents that reject images (IHE RAD TF, Imaging Object Change Management)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pydicom.dataset import Dataset
from pydicom.uid import KeyObjectSelectionDocumentStorage

from glam_deploy.dicom.header import dicom_errors
from glam_deploy.dicom.read import read_elements

SOP_CLASS = str(KeyObjectSelectionDocumentStorage)
EXPIRED = "113039"
"""The archive has deleted the images after their retention time; nothing was wrong with them."""
TITLES: Mapping[str, str] = MappingProxyType(
    {
        "113001": "Rejected for Quality Reasons",
        "113037": "Rejected for Patient Safety Reasons",
        "113038": "Incorrect Modality Worklist Entry",
        EXPIRED: "Data Retention Policy Expired",
    }
)
"""Code, of the scheme DCM -> meaning: the document titles of rejection notes (PS3.16 CID 7011)."""

_DAMAGED = "the Key Object Selection document is damaged: export it again"


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """The content of a rejection note."""

    code: str
    """A key of TITLES."""
    images: tuple[str, ...]
    """SOP Instance UIDs, as stated, of the objects of the document's own study that it rejects."""


def read_rejection(path: Path) -> Rejection | None:
    """The rejection note in the DICOM file `path`; None for a Key Object Selection document with another title.

    Objects of other studies are left out, because a rejection note is stored in the study of what it rejects (IHE RAD
    TF-3, 4.66). Raises DicomError for a note that cannot be read.
    """
    title = _title(read_elements(path, ("ConceptNameCodeSequence",)))
    if title not in TITLES:
        return None
    elements = read_elements(path, ("StudyInstanceUID", "CurrentRequestedProcedureEvidenceSequence"))
    with dicom_errors(_DAMAGED):
        return Rejection(code=title, images=tuple(dict.fromkeys(_references(elements))))


def _title(elements: Dataset) -> str:
    """Code of the document title; "" for a code of another scheme."""
    with dicom_errors(_DAMAGED):
        items = elements.get("ConceptNameCodeSequence") or [Dataset()]
        scheme, code = (str(items[0].get(name) or "").strip() for name in ("CodingSchemeDesignator", "CodeValue"))
    return code if scheme == "DCM" else ""


def _references(elements: Dataset) -> Iterator[str]:
    """PS3.3 C.17.2.1: studies, series and instances."""
    own = _uid(elements, "StudyInstanceUID")
    for study in elements.get("CurrentRequestedProcedureEvidenceSequence") or ():
        if _uid(study, "StudyInstanceUID") == own:
            for series in study.get("ReferencedSeriesSequence") or ():
                for instance in series.get("ReferencedSOPSequence") or ():
                    yield _uid(instance, "ReferencedSOPInstanceUID")


def _uid(elements: Dataset, keyword: str) -> str:
    return str(elements.get(keyword) or "").strip(" \0")
