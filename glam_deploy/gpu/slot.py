r"""A slot: memory, stream, bound engines and CUDA graphs for a run of one image or a batch of images.

    upload -> place -> standardize -> global -> propose -> crop -> local -> fusion -> fuse -> download
                  \-> download of positions and samples, which the host judges meanwhile

`place` finds breast and window of whole images; it is left out for views that the host has placed. The steps from
`propose` to `fusion` are those of a network with patches. `enlarge` replaces `fuse` if its patches have no maps, or if
it has no patches. `fusion` is the fusion head's kernels if the bundle has their weights, else an engine.

All these steps are enqueued on the slot's stream. Every address is fixed when the slot is created; a run allocates no
GPU memory, and the GPU never waits for the host. When the slot is created, the engines run once (warm-up). At the first
start, `place`, and the sequence from `standardize` to the last download, are captured as CUDA graphs, which later
starts launch; the copies between them have the size of the image. If the sequence cannot be captured, each run enqueues
the steps one by one, and the result's provenance records this.
"""

import logging
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.errors import BackendRunError
from glam_deploy.gpu.device.arrays import DeviceArray
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.stream import Graph, Stream
from glam_deploy.gpu.engines.base import DeviceEngine, DeviceRun
from glam_deploy.gpu.kernels import placed
from glam_deploy.gpu.kernels.head import HeadKernels
from glam_deploy.gpu.kernels.launch import Kernels
from glam_deploy.gpu.layout import slot_layout
from glam_deploy.gpu.uploads import Feed, GrowingMemory, Upload, feed_of
from glam_deploy.networks import NetworkSpec, Stage
from glam_deploy.records import ChainInput, Mammogram, Recording

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class GpuStages:
    """GPU, kernels and engines, shared by all slots."""

    network: NetworkSpec
    gpu: Gpu
    kernels: Kernels
    engines: Mapping[Stage, DeviceEngine]
    patches: int
    """Patches per image, 1..6; ignored for a network without patches."""
    head: HeadKernels | None = None
    """Computes the scores of the fusion stage; None if the engine of that stage does."""
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
        # memory of the slot is freed after it, and may be in use
        weakref.finalize(self, _settle, self.stream).atexit = False
        rows = {"local": images * stages.patches}
        by_engines = [stage for stage in stages.network.stages if not (stage == "fusion" and stages.head)]
        batches = {stage: rows.get(stage, images) for stage in by_engines}
        with stages.preparing:
            scratch = max(stages.engines[stage].scratch_bytes(batch) for stage, batch in batches.items())
        self.layout = slot_layout(stages.network, images=images, patches=stages.patches, engine_scratch=scratch)
        self._memory = stages.gpu.allocate(self.layout.nbytes)
        self._uploads = [Upload(stages.gpu) for _ in range(images)]
        self._findings = [GrowingMemory(stages.gpu) for _ in range(images)]
        """Positions and samples of whole images."""
        self._download = stages.gpu.pinned(self.layout.result_bytes)
        self._began, self._ended = (stages.gpu.event(timing=True) for _ in range(2))
        self._placed = stages.gpu.event()
        self._placing: Graph | None = None
        self._graphs: dict[Feed, Graph] = {}
        self._recordings: dict[Feed, Recording] = {}
        """Outcome of the capture for each feed that has been started; a failed capture is not repeated."""
        self._recording: Recording | None = None
        """Recording of the last started run."""
        with stages.preparing:
            self._runs = {stage: self._bind(stage, batch) for stage, batch in batches.items()}
            self._warm_up()

    def stage(self, views: Sequence[ChainInput]) -> Feed:
        """Copy views to the upload memory of the next run, on the host. Returns the kind of input.

        `views`: as many as the slot has images, either all raw or all standardized. Raises BackendRunError.
        """
        for upload, view in zip(self._uploads, views, strict=True):
            upload.put(view)
        return feed_of(views)

    def start(self, feed: Feed) -> None:
        """Enqueue a run; returns without waiting for it. Raises BackendRunError."""
        if feed not in self._recordings:
            self._recordings[feed] = self._record(feed)
        self._recording = self._recordings[feed]
        self.stream.record(self._began)
        if feed is not Feed.RESIDENT:
            self._enqueue_uploads(feed)
        if graph := self._graphs.get(feed):
            graph.launch(self.stream)
        else:
            self._enqueue(feed)
        self.stream.record(self._ended)

    def located(self) -> list[placed.Located | None]:
        """Wait for `place`, not for the network: what it found in each image; None for views that the host has placed.

        Raises BackendRunError if the run failed.
        """
        if any(upload.is_whole for upload in self._uploads):
            self._placed.synchronize()
        return [
            placed.read(memory.room(0).array, upload.view.pixels.dtype) if isinstance(upload.view, Mammogram) else None
            for upload, memory in zip(self._uploads, self._findings, strict=True)
        ]

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
        self.stream.fill(self._memory.address, self.layout.zeroed_bytes, 0)
        for run in self._runs.values():
            run.enqueue(self.stream)
        # unused patch slots stay zero: no later run writes there
        self.stream.fill(self._memory.address, self.layout.zeroed_bytes, 0)
        self.stream.synchronize()

    def _record(self, feed: Feed) -> Recording:
        """Capture the steps as a CUDA graph, or return why this failed. Raises BackendRunError if the GPU failed."""
        if not_capturable := [stage for stage, run in self._runs.items() if not run.capturable]:
            reason = f"engines that cannot be recorded: {', '.join(not_capturable)}"
            return Recording(state="not recordable", reason=reason)
        try:
            with self.stages.preparing:
                placing = self._capture(self._place) if feed is Feed.RAW else None
                graph = self._capture(partial(self._enqueue, feed))
        except BackendRunError as error:
            _ = self.stream.is_idle  # raises if the stream is still capturing or the GPU itself has failed
            log.warning(
                "a run of %d images (%s) cannot be recorded as a CUDA graph, so its steps are enqueued one by one: the "
                "results are the same, each run needs more host time. Cause: %s",
                *(self.images, feed.value, error),
            )
            return Recording(state="failed", reason=str(error))
        self._graphs[feed], self._placing = graph, placing or self._placing
        return Recording(state="recorded")

    def _capture(self, enqueue: Callable[[], None]) -> Graph:
        with self.stream.capture() as graph:
            enqueue()
        return graph

    def _enqueue(self, feed: Feed) -> None:
        if feed is Feed.RAW:
            self._standardize()
        self._enqueue_stages()
        if feed is not Feed.RAW:
            self._examine()
        if feed is not Feed.RESIDENT:
            self.download()

    def _enqueue_uploads(self, feed: Feed) -> None:
        name = "raw" if feed is Feed.RAW else "image"
        step = self.layout.fields[name].nbytes // self.images
        for n, upload in enumerate(self._uploads):
            self.stream.copy_in(self.address(name) + n * step, upload.address, upload.nbytes)
        if any(upload.is_whole for upload in self._uploads):
            self._enqueue_placing()

    def _enqueue_placing(self) -> None:
        """Find breast and window of the whole images, and download what the host needs to judge them."""
        if self._placing:
            self._placing.launch(self.stream)
        else:
            self._place()
        step = self.layout.fields["samples"].nbytes // self.images
        for n, (upload, memory) in enumerate(zip(self._uploads, self._findings, strict=True)):
            if isinstance(upload.view, Mammogram):
                rows, columns = upload.view.pixels.shape
                nbytes = placed.used_samples_bytes(rows, columns, upload.view.pixels.dtype)
                self.stream.copy_out(memory.room(nbytes).address, self.address("samples") + n * step, nbytes)
        self.stream.record(self._placed)

    def _place(self) -> None:
        places = {name: self.address(name) for name in ("place_scratch", "samples")}
        self.stages.kernels.place(self.stream, **self._raw(), **places, n=self.images)

    def _standardize(self) -> None:
        self.stages.kernels.standardize(self.stream, **self._raw(), image=self.address("image"), n=self.images)

    def _raw(self) -> dict[str, int]:
        """Arguments of the kernels that read the uploaded views."""
        area = self.layout.fields["raw"].nbytes // self.images
        return {"areas": self.address("raw"), "scratch": self.address("kernel_scratch"), "area_bytes": area}

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
        if head := self.stages.head:
            head.launch(self.stream, {name: self.address(name) for name in self.layout.fields}, n=self.images)
        else:
            self._runs["fusion"].enqueue(self.stream)

    def _examine(self) -> None:
        """Check images that the host or another library has standardized; raw views are checked by `place`."""
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


def _settle(stream: Stream) -> None:
    """Wait for all work of a stream, also if the GPU has failed."""
    with suppress(BackendRunError):
        stream.synchronize()
