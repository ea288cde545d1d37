"""Reading our own objects for sending."""

from collections.abc import Sequence

from pydicom import dcmread
from pydicom.dataset import Dataset

from glam_deploy.dicom.header import foreign_errors
from glam_deploy.dicom.net.delivery import Answer, Item, Outcome
from glam_deploy.errors import DicomError

_HEADER = ["SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID"]


def whole(item: Item) -> Dataset:
    """The object with its pixels. Raises DicomError."""
    return _read(item, header_only=False)


def header(item: Item) -> Dataset:
    """SOPClassUID, StudyInstanceUID, SeriesInstanceUID and the file meta information. Raises DicomError."""
    return _read(item, header_only=True)


def series(items: Sequence[Item]) -> set[tuple[str, str]]:
    """(Study, Series Instance UID) of the items that can be read."""
    found = set()
    for item in items:
        try:
            dataset = header(item)
        except DicomError:
            continue
        found.add((str(dataset.StudyInstanceUID), str(dataset.SeriesInstanceUID)))
    return found


def unreadable(item: Item, error: DicomError) -> Answer:
    """In place of a target's answer."""
    return Answer(sop_uid=item.sop_uid, outcome=Outcome.REFUSED, reason=str(error))


def decompress(dataset: Dataset) -> None:
    """Explicit VR Little Endian in place; the same object, for every codec in our results is lossless."""
    with foreign_errors("the pixels cannot be decompressed"):
        dataset.decompress(generate_instance_uid=False)


def _read(item: Item, *, header_only: bool) -> Dataset:
    with foreign_errors("the file of the result cannot be read: has the data folder been changed?"):
        dataset = dcmread(item.path, specific_tags=_HEADER if header_only else None, stop_before_pixels=header_only)
        if missing := [keyword for keyword in _HEADER if keyword not in dataset]:
            raise DicomError(f"the file of the result lacks {', '.join(missing)}: has the data folder been changed?")
        return dataset
