"""What lies in Orthanc after a soak, read from its storage: thousands of objects, without asking for each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pacs.results import evidence, sources
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import MammographyCADSRStorage, SegmentationStorage
from support.orthanc import Orthanc


@dataclass(frozen=True, kw_only=True)
class Arrived:
    """A result at the target."""

    sop_uid: str
    sop_class: str
    study: str
    images: frozenset[str]
    """SOP Instance UIDs of what it was made from."""


def results(pacs: Orthanc) -> list[Arrived]:
    """Segmentations and CAD reports; Orthanc, which has one object of each SOP Instance UID, must have been stopped."""
    found = {}
    for path in (pacs.folder / "db").glob("??/??/*"):
        dataset = _read(path)
        if dataset is not None and dataset.SOPClassUID in (SegmentationStorage, MammographyCADSRStorage):
            found[str(dataset.SOPInstanceUID)] = _arrived(dataset)
    return list(found.values())


def count(pacs: Orthanc) -> int:
    """Objects of all classes."""
    return int(pacs.get("/statistics")["CountInstances"])


def _read(path: Path) -> Dataset | None:
    """None for an attachment that is no object."""
    try:
        return dcmread(path, stop_before_pixels=True)
    except InvalidDicomError:
        return None


def _arrived(dataset: Dataset) -> Arrived:
    is_report = dataset.SOPClassUID == MammographyCADSRStorage
    images = evidence(dataset) if is_report else sources([dataset], dataset.SOPClassUID)
    return Arrived(
        sop_uid=str(dataset.SOPInstanceUID),
        sop_class=str(dataset.SOPClassUID),
        study=str(dataset.StudyInstanceUID),
        images=frozenset(images),
    )


def by_class(arrived: list[Arrived], sop_class: str) -> Iterator[Arrived]:
    return (each for each in arrived if each.sop_class == sop_class)
