"""Records from which result objects are written: algorithm, identity, and findings of each view."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from glam_deploy.networks import NetworkSpec
from glam_deploy.preprocess import SourceMaps
from glam_deploy.records import Box, Notice, View

BANNER = "Research use only. Not for diagnosis"
"""Part of every object: burned into pictures, and as text in other objects."""

COLOURS: Mapping[str, tuple[int, int, int]] = MappingProxyType({"benign": (0, 158, 255), "malignant": (255, 106, 0)})
"""Class -> sRGB colour, the same as in the overlay picture."""

Outcome = Literal["done", "skipped", "failed"]
"""Outcome of a view: processed; not meant for this network; meant for it, but could not be read or processed."""

Point = tuple[float, float]
"""(row, column) in pixels from the upper-left corner of the image, source frame; the centre of the first pixel is (0.5,
0.5), as in PS3.3 C.18.6.1.1."""


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """The algorithm that made the findings, described in every object. Texts are ASCII, without backslash."""

    network: NetworkSpec
    """Source of the titles of objects and the names of segments."""
    version: str
    """Version of glam-deploy."""
    checkpoint_sha256: str
    """64 hexadecimal digits."""
    bundle_id: str
    engine: str
    """Name and precision of the engine, as in `--engine`."""
    engine_digest: str
    """SHA-256 of the engine's files, or of the graphs that it compiles."""
    gate: str
    """Id of the gate verdict that admits this engine, or "not gated"."""
    preprocessing: str
    """Version of the preprocessing."""
    thresholds: Mapping[str, float] = field(hash=False)
    """Class -> saliency above which a pixel belongs to a region; 0..1, one for each class of the network, in order."""
    device_uid: str
    """Permanent UID of this installation."""
    triage_threshold: float | None = None
    """The site's threshold of the malignant score for its triage flag, 0..1; None: reports have no flag."""

    @property
    def name(self) -> str:
        """Algorithm name in the objects."""
        return f"{self.network.title} (glam-deploy)"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Identity of a new object. The caller derives the UIDs, so that an object that is made again has the same UIDs."""

    sop_uid: str
    series_uid: str
    series_number: int
    instance_number: int = 1
    created: datetime
    """Creation time with a time zone. Written in the time zone of the source (TimezoneOffsetFromUTC), else in this."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Reference to an object of the same study."""

    sop_class: str
    sop_uid: str
    series_uid: str


@dataclass(frozen=True, kw_only=True)
class ViewFinding:
    """Result of one view with its maps; in memory only."""

    source: Path
    """The mammogram's DICOM file: patient and study of every object are copied from it."""
    view: View
    saliency: SourceMaps
    """0..1, classes as in `NetworkSpec.classes` (`Result.source_maps`)."""
    scores: Mapping[str, Mapping[str, float]]
    """`Result.predictions`: score -> class -> 0..1, not calibrated."""
    boxes: Sequence[Box | None]
    """`Result.patch_boxes_in_source`: half-open, in order of selection; None for a patch with padding only."""
    notices: Sequence[Notice]


@dataclass(frozen=True, kw_only=True)
class Region:
    """A connected component (8 neighbours) of the pixels with a saliency above the threshold of a class."""

    label: str
    """A class of the network."""
    outline: tuple[Point, ...]
    """Closed polygon along the outer edges of the pixels, first point repeated at the end; without holes."""
    box: Box
    """Half-open (top, left, bottom, right), source frame."""
    centre: Point
    """Mean of the pixel centres; may be outside a concave region."""
    peak: float
    """Largest saliency, 0..1."""
    peak_at: Point
    """Centre of the first pixel with the peak, in row-major order."""
    pixels: int
    """Number of pixels, without holes."""
    area_mm2: float | None
    """`pixels` times the area of one pixel; None if the source has no spacing."""


@dataclass(frozen=True, kw_only=True)
class ViewSummary:
    """Content of structured reports for one view, as plain values that can be stored as JSON (`json_records`)."""

    shape: tuple[int, int]
    """Rows and columns of the source image."""
    spacing_mm: tuple[float, float] | None
    """ImagerPixelSpacing, (row, column) spacing at the detector: the breast, nearer to the tube, is smaller."""
    scores: Mapping[str, Mapping[str, float]]
    regions: tuple[Region, ...]
    """By class, then by descending peak; at most `regions.MOST` of a class."""
    regions_left_out: int
    """Number of further regions, with lower peaks."""
    boxes: tuple[Box | None, ...]
    """Patches, as in `ViewFinding`."""
    notices: tuple[Notice, ...]
    segmentation: Reference | None
    """The SEG object of this view, if one was made."""
    made_by: str = ""
    """What made the result; equal for results that may be combined."""
    patient: Mapping[str, str] = field(default_factory=dict, repr=False)
    """As `Source.patient` of the mammogram, to find one of another patient or time in the exam; in no object."""


@dataclass(frozen=True, kw_only=True)
class ViewOutcome:
    """Outcome of one mammogram, for the reports on the whole study."""

    source: Path
    """DICOM file of the mammogram."""
    image: Reference
    """Reference to the mammogram; `sop_class` and UIDs as received, because its file may not be readable."""
    view: View | None
    outcome: Outcome
    reason: str | None
    """Why it was skipped or failed, without patient identifiers; None for "done"."""
    summary: ViewSummary | None
    """None except for "done"."""
