"""Results: scores, saliency maps and patches of one view; prepared views and started views."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.engines.base import PendingFindings, Stopwatch
from glam_deploy.errors import GlamError, GpuLost, UsageError
from glam_deploy.networks import GLAM, GLAM_CONCATENATION, NetworkSpec
from glam_deploy.preprocess import SourceMaps, frame, network_input
from glam_deploy.records import (
    Box,
    ChainInput,
    Facts,
    Findings,
    Float32,
    Int64,
    Mammogram,
    NetworkInput,
    Notice,
    Pixels,
    Placed,
    PlacedView,
    plain_mapping,
    without_pixels,
)
from glam_deploy.runtime import patching
from glam_deploy.runtime.host_arrays import exact_pixels, to_host

if TYPE_CHECKING:
    from PIL.Image import Image

    from glam_deploy.outputs.report import Report


log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """Scores, saliency maps and patches of one image; K patches, classes are (benign, malignant).

    Scores are not calibrated probabilities. `saliency` and `saliency_in_source` are computed at each call, because they
    are large (45 MB, and 8 bytes per source pixel) and most callers do not need them.

    Two results are equal if everything except `timings_ms` is equal: values bit by bit, notices, provenance, and
    placement and source of the view; its pixels are not compared. A pickled or copied result does not contain the
    pixels of its view (22.6 MB or more): `network_input` then raises UsageError, and `plot` and `save` need `pixels`.
    """

    network: NetworkSpec
    """The network that computed it, with classes, shapes and title."""
    y_global: Float32
    """float32 [2], 0..1: the prediction of the published inference code."""
    y_scale: Float32 | None
    """float32 [3, 2], 0..1, finest scale first; None if the network has one scale."""
    y_local: Float32 | None
    """float32 [2], 0..1; None for a network without patches."""
    y_fusion: Float32 | None
    """float32 [2], 0..1; None if the checkpoint has no fusion layer."""
    attention: Float32 | None
    """float32 [K], sums to 1; None if the checkpoint has no attention layers."""
    saliency_global: Float32
    """float32 [2, *NetworkSpec.map_shape], 0..1, network frame: 184 x 120 of GLAM, 46 x 30 of GMIC, 92 x 60 of CAM."""
    saliency_patches: Float32 | None
    """float32 [K, 2, 128, 128], 0..1, each in the frame of its patch; None if the network has no maps of patches."""
    patch_locations: Int64
    """int64 [K, 2]: (row, column) of the upper-left corners in pixels of the network frame, in order of selection."""
    input: Placed
    """The view and its placement; `network_input` is the standardized image."""
    notices: tuple[Notice, ...]
    """All notices, from reading to patch selection."""
    timings_ms: Mapping[str, float]
    """Milliseconds of each step. On a CPU: wall time of preprocess, global, patches, local and fusion. On a GPU:
    preprocess (wall time on the host) and gpu (GPU time from the start of the upload to the end of the download); the
    views of a batch have the same gpu time."""
    provenance: Facts
    """Bundle, checkpoint, engine and versions that computed this result, as JSON values. On a GPU `cuda_graph` has the
    fields of `records.Recording`: whether the run was recorded as a CUDA graph, and if not, the reason. With several
    GPUs `gpu` has those of `records.UsedGpu`: which of them computed it."""

    @property
    def predictions(self) -> dict[str, dict[str, float]]:
        """Every score by name, then by class: {"y_global": {"benign": 0.1, "malignant": 0.7}, ...}."""
        scores = {"y_global": self.y_global, "y_local": self.y_local, "y_fusion": self.y_fusion}
        return {
            name: dict(zip(self.network.classes, y.tolist(), strict=True))
            for name, y in scores.items()
            if y is not None
        }

    @cached_property
    def network_input(self) -> NetworkInput:
        """The standardized network input, 22.6 MB; computed on the host if a GPU had standardized the view.

        Raises UsageError if the result has no pixels of its view.
        """
        if isinstance(self.input, NetworkInput):
            return self.input
        if isinstance(self.input, PlacedView):
            return network_input(self.input)
        raise UsageError(
            "this result has no pixels of its view. If it was pickled or copied, read `network_input` before that; if "
            "its input was made on the GPU, copy `slot.image` inside the `with` block"
        )

    def saliency(self) -> Float32:
        """Compute the fused map: float32 [2, 2944, 1920], 0..1, network frame."""
        return patching.enlarge(self._grid(), self.network.grid_cell)

    def saliency_in_source(self) -> Float32:
        """Compute the fused map in the source frame: float32 [2, rows, columns] of the source image, 0..1.

        Source pixels outside the network's window are 0.
        """
        return self.source_maps().whole()

    def saliency_preview(self, shape: tuple[int, int]) -> Float32:
        """Compute the fused map for a scaled picture of the source image: float32 [2, *shape], 0..1, nearest neighbour.

        `shape`: rows and columns of a picture of the complete source image.
        """
        return self.source_maps().sample(shape)

    def source_maps(self) -> SourceMaps:
        """The fused map in the source frame as `SourceMaps`, which can compute parts of it."""
        return SourceMaps(grid=self._grid(), cell=self.network.grid_cell, placement=self.input.placement)

    @property
    def patch_boxes(self) -> list[Box]:
        """(top, left, bottom, right) of each patch, half-open, in pixels of the network frame; [] without patches."""
        if self.network.selection is None:
            return []
        side = self.network.patches.side
        return [(r, c, r + side, c + side) for r, c in self.patch_locations.tolist()]

    @property
    def patch_boxes_in_source(self) -> list[Box | None]:
        """(top, left, bottom, right) of the part of each patch inside the source image, in the source frame.

        None for a patch that is completely in the padding.
        """
        return [frame.box_to_source(self.input.placement, box) for box in self.patch_boxes]

    def to_dict(self) -> "Report":
        """The report that `run` writes as `<stem>.json` (docs/outputs.md), as input of `json.dumps`.

        Its `files` are null. Raises InputError for a value that JSON cannot represent.
        """
        from glam_deploy.outputs.report import done, plain

        return plain(done(self, arrays_name=None, picture_name=None))

    def plot(self, pixels: Mammogram | Pixels | None = None) -> "Image":
        """The overlay that `run` writes as `<stem>.png`: an RGB image of Pillow, at most 1600 x 1600 pixels.

        `pixels`: the Mammogram or its `pixels`. None uses the pixels in the result: the complete view for a GPU engine,
        else the network's window with black around it. Raises UsageError if the result has no pixels, and for the
        pixels of another image.
        """
        from PIL.Image import fromarray

        from glam_deploy.outputs.overlay import overlay

        return fromarray(overlay(self._shown(pixels), self))

    def save(
        self,
        folder: str | os.PathLike[str],
        *,
        stem: str | None = None,
        pixels: Mammogram | Pixels | None = None,
        full: bool = False,
        save_input: bool = False,
        picture: bool = True,
    ) -> list[Path]:
        """Write the files of `run` (docs/outputs.md) and return their paths: arrays, picture, report.

        `stem`: file name without suffix; None means that of `input.source.name`. `pixels`: as in `plot`. `full` adds
        the fused map at full size, `save_input` the standardized input. Files of an earlier result with the same stem
        are replaced. Raises UsageError for a folder that cannot be written, a stem that is not a plain file name, an
        existing file that glam-deploy did not write, and the errors of `plot`.
        """
        from glam_deploy.outputs.writer import OutputOptions, stem_of, write_result

        options = OutputOptions(full=full, save_input=save_input, picture=picture)
        name = stem_of(Path(self.input.source.name)) if stem is None else stem
        shown = self._shown(pixels) if picture else np.empty((0, 0), np.uint8)
        return write_result(Path(folder), name, shown, self, options)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Result):
            return NotImplemented
        names = [each.name for each in fields(self) if each.name not in ("input", "timings_ms")]
        alike = all(_same(getattr(self, name), getattr(other, name)) for name in names)
        return alike and without_pixels(self.input) == without_pixels(other.input)

    __hash__ = None  # type: ignore[assignment]  # arrays have none

    def __reduce__(self) -> tuple[Any, ...]:
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        values |= {name: plain_mapping(values[name]) for name in ("timings_ms", "provenance")}
        values["input"] = without_pixels(self.input)
        return _rebuilt, (values,)

    def _shown(self, pixels: Mammogram | Pixels | None) -> Pixels:
        """Pixels for the overlay, in the source frame with background 0. Raises UsageError."""
        if pixels is not None:
            return exact_pixels(to_host(pixels.pixels if isinstance(pixels, Mammogram) else pixels))
        if isinstance(self.input, PlacedView):
            return self.input.pixels
        if isinstance(self.input, NetworkInput):
            image = self.input.image
            shown: Pixels = frame.map_to_source(self.input.placement, (image - image.min())[None])[0]
            return shown
        raise UsageError(
            "this result has no pixels of its view (it was pickled or copied, or its input was made on the GPU): pass "
            "pixels=, the Mammogram of this result"
        )

    def _grid(self) -> Float32:
        return patching.fuse(self.saliency_global, self.saliency_patches, self.patch_locations, self.network)


def result_of(findings: Findings, n: int, *, timings_ms: Mapping[str, float], provenance: Facts) -> Result:
    """The result of the n-th image of a run."""
    view = findings.inputs[n]
    recording = {"cuda_graph": asdict(findings.recording)} if findings.recording else {}
    gpu = {"gpu": asdict(findings.gpu)} if findings.gpu else {}
    return Result(
        network=findings.network,
        y_global=findings.y_global[n],
        y_scale=_row(findings.y_scale, n),
        y_local=_row(findings.y_local, n),
        y_fusion=_row(findings.y_fusion, n),
        attention=_row(findings.attention, n),
        saliency_global=findings.saliency_global[n],
        saliency_patches=_row(findings.saliency_patches, n),
        patch_locations=findings.patch_locations[n],
        input=view,
        notices=(*view.notices, *_contrast_notices(findings.network.classes, findings.flat[n])),
        timings_ms=timings_ms,
        provenance={**provenance, **recording, **gpu},
    )


def _row(values: Float32 | None, n: int) -> Float32 | None:
    return None if values is None else values[n]


def _contrast_notices(classes: Sequence[str], flags: NDArray[np.bool_]) -> tuple[Notice, ...]:
    flat = [name for name, same in zip(classes, flags, strict=True) if same]
    if not flat:
        return ()
    message = f"the global saliency of {' and '.join(flat)} is constant and was not used for the selection of patches"
    if len(flat) == len(classes):
        message += "; no class was left, so all patches are at the upper-left corner"
    return (Notice(code="no-contrast", message=message),)


def _rebuilt(values: Any) -> Result:
    """A result from its pickle. Pickles of 0.1.0 before there were several networks are of GLAM."""
    if "network" not in values:
        values = {**values, "network": GLAM if values["attention"] is not None else GLAM_CONCATENATION}
    return Result(**values)


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        return type(first) is type(second) and first.dtype == second.dtype and np.array_equal(first, second)
    return bool(first == second)


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A view after the host's preprocessing: the result of `Pipeline.prepare`."""

    view: ChainInput
    times_ms: Mapping[str, float]
    """Step -> milliseconds of the preprocessing."""


class Pending:
    """A started run: the result of `Pipeline.submit`. On a CPU without streams it is already complete."""

    def __init__(self, findings: PendingFindings, clock: Stopwatch, provenance: Facts) -> None:
        self._findings = findings
        self._clock = clock
        self._provenance = provenance

    @cached_property
    def results(self) -> list[Result]:
        """Results of all views of the run, in their order. Waits for them; raises as `result`."""
        findings, times = self._findings(), self._clock.times_ms
        count = len(findings.inputs)
        made = [result_of(findings, n, timings_ms=times, provenance=self._provenance) for n in range(count)]
        for result in made:
            _log(result)
        return made

    def result(self) -> Result:
        """Result of the first view. Waits for it.

        Raises BackendRunError, and InputError for a raw view that a GPU engine has placed and that cannot be used.
        """
        return self.results[0]


class PendingOfBatch(Pending):
    """One view of a started batch. If the batch fails, the view runs again alone: its result and errors are its own."""

    def __init__(self, batch: Pending, number: int, alone: Callable[[], Pending]) -> None:
        """`number`: of the view in the batch, from 0. `alone`: starts the view again."""
        self._batch, self._number, self._alone = batch, number, alone

    @cached_property
    def results(self) -> list[Result]:
        """The one result of the view. Waits for the batch; raises as `Pending.result`."""
        try:
            return [self._batch.results[self._number]]
        except GpuLost:
            raise
        except GlamError:
            return self._alone().results


def _log(result: Result) -> None:
    """Log timings and notices of a result, without name, identifiers or scores, because logs are less protected."""
    if log.isEnabledFor(logging.DEBUG):
        steps = ", ".join(f"{step} {ms:.0f} ms" for step, ms in result.timings_ms.items())
        codes = ", ".join(notice.code for notice in result.notices) or "none"
        log.debug("one view of kind %s: %s; notices: %s", result.input.source.kind, steps, codes)
