"""What all result objects share, and how they are written to a file."""

from pathlib import Path

from pydicom.dataset import Dataset

from glam_deploy.dicom.results.records import Reference


def save(dataset: Dataset, path: Path) -> None:
    """Write an object that a writer of this package made to `path`, as a DICOM file (PS3.10)."""
    dataset.save_as(path, enforce_file_format=True)


def reference(dataset: Dataset) -> Reference:
    """How other objects of the study refer to this one."""
    uids = dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.SeriesInstanceUID
    return Reference(**dict(zip(("sop_class", "sop_uid", "series_uid"), map(str, uids), strict=True)))
