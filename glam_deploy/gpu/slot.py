"""A slot: memory, stream, bound engines and CUDA graphs for a run of one image or a batch of images.

    upload -> standardize -> global -> propose -> crop -> local -> fusion -> fuse -> download

The steps from `propose` to `fusion` are those of a network with patches. `enlarge` replaces `fuse` if its patches have
no maps, or if it has no patches.

All these steps are enqueued on the slot's stream. Every address is fixed when the slot is created; a run allocates no
memory, and the host waits only for the result. When the slot is created, the engines run once (warm-up). At the first
start the sequence is captured as one CUDA graph, which later starts launch. If it cannot be captured, each run enqueues
the steps one by one, and the result's provenance records this.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Lock
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from glam_deploy.errors import BackendRunError
from glam_deploy.gpu.device.arrays import DeviceArray
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.stream import Graph
from glam_deploy.gpu.engines.base import DeviceEngine, DeviceRun
from glam_deploy.gpu.kernels import staging
from glam_deploy.gpu.kernels.launch import Kernels
from glam_deploy.gpu.layout import slot_layout
from glam_deploy.networks import NetworkSpec, Stage
from glam_deploy.preprocess import frame
from glam_deploy.records import NetworkInput, PlacedView, Recording

log = logging.getLogger(__name__)


class Feed(StrEnum):
    """Kind of input of a run. Each has its own CUDA graph, because a captured copy has a fixed size."""

    UINT16 = "uint16"
    """Raw views, all uint8 or uint16."""
    FLOAT32 = "float32"
    """Raw views, at least one of them float32."""
    STANDARDIZED = "standardized"
    """Images that the host has standardized."""
    RESIDENT = "resident"
    """Images that are already in the slot's GPU memory; the results stay in GPU memory too."""


@dataclass(frozen=True, kw_only=True)
class GpuStages:
    """GPU, kernels and engines, shared by all slots."""

    network: NetworkSpec
    gpu: Gpu
    kernels: Kernels
    engines: Mapping[Stage, DeviceEngine]
    patches: int
    """Patches per image, 1..6; ignored for a network without patches."""
    preparing: Lock = field(default_factory=Lock, repr=False, compare=False)
    """Held while a slot is created or captures a graph, because a library that synchronizes the context during its
    set-up, in any thread, invalidates the capture. Source: CUDA C++ Programming Guide, "Prohibited and Unhandled
    Operations"."""


@dataclass(frozen=True, kw_only=True)
class Collected:
    """Results of one run in host memory."""

    arrays: Mapping[str, NDArray[Any]]
    """Name -> downloaded tensor of the slot's layout, copied; the values of unused patch slots are undefined."""
    milliseconds: float
    """GPU time from the start of the upload to the end of the download."""
    recording: Recording
    """Whether the run was launched as a CUDA graph."""


class Slot:
    """Memory, stream, bound engines and CUDA graphs for runs of `images` images. Not thread-safe."""

    def __init__(self, stages: GpuStages, *, images: int) -> None:
        """Raises BackendRunError if the GPU has not enough memory or an engine fails."""
        self.stages, self.images = stages, images
        self.stream = stages.gpu.stream()
        rows = {"local": images * stages.patches}
        batches = {stage: rows.get(stage, images) for stage in stages.network.stages}
        with stages.preparing:
            scratch = max(engine.scratch_bytes(batches[stage]) for stage, engine in stages.engines.items())
        self.layout = slot_layout(stages.network, images=images, patches=stages.patches, engine_scratch=scratch)
        self._memory = stages.gpu.allocate(self.layout.nbytes)
        self._upload = stages.gpu.pinned(images * staging.largest_area(stages.network.input_shape))
        self._download = stages.gpu.pinned(self.layout.result_bytes)
        self._began, self._ended = (stages.gpu.event(timing=True) for _ in range(2))
        self._graphs: dict[Feed, Graph] = {}
        self._recordings: dict[Feed, Recording] = {}
        """Outcome of the capture for each feed that has been started; a failed capture is not repeated."""
        self._recording: Recording | None = None
        """Recording of the last started run."""
        with stages.preparing:
            self._runs = {stage: self._bind(stage, batch) for stage, batch in batches.items()}
            self._warm_up()

    def stage(self, views: Sequence[PlacedView | NetworkInput]) -> Feed:
        """Copy views to the upload buffer of the next run, on the host. Returns the kind of input.

        `views`: as many as the slot has images, either all raw or all standardized.
        """
        feed = feed_of(views)
        step = self._upload_bytes(feed) // self.images
        for n, view in enumerate(views):
            area = self._upload.array[n * step : (n + 1) * step]
            if isinstance(view, NetworkInput):
                area.view(np.float32).reshape(view.image.shape)[...] = view.image
            else:
                _pack(area, view)
        return feed

    def start(self, feed: Feed) -> None:
        """Enqueue a run; returns without waiting for it. Raises BackendRunError."""
        if feed not in self._recordings:
            self._recordings[feed] = self._record(feed)
        self._recording = self._recordings[feed]
        self.stream.record(self._began)
        if graph := self._graphs.get(feed):
            graph.launch(self.stream)
        else:
            self._enqueue(feed)
        self.stream.record(self._ended)

    def collect(self) -> Collected:
        """Wait for the run and copy its results. Raises BackendRunError if the run failed."""
        assert self._recording is not None, "no run was started"
        self.stream.synchronize()
        used = self.layout.used_result_bytes
        block = np.empty(self.layout.result_bytes, np.uint8)
        block[:used] = self._download.array[:used]
        arrays = {name: self.layout.fields[name].of(block) for name in self.layout.downloaded}
        milliseconds = self._ended.milliseconds_since(self._began)
        return Collected(arrays=arrays, milliseconds=milliseconds, recording=self._recording)

    def download(self) -> None:
        """Enqueue the download of the results of a resident run, for `collect`. Does not wait."""
        self.stream.copy_out(self._download.address, self._memory.address, self.layout.used_result_bytes)

    def array(self, name: str) -> DeviceArray:
        """A tensor of the layout as an array in GPU memory, without a copy, for other libraries."""
        field = self.layout.fields[name]
        return DeviceArray(
            gpu=self.stages.gpu,
            address=self.address(name),
            shape=field.shape,
            dtype=field.dtype,
            owner=self._memory,
            stream=self.stream,
        )

    def address(self, name: str) -> int:
        """GPU address of a tensor of the layout."""
        return self._memory.address + self.layout.fields[name].offset

    def _bind(self, stage: Stage, batch: int) -> DeviceRun:
        engine = self.stages.engines[stage]
        packed = self.layout.packed if stage == "local" else ()
        tensors = (*engine.contract.inputs, *engine.contract.outputs)
        addresses = {name: self.address(f"packed_{name}" if name in packed else name) for name in tensors}
        return engine.bind(addresses, batch=batch, scratch=self.address("engine_scratch"), stream=self.stream)

    def _warm_up(self) -> None:
        """Run the engines on zeros and wait: allocation, loading and compilation of a first run cannot be captured.

        Source: CUDA C++ Programming Guide, "Prohibited and Unhandled Operations"; NVIDIA's trtexec does the same
        (samples/common/sampleInference.cpp, "Avoid capturing initialization calls").
        """
        self.stream.fill(self._memory.address, self.layout.nbytes, 0)
        for run in self._runs.values():
            run.enqueue(self.stream)
        # unused patch slots stay zero: no later run writes there
        self.stream.fill(self._memory.address, self.layout.nbytes, 0)
        self.stream.synchronize()

    def _record(self, feed: Feed) -> Recording:
        """Capture the steps as a CUDA graph, or return why this failed. Raises BackendRunError if the GPU failed."""
        if not_capturable := [stage for stage, run in self._runs.items() if not run.capturable]:
            reason = f"engines that cannot be recorded: {', '.join(not_capturable)}"
            return Recording(state="not recordable", reason=reason)
        try:
            with self.stages.preparing, self.stream.capture() as graph:
                self._enqueue(feed)
        except BackendRunError as error:
            _ = self.stream.is_idle  # raises if the stream is still capturing or the GPU itself has failed
            log.warning(
                "a run of %d images (%s) cannot be recorded as a CUDA graph, so its steps are enqueued one by one: the "
                "results are the same, each run needs more host time. Cause: %s",
                *(self.images, feed.value, error),
            )
            return Recording(state="failed", reason=str(error))
        self._graphs[feed] = graph
        return Recording(state="recorded")

    def _enqueue(self, feed: Feed) -> None:
        if feed is Feed.RESIDENT:
            self._enqueue_stages()
            self._examine()
        else:
            self._enqueue_upload(feed)
            self._enqueue_stages()
            self.download()

    def _enqueue_upload(self, feed: Feed) -> None:
        target = "image" if feed is Feed.STANDARDIZED else "raw"
        nbytes = self._upload_bytes(feed)
        self.stream.copy_in(self.address(target), self._upload.address, nbytes)
        if target == "raw":
            self.stages.kernels.standardize(
                self.stream,
                areas=self.address("raw"),
                image=self.address("image"),
                scratch=self.address("kernel_scratch"),
                n=self.images,
                area_bytes=nbytes // self.images,
            )

    def _enqueue_stages(self) -> None:
        self._runs["global"].enqueue(self.stream)
        if self.stages.network.selection:
            self._enqueue_patches()
        else:  # nothing else overwrites the flags of the last run
            self.stream.fill(self.address("flags"), self.layout.fields["flags"].nbytes, 0)
        self._enqueue_map()

    def _enqueue_map(self) -> None:
        """Compute the map of the result at full resolution, and set the flags of maps that are not finite."""
        saliency_global, saliency, flags = map(self.address, ("saliency_global", "saliency", "flags"))
        maps = {"saliency_global": saliency_global, "saliency": saliency, "flags": flags, "n": self.images}
        if not self.stages.network.has_patch_maps:
            self.stages.kernels.enlarge(self.stream, **maps)
            return
        patches, locations = self.address("saliency_patches"), self.address("patch_locations")
        self.stages.kernels.fuse(self.stream, saliency_patches=patches, locations=locations, **maps)

    def _enqueue_patches(self) -> None:
        kernels, locations = self.stages.kernels, self.address("patch_locations")
        size = {"k": self.stages.patches, "n": self.images}
        kernels.propose(
            self.stream,
            saliency=self.address("saliency_global"),
            locations=locations,
            flags=self.address("flags"),
            scratch=self.address("kernel_scratch"),
            **size,
        )
        kernels.crop(
            self.stream, image=self.address("image"), locations=locations, patches=self.address("patches"), **size
        )
        self._runs["local"].enqueue(self.stream)
        self._unpack()
        self._runs["fusion"].enqueue(self.stream)

    def _examine(self) -> None:
        """Check images that another library wrote in GPU memory; all others were checked before the upload."""
        image, flags = self.address("image"), self.address("flags")
        self.stages.kernels.examine(self.stream, image=image, flags=flags, n=self.images)

    def _unpack(self) -> None:
        """Copy the packed outputs of the local graph to the first patch slots of each image."""
        for name in self.layout.packed:
            row = self.layout.row_bytes(name)
            used = self.stages.patches * row
            for n in range(self.images):
                target = self.address(name) + n * self.stages.network.patches.slots * row
                self.stream.copy(target, self.address(f"packed_{name}") + n * used, used)

    def _upload_bytes(self, feed: Feed) -> int:
        """Bytes of the upload of a run; fixed, so that it can be captured. Smaller views leave a part unused."""
        if feed is Feed.STANDARDIZED:
            return self.layout.fields["image"].nbytes
        return self.images * staging.area_bytes(*self.stages.network.input_shape, feed.value)


def feed_of(views: Sequence[PlacedView | NetworkInput]) -> Feed:
    """Kind of input of a run of these views."""
    if any(isinstance(view, NetworkInput) for view in views):
        return Feed.STANDARDIZED
    is_float = any(cast(PlacedView, view).pixels.dtype == np.float32 for view in views)
    return Feed.FLOAT32 if is_float else Feed.UINT16


def _pack(area: NDArray[np.uint8], view: PlacedView) -> None:
    part = frame.seen(view.placement)
    (row, column, _, _), (top, left, bottom, right) = part.network, part.source
    staging.pack(
        area,
        view.pixels[top:bottom, left:right],
        row=row,
        column=column,
        mirrored=part.mirrored,
        network_shape=view.placement.network_shape,
    )
