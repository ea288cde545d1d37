"""Access to the pipeline's arrays in GPU memory: input images from the GPU, results that stay on the GPU."""

from glam_deploy.errors import UsageError
from glam_deploy.gpu.chain import DeviceChain, SlotPool
from glam_deploy.gpu.device.arrays import DeviceArray, as_device_array
from glam_deploy.gpu.device.stream import Stream
from glam_deploy.gpu.slot import Collected, Slot
from glam_deploy.gpu.uploads import Feed
from glam_deploy.preprocess import whole_frame
from glam_deploy.records import Facts, Placed, Source
from glam_deploy.runtime.result import Result, result_of


class BorrowedSlot:
    """Arrays and operations of one slot, inside `with pipeline.slot() as slot:`. Not thread-safe.

    The arrays are in GPU memory and support DLPack and `__cuda_array_interface__`, so that torch, CuPy, numba and
    PyCUDA can use them without a copy. N is the number of images, 1 or 4; classes are (benign, malignant). Outputs are
    those of the last `run`; one that the network does not have is None. Unused patch slots have location (-1, -1) and
    zeros in the other arrays. The arrays must not be used after the block. Shapes below are those of GLAM: maps of GMIC
    are 46 x 30.
    """

    def __init__(self, chain: DeviceChain, pool: SlotPool, slot: Slot, provenance: Facts) -> None:
        self._chain, self._pool, self._slot, self._provenance = chain, pool, slot, provenance
        self._caller: Stream | None = None
        self._loaded: list[DeviceArray] = []
        self._copied = slot.stages.gpu.event()
        self._collected: Collected | None = None
        self._is_open, self._has_run = True, False
        self.stream: Stream = slot.stream
        """Stream of all work of the slot; it supports `__cuda_stream__`, so that you can enqueue your own work."""
        self.image: DeviceArray = slot.array("image")
        """Input, written by the caller: float32 [N, 1, 2944, 1920], network frame, finite, each image standardized to
        mean 0 and standard deviation 1."""
        self.saliency: DeviceArray = slot.array("saliency")
        """Map of the result: float32 [N, 2, 2944, 1920], 0..1, network frame. It is the fused map; without patch maps,
        the global map enlarged by nearest neighbour."""
        self.saliency_global: DeviceArray = slot.array("saliency_global")
        """Global map: float32 [N, 2, 184, 120], 0..1, network frame."""
        self.saliency_patches: DeviceArray | None = self._optional("saliency_patches")
        """Patch maps: float32 [N, 6, 2, 128, 128], 0..1, each in its patch's frame; None if the network has none."""
        self.patch_locations: DeviceArray | None = self._optional("patch_locations")
        """int64 [N, 6, 2]: (row, column) of the upper-left corners, in pixels of the network frame, in order of
        selection; None without patches."""
        self.flags: DeviceArray = slot.array("flags")
        """uint32 [N], bits of `glam_deploy.gpu.kernels.geometry.Flags`: no contrast, not finite."""
        self.y_scale: DeviceArray | None = self._optional("y_scale")
        """float32 [N, 3, 2], 0..1, finest scale first; None if the network has one scale."""
        self.y_global: DeviceArray = slot.array("y_global")
        """float32 [N, 2], 0..1."""
        self.y_local: DeviceArray | None = self._optional("y_local")
        """float32 [N, 2], 0..1; None without patches."""
        self.y_fusion: DeviceArray | None = self._optional("y_fusion")
        """float32 [N, 2], 0..1; None if the checkpoint has no fusion layer."""
        self.attention: DeviceArray | None = self._optional("attention")
        """float32 [N, 6], sums to 1; None if the checkpoint has no attention layers."""

    def load(self, array: object) -> None:
        """Copy a standardized image of another library into `image`, on the GPU.

        `array`: float32 [N, 1, 2944, 1920], C-contiguous, on this GPU, with DLPack or `__cuda_array_interface__`. The
        copy waits on the GPU for pending writes to the array, if its library reports the stream. Raises BackendRunError
        for any other array.
        """
        self._require_open()
        image = self.image
        source = as_device_array(array, gpu=image.gpu, stream=self.stream, dtype=image.dtype, shape=image.shape)
        with self._pool.guarded():
            self.stream.copy(image.address, source.address, image.nbytes)
            self.stream.record(self._copied)
        self._loaded.append(source)  # without a reference, its library could reuse the memory before the copy is done

    def run(self, stream: object = None) -> None:
        """Enqueue all steps from `image` to the outputs on the GPU; the host does not wait.

        `stream`: your stream, as an int or an object with `__cuda_stream__`. The run waits on the GPU for the work in
        it, and later work of that stream waits for the run. Without a stream, `image` must be written before the call,
        and readers must wait for the arrays' own stream, as DLPack and `__cuda_array_interface__` do.
        NaN or infinite values in `image` may result in plausible scores: `flags` then has NOT_FINITE_IMAGE, and
        `result` raises BackendRunError. Raises BackendRunError.
        """
        self._require_open()
        caller = None if stream is None else self.image.gpu.adopt(stream)
        self._collected = None
        with self._pool.guarded():
            if caller:
                self.stream.follow(caller)
            self._slot.start(Feed.RESIDENT)
            if caller:
                caller.follow(self.stream)
        self._caller, self._has_run = caller, True

    def result(self, n: int = 0, *, placed: Placed | None = None) -> Result:
        """Download the result of the n-th image and wait for it; the fused map stays on the GPU.

        `placed`: position of the image in its source (`preprocess.place`); by default the source frame is the network
        frame. Raises BackendRunError if the run failed or values are NaN or infinite, UsageError before the first
        `run`.
        """
        self._require_open()
        if not self._has_run:
            raise UsageError("this slot has no results: call run() first")
        if self._collected is None:
            with self._pool.guarded():
                self._slot.download()
                self._collected = self._slot.collect()
        if placed is None:
            frame = whole_frame(self._slot.stages.network.input_shape)
            placed = Placed(placement=frame, source=Source(name="device array", kind="array"), view=None)
        findings = self._chain.findings(self._collected, [placed] * self._slot.images)
        times = {"gpu": self._collected.milliseconds}
        return result_of(findings, n, timings_ms=times, provenance=self._provenance)

    def close(self) -> None:
        """End of the block. The next use of the slot waits on the GPU for the work in the caller's stream."""
        self._is_open = False
        with self._pool.guarded():
            if self._caller:
                self.stream.follow(self._caller)
            if self._loaded:
                self._copied.synchronize()

    def _optional(self, name: str) -> DeviceArray | None:
        return self._slot.array(name) if name in self._slot.layout.fields else None

    def _require_open(self) -> None:
        if not self._is_open:
            raise UsageError("this slot was released at the end of its `with` block: open another with pipeline.slot()")
