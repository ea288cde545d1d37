"""What the pipeline says about one image."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy import spec
from glam_deploy.errors import UsageError
from glam_deploy.patches import host
from glam_deploy.preprocess import SourceMaps, frame, network_input
from glam_deploy.records import Box, Findings, Float32, Int64, NetworkInput, Notice, Placed, PlacedView


@dataclass(frozen=True, kw_only=True)
class Result:
    """Scores, maps and places for one image; K patches, classes are (benign, malignant).

    Scores are not calibrated probabilities. `saliency` and `saliency_in_source` are composed at each call: 45 MB and
    8 bytes a source pixel that most callers never need.
    """

    y_global: Float32
    """float32 [2], 0..1: the prediction of the published inference."""
    y_scale: Float32
    """float32 [3, 2], 0..1, finest scale first."""
    y_local: Float32
    """float32 [2], 0..1."""
    y_fusion: Float32 | None
    """float32 [2], 0..1; None where the checkpoint has no fusion layer."""
    attention: Float32 | None
    """float32 [K]; None where the checkpoint has no attention layers."""
    saliency_global: Float32
    """float32 [2, 184, 120], 0..1, network frame."""
    saliency_patches: Float32
    """float32 [K, 2, 128, 128], 0..1, each in its patch."""
    patch_locations: Int64
    """int64 [K, 2], upper-left (row, column), network frame, pixels, in order of choice."""
    input: Placed
    """The view and its place; `network_input` has the image as the network saw it."""
    notices: tuple[Notice, ...]
    """All that was noticed on the way, from reading to patch selection."""
    timings_ms: Mapping[str, float]
    """Milliseconds of each step. On a CPU the wall time of preprocess, global, patches, local and fusion. On a GPU
    preprocess (wall time on the host) and gpu (time on the GPU, from the first byte up to the last byte down); views
    that ran together share one number."""
    provenance: Mapping[str, Any]
    """Bundle, checkpoint, engine and versions that made this result; JSON-ready. On a GPU `cuda_graph` has the fields
    of `records.Recording`: whether the work was recorded, and if not, why."""

    @property
    def predictions(self) -> dict[str, dict[str, float]]:
        """Every score by name, then by class: {"y_global": {"benign": 0.1, "malignant": 0.7}, ...}."""
        scores = {"y_global": self.y_global, "y_local": self.y_local, "y_fusion": self.y_fusion}
        return {name: dict(zip(spec.CLASSES, y.tolist(), strict=True)) for name, y in scores.items() if y is not None}

    @cached_property
    def network_input(self) -> NetworkInput:
        """The view as the network sees it, 22.6 MB; standardized here and now where a GPU had done it for itself.

        Raises UsageError where the image has never been on the host.
        """
        if isinstance(self.input, NetworkInput):
            return self.input
        if isinstance(self.input, PlacedView):
            return network_input(self.input)
        raise UsageError("the network's input of this result was made on the GPU: copy `slot.image` while you have it")

    def saliency(self) -> Float32:
        """The fused map: float32 [2, 2944, 1920], 0..1, network frame."""
        return host.enlarge(self._grid(), spec.PATCH_CELL)

    def saliency_in_source(self) -> Float32:
        """The fused map on the source image's own grid: float32 [2, rows, columns], 0..1.

        Source pixels that the network never saw are 0.
        """
        return self.source_maps().whole()

    def saliency_preview(self, shape: tuple[int, int]) -> Float32:
        """The fused map on a picture of the source image: float32 [2, *shape], 0..1, nearest neighbour.

        `shape`: rows and columns of a picture that shows the whole source image.
        """
        return self.source_maps().sample(shape)

    def source_maps(self) -> SourceMaps:
        """The fused map in the source frame, for those who look at parts of it."""
        return SourceMaps(grid=self._grid(), cell=spec.PATCH_CELL, placement=self.input.placement)

    @property
    def patch_boxes(self) -> list[Box]:
        """Half-open (top, left, bottom, right) of each patch, network frame."""
        return [(r, c, r + spec.PATCH, c + spec.PATCH) for r, c in self.patch_locations.tolist()]

    @property
    def patch_boxes_in_source(self) -> list[Box | None]:
        """The part of each patch that lies in the source image, source frame; None where a patch is all padding."""
        return [frame.box_to_source(self.input.placement, box) for box in self.patch_boxes]

    def _grid(self) -> Float32:
        return host.fuse(self.saliency_global, self.saliency_patches, self.patch_locations)


def result_of(findings: Findings, n: int, *, timings_ms: Mapping[str, float], provenance: Mapping[str, Any]) -> Result:
    """What was found in the n-th of the images that were run together."""
    view = findings.inputs[n]
    recording = {"cuda_graph": asdict(findings.recording)} if findings.recording else {}
    return Result(
        y_global=findings.y_global[n],
        y_scale=findings.y_scale[n],
        y_local=findings.y_local[n],
        y_fusion=None if findings.y_fusion is None else findings.y_fusion[n],
        attention=None if findings.attention is None else findings.attention[n],
        saliency_global=findings.saliency_global[n],
        saliency_patches=findings.saliency_patches[n],
        patch_locations=findings.patch_locations[n],
        input=view,
        notices=(*view.notices, *_contrast_notices(findings.flat[n])),
        timings_ms=timings_ms,
        provenance={**provenance, **recording},
    )


def _contrast_notices(flags: NDArray[np.bool_]) -> tuple[Notice, ...]:
    flat = [name for name, same in zip(spec.CLASSES, flags, strict=True) if same]
    if not flat:
        return ()
    message = f"the global saliency of {' and '.join(flat)} is the same everywhere and took no part in choosing patches"
    if len(flat) == len(spec.CLASSES):
        message += "; nothing was left to choose by, so every patch is the upper-left one"
    return (Notice(code="no-contrast", message=message),)
