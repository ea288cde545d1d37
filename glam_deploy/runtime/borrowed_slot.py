"""The GPU's arrays in the caller's hands: images that are on the GPU already, results that stay there."""

from glam_deploy.errors import UsageError
from glam_deploy.gpu.chain import DeviceChain, SlotPool
from glam_deploy.gpu.device.arrays import DeviceArray, as_device_array
from glam_deploy.gpu.device.stream import Stream
from glam_deploy.gpu.slot import Collected, Feed, Slot
from glam_deploy.preprocess import whole_frame
from glam_deploy.records import Facts, Placed, Source
from glam_deploy.runtime.result import Result, result_of


class BorrowedSlot:
    """A slot for one caller, inside `with pipeline.slot() as slot:`; not for several threads at once.

    Its arrays lie in GPU memory and offer DLPack and `__cuda_array_interface__`, so that torch, CuPy, numba and PyCUDA
    take them without a copy. N images, 1 or 4; classes are (benign, malignant); outputs are those of the latest `run`.
    Unused patch slots hold location (-1, -1) and zeros. None of it may be touched after the block.
    """

    def __init__(self, chain: DeviceChain, pool: SlotPool, slot: Slot, provenance: Facts) -> None:
        self._chain, self._pool, self._slot, self._provenance = chain, pool, slot, provenance
        self._caller: Stream | None = None
        self._loaded: list[DeviceArray] = []
        self._copied = slot.stages.gpu.event()
        self._collected: Collected | None = None
        self._is_open, self._has_run = True, False
        self.stream: Stream = slot.stream
        """Where the work goes; has `__cuda_stream__`. Work of yours that you put there is in order with it."""
        self.image: DeviceArray = slot.array("image")
        """float32 [N, 1, 2944, 1920], to be written: network frame, finite, mean 0 and standard deviation 1 each."""
        self.saliency: DeviceArray = slot.array("saliency")
        """float32 [N, 2, 2944, 1920], 0..1, the fused map, network frame."""
        self.saliency_global: DeviceArray = slot.array("saliency_global")
        """float32 [N, 2, 184, 120], 0..1."""
        self.saliency_patches: DeviceArray = slot.array("saliency_patches")
        """float32 [N, 6, 2, 128, 128], 0..1, each in its patch."""
        self.patch_locations: DeviceArray = slot.array("patch_locations")
        """int64 [N, 6, 2], upper-left (row, column), network frame, pixels, in order of choice."""
        self.flags: DeviceArray = slot.array("flags")
        """uint32 [N], bits of `glam_deploy.gpu.kernels.geometry.Flags`: no contrast, not finite."""
        self.y_scale: DeviceArray = slot.array("y_scale")
        """float32 [N, 3, 2], 0..1, finest scale first."""
        self.y_global: DeviceArray = slot.array("y_global")
        """float32 [N, 2], 0..1."""
        self.y_local: DeviceArray = slot.array("y_local")
        """float32 [N, 2], 0..1."""
        self.y_fusion: DeviceArray | None = self._optional("y_fusion")
        """float32 [N, 2], 0..1; None where the checkpoint has no fusion layer."""
        self.attention: DeviceArray | None = self._optional("attention")
        """float32 [N, 6], sums to 1; None where the checkpoint has no attention layers."""

    def load(self, array: object) -> None:
        """Copy a standardized image of another library into `image`, on the GPU.

        `array`: float32 [N, 1, 2944, 1920], C-contiguous, on this GPU, with DLPack or `__cuda_array_interface__`. The
        copy waits on the GPU for what fills the array, as far as its library says so. Raises BackendRunError for
        another kind of array.
        """
        self._require_open()
        image = self.image
        source = as_device_array(array, gpu=image.gpu, stream=self.stream, dtype=image.dtype, shape=image.shape)
        with self._pool.guarded():
            self.stream.copy(image.address, source.address, image.nbytes)
            self.stream.record(self._copied)
        self._loaded.append(source)  # its library may use the memory again as soon as nobody holds it

    def run(self, stream: object = None) -> None:
        """Everything from `image` to the outputs, put into the GPU's queue; the host waits for nothing.

        `stream`: yours, as an int or an object with `__cuda_stream__`. The run waits on the GPU for what is in it, and
        what you put into it afterwards waits for the run. Without one, have `image` written before you call, and let
        readers take the arrays' own stream into account, as DLPack and `__cuda_array_interface__` do.
        NaN or infinity in `image` may come out as a plausible score: `flags` has NOT_FINITE_IMAGE for it, and `result`
        raises an error. Raises BackendRunError.
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
        """Download what was found in the n-th image and wait for it; the fused map stays on the GPU.

        `placed` says where that image lies in its source (`preprocess.place`); without it the source frame is the
        network frame. Raises BackendRunError for work that failed and for numbers that are not finite, UsageError
        before the first `run`.
        """
        self._require_open()
        if not self._has_run:
            raise UsageError("this slot holds no results: call run() first")
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
        """The end of the block. On the GPU the slot's next owner waits for what is in the caller's stream now."""
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
            raise UsageError("this slot was given back at the end of its `with` block: take another")
