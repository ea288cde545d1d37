"""Records of the pipeline: frozen, each made by one stage and read by the next.

Mammogram -place-> PlacedView -standardize-> NetworkInput -global-> GlobalMaps -patches-> Patches -local-> LocalMaps
-fusion-> Predictions; Findings has what is kept of the last four

N images, K patches, 2 classes (benign, malignant). Positions are (row, column). Boxes are half-open
(top, left, bottom, right). "Source frame" is the pixel grid of the image as read; "network frame" is that of the
network input. Shapes in the docstrings are those of GLAM; `networks` has those of each network. Arrays are shared, not
copied: treat them as read-only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from glam_deploy.errors import UsageError
from glam_deploy.networks import PUBLISHED_FRAME, NetworkSpec

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]
Pixels = NDArray[Any]
Box = tuple[int, int, int, int]
Facts = Mapping[str, Any]
"""JSON values by name, of open shape: attributes of a header, or the provenance of a result (docs/outputs.md)."""

UID_KEYWORDS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
PATIENT_KEYWORDS = ("PatientID", "PatientBirthDate", "StudyDate")
"""DICOM elements that are equal in all images of one patient at one time."""

MAX_PIXELS = 100_000_000
"""Largest number of pixels of an image: three times the largest mammogram; more means a damaged or hostile header."""


class View(StrEnum):
    """The four standard views: laterality and projection."""

    L_CC = "L-CC"
    R_CC = "R-CC"
    L_MLO = "L-MLO"
    R_MLO = "R-MLO"

    @property
    def is_right(self) -> bool:
        return self.value.startswith("R")

    @property
    def is_mlo(self) -> bool:
        return self.value.endswith("MLO")


VIEW_NAMES = ", ".join(View)
"""Names of the four views: L-CC, R-CC, L-MLO, R-MLO."""


def parse_view(name: str) -> View:
    """The view with the name `name`, exactly as in `VIEW_NAMES`. Raises UsageError."""
    try:
        return View(name)
    except ValueError as error:
        raise UsageError(f"there is no view {name!r}, expected one of {VIEW_NAMES}") from error


@dataclass(frozen=True, kw_only=True)
class Notice:
    """A notice to the reader of a result; `code` is stable for programs, `message` is text for people."""

    code: str
    message: str


AMBIGUOUS_UID = "ambiguous-uid"
"""Code of the notice of an image whose SOPInstanceUID another image has too."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Origin of an image. Contains no patient identifier, but digests in `patient`."""

    name: str
    """File name, or "array"."""
    kind: str
    """"dicom", "png", "tiff", "npy" or "array"."""
    uids: Mapping[str, str] = field(default_factory=dict)
    """DICOM keyword of `UID_KEYWORDS` -> UID; empty for other kinds."""
    facts: Facts = field(default_factory=dict)
    """Further attributes for later stages (bits stored, pixel spacing in mm, transfer syntax, ...)."""
    patient: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Keyword of `PATIENT_KEYWORDS` -> SHA-256, to find images of another patient or time in one exam; empty
    for other kinds. A date can be found from its digest by trying all, so no report, table or log has it."""


@dataclass(frozen=True, kw_only=True)
class Mammogram:
    """One raw view, as it left the detector or the archive: background 0, brighter is denser."""

    pixels: Pixels
    """uint8, uint16 or float32 [rows, columns], finite, >= 0, source frame, background exactly 0."""
    view: View
    horizontal_flip: bool = False
    """Whether the image is stored mirrored: a left view that faces left, or a right view that faces right; of a view
    that is stored rotated: after turning it."""
    half_turn: bool = False
    """Whether the image is stored rotated by 180 degrees."""
    source: Source = field(default_factory=lambda: Source(name="array", kind="array"))
    notices: tuple[Notice, ...] = ()

    @property
    def faces_left(self) -> bool:
        """Whether the nipple points to the left edge as stored, so that the image must be mirrored for the network."""
        return (self.view.is_right != self.horizontal_flip) != self.half_turn

    @property
    def upright(self) -> Pixels:
        """The pixels in the upright frame, with the chest wall on the left; a view of `pixels`."""
        rows = self.pixels[::-1] if self.half_turn else self.pixels
        return rows[:, ::-1] if self.faces_left else rows


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Position of the network input in the source frame, sufficient to convert positions back.

    Pixel (r, c) of the network frame is pixel (r + row_shift, c + column_shift) of the crop after turning and
    mirroring; a position outside the crop is padding.
    """

    source_shape: tuple[int, int]
    """Rows and columns of the source image."""
    crop_window: Box
    """(top, bottom, left, right), half-open, source frame, in the published order (not that of a box)."""
    mirrored: bool
    row_shift: int
    column_shift: int
    best_center: tuple[int, int] | None
    """(row, column) in the mirrored crop, as the published preprocessing reports it; None for a standardized input."""
    network_shape: tuple[int, int] = PUBLISHED_FRAME
    """Rows and columns of the network frame."""
    half_turn: bool = False
    """Whether the crop is turned by 180 degrees before it is mirrored, because the image is stored rotated."""


@dataclass(frozen=True, kw_only=True)
class CropFacts:
    """Facts about a crop that the published preprocessing reports, in its way of counting.

    Positions are relative to the crop, rows from its top. In an image that faces left, a column x from the left edge of
    the crop counts as width - x: one more than its index in the mirrored crop. Ranges are inclusive (first, last).
    """

    distance_from_starting_side: int
    """Pixels between the chest-wall edge of the image and the breast; 0 if they touch."""
    rightmost_points: tuple[tuple[int, int], int]
    """((first row, last row), column) of the outermost points of the breast in the lower two thirds of the crop."""
    bottommost_points: tuple[int, tuple[int, int]]
    """(row, (first column, last column)) of the lowest points of the breast."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A view with its position in the network frame, without pixels."""

    placement: Placement
    source: Source
    view: View | None
    notices: tuple[Notice, ...] = ()
    crop_facts: CropFacts | None = None
    """None for an input that was already standardized."""


def picklable(source: Source) -> Source:
    """A copy with dicts as mappings, because a read-only mapping cannot be pickled."""
    return replace(source, uids=dict(source.uids), facts=plain_mapping(source.facts))


def plain_mapping(mapping: Facts) -> dict[str, object]:
    """Copy of a mapping and its nested mappings as dicts."""
    return {key: plain_mapping(value) if isinstance(value, Mapping) else value for key, value in mapping.items()}


def without_pixels(placed: Placed) -> Placed:
    """A copy without pixels, which can be compared and pickled."""
    return Placed(
        placement=placed.placement,
        source=picklable(placed.source),
        view=placed.view,
        notices=placed.notices,
        crop_facts=placed.crop_facts,
    )


@dataclass(frozen=True, kw_only=True)
class PlacedView(Placed):
    """A raw view and its position in the network frame: the complete input of the GPU chain."""

    pixels: Pixels
    """uint8, uint16 or float32 [rows, columns], C-contiguous, finite, >= 0, source frame: the whole image."""


@dataclass(frozen=True, kw_only=True)
class NetworkInput(Placed):
    """Input of the network for one view."""

    image: Float32
    """float32 [2944, 1920], network frame, mean 0 and standard deviation 1 over all pixels, including padding."""


ChainInput = Mammogram | PlacedView | NetworkInput
"""A view as a chain takes it: raw, placed or standardized."""


@dataclass(frozen=True, kw_only=True)
class GlobalMaps:
    """Output of the global module."""

    saliency: Float32
    """float32 [N, 2, *NetworkSpec.map_shape], 0..1: 184 x 120 of GLAM, 46 x 30 of GMIC, 92 x 60 of CAM."""
    y_scale: Float32 | None
    """float32 [N, 3, 2], 0..1, finest scale first; None if the network has one scale."""
    y_global: Float32 | None
    """float32 [N, 2], 0..1; None if the fusion module computes it."""
    z_g: Float32 | None
    """float32 [N, 256]; None if the network has no fusion module."""


@dataclass(frozen=True, kw_only=True)
class Patches:
    """The K patches selected in each image, in order of selection, and their pixels."""

    locations: Int64
    """int64 [N, K, 2], upper-left (row, column), network frame, pixels."""
    pixels: Float32
    """float32 [N, K, 1, 512, 512], cut from the standardized input."""
    flat: NDArray[np.bool_]
    """bool [N, 2]: whether the saliency map of the class had no contrast and was not used in the selection."""


@dataclass(frozen=True, kw_only=True)
class LocalMaps:
    """Output of the local module for each patch."""

    saliency: Float32 | None
    """float32 [N, K, 2, 128, 128], 0..1; None if the network has no maps of patches."""
    z_k: Float32
    """float32 [N, K, 512]."""


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Image-level scores, not calibrated probabilities."""

    y_global: Float32
    """float32 [N, 2], 0..1; of GLAM the mean of the three scales."""
    y_local: Float32
    """float32 [N, 2], 0..1."""
    y_fusion: Float32 | None
    """float32 [N, 2], 0..1; None if the checkpoint has no fusion layer."""
    attention: Float32 | None
    """float32 [N, K], sums to 1; None if the checkpoint has no attention layers."""


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Whether a run on a GPU is launched as one recorded CUDA graph, or as single kernels in the stream.

    Both run the same kernels over the same memory; only the work of the host differs.
    """

    state: Literal["recorded", "not recordable", "failed"]
    """"not recordable": an engine does not support recording. "failed": an attempt to record failed."""
    reason: str | None = None
    """Why there is no recording; None for "recorded"."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Outputs of N images that are kept after the last stage, on host or GPU."""

    network: NetworkSpec
    inputs: tuple[Placed, ...]
    """N views: a NetworkInput if the host has the standardized image, a PlacedView if it has the raw one."""
    saliency_global: Float32
    """float32 [N, 2, *NetworkSpec.map_shape], 0..1."""
    saliency_patches: Float32 | None
    """float32 [N, K, 2, 128, 128], 0..1; None if the network has no maps of patches."""
    patch_locations: Int64
    """int64 [N, K, 2], upper-left (row, column), network frame, pixels; K is 0 for a network without patches."""
    flat: NDArray[np.bool_]
    """bool [N, 2]: whether the saliency map of the class had no contrast and was not used in the patch selection."""
    y_scale: Float32 | None
    """float32 [N, 3, 2], 0..1, finest scale first; None if the network has one scale."""
    y_global: Float32
    """float32 [N, 2], 0..1."""
    y_local: Float32 | None
    """float32 [N, 2], 0..1; None for a network without patches."""
    y_fusion: Float32 | None
    """float32 [N, 2], 0..1; None if the checkpoint has no fusion layer."""
    attention: Float32 | None
    """float32 [N, K], sums to 1; None if the checkpoint has no attention layers."""
    recording: Recording | None = None
    """How the work was launched on the GPU; None if the stages ran on the host."""
    gpu: "UsedGpu | None" = None
    """Which of several GPUs computed them; None with one GPU or on the host."""


@dataclass(frozen=True, kw_only=True)
class UsedGpu:
    """One of the GPUs of this machine."""

    index: int
    """In the driver's order, from 0; CUDA_VISIBLE_DEVICES changes it."""
    uuid: str
    """As `nvidia-smi -L` prints it."""
