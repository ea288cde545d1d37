"""The values that result objects are written from: what made them, who they are, and what was found in each view."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from glam_deploy.networks import NetworkSpec
from glam_deploy.preprocess import SourceMaps
from glam_deploy.records import Box, Notice, View

BANNER = "Research use only. Not for diagnosis"
"""Stands in every object: burned into pictures, and as text everywhere else."""

COLOURS: Mapping[str, tuple[int, int, int]] = MappingProxyType({"benign": (0, 158, 255), "malignant": (255, 106, 0)})
"""sRGB of each class, where an object says how it should be shown: those of the overlay picture."""

Outcome = Literal["done", "skipped", "failed"]
"""of a view: worked on; never meant for this network; meant for it, but it could not be read or computed."""

Point = tuple[float, float]
"""(row, column) in pixels from the image's upper-left corner, source frame: the first centre is (0.5, 0.5), as in PS3.3
C.18.6.1.1."""


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """What made the findings; all of it stands in every object. Texts are ASCII, without backslash."""

    network: NetworkSpec
    """Its title names the objects, its classes the segments."""
    version: str
    """Of glam-deploy."""
    checkpoint_sha256: str
    """64 hexadecimal digits."""
    bundle_id: str
    engine: str
    """Name and precision of the engine, as `glam-deploy` calls it."""
    engine_digest: str
    """SHA-256 of the engine's files, or of the graphs that it compiles."""
    gate: str
    """Id of the gate's verdict that lets this engine serve, or "not gated"."""
    preprocessing: str
    """Version of the preprocessing."""
    thresholds: Mapping[str, float]
    """Class -> saliency above which a pixel belongs to a region; 0..1, one for each class of the network, in order."""
    device_uid: str
    """UID of this installation, the same for ever."""

    @property
    def name(self) -> str:
        """Of the algorithm, as the objects have it."""
        return f"{self.network.title} (glam-deploy)"


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who a new object is. UIDs are the caller's, so that an object that is made again is the same one."""

    sop_uid: str
    series_uid: str
    series_number: int
    instance_number: int = 1
    created: datetime
    """With a time zone. Written in the zone that the source names (TimezoneOffsetFromUTC), else in its own."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Another object of the same study."""

    sop_class: str
    sop_uid: str
    series_uid: str


@dataclass(frozen=True, kw_only=True)
class ViewFinding:
    """All that was found in one view; in memory only."""

    source: Path
    """The mammogram's DICOM file: patient and study of every object are copied from it."""
    view: View
    saliency: SourceMaps
    """0..1, classes as in `NetworkSpec.classes` (`Result.source_maps`)."""
    scores: Mapping[str, Mapping[str, float]]
    """`Result.predictions`: score -> class -> 0..1, not calibrated."""
    boxes: Sequence[Box | None]
    """`Result.patch_boxes_in_source`: half-open, in order of choice; None where a patch is all padding."""
    notices: Sequence[Notice]


@dataclass(frozen=True, kw_only=True)
class Region:
    """A connected piece (8 neighbours) of the pixels whose saliency exceeds the threshold of a class."""

    label: str
    """A class of the network."""
    outline: tuple[Point, ...]
    """Closed polygon along the outer edges of the pixels, first point repeated at the end; holes are not told."""
    box: Box
    """Half-open (top, left, bottom, right), source frame."""
    centre: Point
    """Mean of the pixels' centres; that of a crescent may lie outside it."""
    peak: float
    """Largest saliency, 0..1."""
    peak_at: Point
    """Centre of the first pixel, in row-major order, that has it."""
    pixels: int
    """Count, holes left out."""
    area_mm2: float | None
    """`pixels` times the area of one; None where the source gives no spacing."""


@dataclass(frozen=True, kw_only=True)
class ViewSummary:
    """What structured reports say of one view: plain values, which outlive the process as JSON (`json_records`)."""

    shape: tuple[int, int]
    """Rows and columns of the source image."""
    spacing_mm: tuple[float, float] | None
    """ImagerPixelSpacing, (row, column) spacing at the detector: the breast, nearer to the tube, is smaller."""
    scores: Mapping[str, Mapping[str, float]]
    regions: tuple[Region, ...]
    """By class, then by falling peak; no more than `regions.MOST` of a class."""
    regions_left_out: int
    """How many more there were, those of the lowest peaks."""
    boxes: tuple[Box | None, ...]
    """Patches, as in `ViewFinding`."""
    notices: tuple[Notice, ...]
    segmentation: Reference | None
    """The SEG object of this view, where one was made."""


@dataclass(frozen=True, kw_only=True)
class ViewOutcome:
    """What became of one mammogram of a study, for the reports on the whole study."""

    source: Path
    """Its DICOM file."""
    image: Reference
    """That mammogram; `sop_class` and UIDs as received, for its file may not be readable."""
    view: View | None
    outcome: Outcome
    reason: str | None
    """Why it was skipped or failed, in words that hold no patient identifier; None where it is done."""
    summary: ViewSummary | None
    """None unless it is done."""
