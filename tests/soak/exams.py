"""Exams without end for a soak: copies of four views with identities of their own, some of them spoilt on purpose."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from pacs.exams import phantom
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    DigitalMammographyXRayImageStorageForPresentation,
    DigitalMammographyXRayImageStorageForProcessing,
    RLELossless,
    generate_uid,
)

from glam_deploy.dicom.mammography import write_view
from glam_deploy.records import Pixels, View
from glam_export.demo.phantom import phantom_view

CLASSES = (DigitalMammographyXRayImageStorageForPresentation, DigitalMammographyXRayImageStorageForProcessing)
FULL_SHAPE = (2048, 1664)
"""Rows and columns of a view for the real network, whose input has 2944 x 1920 pixels whatever is sent."""
SPOILT = 0.05
"""Share of the views that are not sound, and of the exams that are sent again long after."""


class Kind(Enum):
    """What is wrong with a view, and what must become of it."""

    SOUND = "sound"
    """A segmentation in the target."""
    FOR_PROCESSING = "for processing"
    """Taken; the report says that it was not processed."""
    UNDECODABLE = "undecodable"
    """Taken; the report says that it failed."""
    CUT = "cut"
    """Refused."""
    COLLISION = "collision"
    """Refused: other pixels under the SOP Instance UID of the view before it."""


TAKEN = (Kind.SOUND, Kind.FOR_PROCESSING, Kind.UNDECODABLE)
_SPOILT = tuple(kind for kind in Kind if kind is not Kind.SOUND)


@dataclass(frozen=True, kw_only=True)
class SentView:
    """One view of an exam, as it is sent."""

    kind: Kind
    dataset: Dataset

    @property
    def sop_uid(self) -> str:
        return str(self.dataset.SOPInstanceUID)


class Exams:
    """The same name gives the same exam again, UIDs included."""

    def __init__(self, folder: Path, *, full: bool) -> None:
        """Write templates to `folder`. `full`: phantoms with tissue, for a real network; else small ones."""
        folder.mkdir(parents=True, exist_ok=True)
        self._templates = {
            (view, kind): _template(folder / f"{view.value}-{kind.name}.dcm", view, kind, full=full)
            for view in View
            for kind in Kind
        }

    def exam(self, name: str) -> list[SentView]:
        """One to four views, mostly four, in any order; what collides comes right after what it collides with."""
        rng = random.Random(name)
        views = rng.sample(list(View), rng.choice((1, 2, 4, 4, 4)))
        return [sent for view in views for sent in self._sent(name, view, rng)]

    def _sent(self, name: str, view: View, rng: random.Random) -> Iterator[SentView]:
        kind = rng.choice(_SPOILT) if rng.random() < SPOILT else Kind.SOUND
        if kind is Kind.COLLISION:
            yield SentView(kind=Kind.SOUND, dataset=self._dataset(name, view, Kind.SOUND))
        yield SentView(kind=kind, dataset=self._dataset(name, view, kind))

    def _dataset(self, name: str, view: View, kind: Kind) -> Dataset:
        template = self._templates[view, kind]
        uids = {key: generate_uid(entropy_srcs=["soak", name, key]) for key in ("study", "series", view.value)}
        values: Mapping[str, tuple[str, str]] = {
            "SOPInstanceUID": ("UI", uids[view.value]),
            "StudyInstanceUID": ("UI", uids["study"]),
            "SeriesInstanceUID": ("UI", uids["series"]),
            "PatientID": ("LO", name),
            "PatientName": ("PN", f"SOAK^{name.upper()}"),
        }
        dataset = Dataset()
        dataset.update({element.tag: element for element in template})
        for keyword, (representation, value) in values.items():
            del dataset[keyword]  # the element is the template's
            dataset.add_new(keyword, representation, value)
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.update({element.tag: element for element in template.file_meta})
        del dataset.file_meta.MediaStorageSOPInstanceUID
        dataset.file_meta.MediaStorageSOPInstanceUID = uids[view.value]
        dataset.set_original_encoding(False, True)
        return dataset


def _template(path: Path, view: View, kind: Kind, *, full: bool) -> Dataset:
    pixels: Pixels = phantom_view(1, view, shape=FULL_SHAPE).pixels if full else phantom("soak", view)
    if kind is Kind.COLLISION:
        pixels = pixels.copy()
        pixels[pixels.shape[0] // 2, pixels.shape[1] // 2] ^= 1
    syntax = {"transfer_syntax": RLELossless} if kind is Kind.UNDECODABLE else {}
    write_view(path, pixels, view=view, for_processing=kind is Kind.FOR_PROCESSING, **syntax)
    dataset = dcmread(path)
    if kind is Kind.UNDECODABLE:
        dataset.PixelData = _with_damaged_segments(dataset.PixelData)
    if kind is Kind.CUT:
        dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 4 * 2]
    list(dataset.iterall())  # every element is parsed once, for all copies
    return dataset


def _with_damaged_segments(pixels: bytes) -> bytes:
    """RLE data (PS3.5 annex G) whose second segment is said to begin beyond the end of the fragment."""
    start = 8 + 8  # an empty offset table's item, and the header of the first fragment
    if pixels[4:8] != b"\0\0\0\0":
        start += int.from_bytes(pixels[4:8], "little")
    return pixels[: start + 8] + b"\xff\xff\xff\x7f" + pixels[start + 12 :]
