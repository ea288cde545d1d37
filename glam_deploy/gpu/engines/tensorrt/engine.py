"""A TensorRT engine on the GPU, of either flavour.

TensorRT-RTX finishes its kernels for the GPU and the batch at hand when an engine is bound and first run, which takes
seconds. All bindings of an engine share what was compiled. It is kept in memory only: on disk it would be code outside
the bundle, which no hash of the manifest holds.
"""

from collections.abc import Iterator
from threading import Lock
from typing import Any

from glam_deploy.errors import BackendBuildError, BackendRunError, BackendUnavailable
from glam_deploy.gpu.device.driver import explain_library
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.stream import Stream
from glam_deploy.gpu.engines.base import Addresses, DeviceEngine
from glam_deploy.gpu.engines.tensorrt.callbacks import logger
from glam_deploy.gpu.engines.tensorrt.flavours import Library
from glam_deploy.networks import NetworkSpec, Stage, Tensor


class TensorRtEngine(DeviceEngine):
    """One deserialized engine. Every binding is an execution context of its own, with the caller's memory."""

    def __init__(self, library: Library, plan: bytes, stage: Stage, *, network: NetworkSpec, gpu: Gpu) -> None:
        super().__init__(stage, network=network, gpu=gpu)
        self.library = library
        self._log = logger(library)
        with gpu.current():
            self._runtime = self._start()
            self._engine = self._deserialize(plan)
        self._require_interface(self._tensors("INPUT"), self._tensors("OUTPUT"))
        self._binding = Lock()
        self._compiled: Any = None
        """The cache of what was compiled, made with the first context."""
        self._scratch: dict[int, int] = {}
        """Bytes, by batch."""
        self._spare: dict[int, Any] = {}
        """Contexts that were made to learn those, for the first binding of each batch."""

    def scratch_bytes(self, batch: int) -> int:
        """What the library needs for this batch; where it does not tell, for the largest of the batch's profile."""
        with self._binding, self.gpu.current():
            if batch not in self._scratch:
                with self.gpu.stream() as stream:
                    self._spare[batch] = self._shaped(batch, stream)
                self._scratch[batch] = self._needed(self._spare[batch])
        return self._scratch[batch]

    def bind(self, tensors: Addresses, *, batch: int, scratch: int, stream: Stream) -> "TensorRtRun":
        room = self.scratch_bytes(batch)
        with self._binding, self.gpu.current():
            context = self._spare.pop(batch, None)
            if context is None:
                context = self._shaped(batch, stream)
                self._require_room(self._needed(context), room, batch)
            context.set_device_memory(scratch, room)
            for name in (*self.contract.inputs, *self.contract.outputs):
                self.require(context.set_tensor_address(name, tensors[name]), f"take an address for {name!r}")
        return TensorRtRun(self, context, stream)

    def require(self, done: bool, what: str) -> None:
        """Raises BackendRunError in the library's words where a call has said that it failed."""
        if not done:
            raise BackendRunError(f"{self.stage} engine: {self.library} cannot {what}: {self._words()}")

    def _require_room(self, needed: int, room: int, batch: int) -> None:
        if needed > room:
            raise BackendRunError(
                f"{self.stage} engine: {self.library} needs {needed} bytes of scratch for a batch of {batch}; it had "
                f"said {room}, and that is what was allocated. Run with --engine onnx-cuda, and report this."
            )

    def _words(self) -> str:
        words = "; ".join(dict.fromkeys(self._log.errors)) or "it gives no reason"
        self._log.errors.clear()
        return words

    def _start(self) -> Any:
        try:
            runtime = self.library.trt.Runtime(self._log)
        except TypeError as error:  # what the binding makes of a null pointer
            raise BackendUnavailable(f"{self.library} does not start here: {explain_library(self._words())}") from error
        runtime.engine_host_code_allowed = False  # the default, and never to be anything else
        return runtime

    def _deserialize(self, plan: bytes) -> Any:
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            words = self._words()
            raise BackendBuildError(
                f"{self.stage} engine: {self.library} cannot load it: {words}. {self.library.remedy(words)}"
            )
        return engine

    def _tensors(self, mode: str) -> dict[str, Tensor]:
        trt, engine = self.library.trt, self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        return {
            name: Tensor(
                dtype=trt.nptype(engine.get_tensor_dtype(name)).__name__,
                shape=tuple(engine.get_tensor_shape(name))[1:],
            )
            for name in names
            if engine.get_tensor_mode(name) == getattr(trt.TensorIOMode, mode)
        }

    def _profile(self, batch: int) -> int:
        """The optimization profile made for this batch, else the smallest that has room for it."""
        ranges = list(self._batches())
        fitting = [i for i, (low, _, high) in enumerate(ranges) if low <= batch <= high]
        if not fitting:
            served = ", ".join(f"{low} to {high}" for low, _, high in ranges)
            raise BackendRunError(f"{self.stage} engine: a batch of {batch} was asked for; it was built for {served}")
        return min(fitting, key=lambda i: (ranges[i][1] != batch, ranges[i][2]))

    def _batches(self) -> Iterator[tuple[int, int, int]]:
        """Smallest, usual and largest batch of each profile."""
        first = next(iter(self.contract.inputs))
        for profile in range(self._engine.num_optimization_profiles):
            low, usual, high = (shape[0] for shape in self._engine.get_tensor_profile_shape(first, profile))
            yield low, usual, high

    def _shaped(self, batch: int, stream: Stream) -> Any:
        """A context with the profile and the shapes of a batch, which any stream may run once it has memory.

        The library may copy in `stream` when the profile changes, and leaves it to the caller to wait for that.
        Source: NvInferRuntime.h, IExecutionContext::setOptimizationProfileAsync.
        """
        profile, context = self._profile(batch), self._context()
        if context.active_optimization_profile != profile:
            self.require(context.set_optimization_profile_async(profile, stream.handle), "change its profile")
            stream.synchronize()
        for name, tensor in self.contract.inputs.items():
            self.require(context.set_input_shape(name, (batch, *tensor.shape)), f"take {batch} rows of {name!r}")
        return context

    def _needed(self, context: Any) -> int:
        """Bytes of scratch for the shapes that are set; the context has them partitioned so from now on.

        A size of 0 is an error or no need (the same header, updateDeviceMemorySizeForShapes): then the upper bound of
        the profile, which is right in both cases.
        """
        profile = context.active_optimization_profile
        upper = self._engine.get_device_memory_size_for_profile_v2(profile)
        return int(context.update_device_memory_size_for_shapes() or upper)

    def _context(self) -> Any:
        context = self._engine.create_execution_context(self._runtime_settings())
        if context is None:
            raise BackendRunError(f"{self.stage} engine: {self.library} makes no context for it: {self._words()}")
        return context

    def _runtime_settings(self) -> Any:
        """How a context behaves; the library that finishes kernels at run time has more to be told."""
        trt = self.library.trt
        settings = self._engine.create_runtime_config()
        settings.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if hasattr(trt, "CudaGraphStrategy"):  # the pipeline records graphs around the engine, not the engine itself
            settings.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
        if hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
            # lazily, a thread beside would compile while a graph is recorded, which then keeps the slower kernels
            settings.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        if hasattr(settings, "create_runtime_cache"):
            self._compiled = self._compiled or settings.create_runtime_cache()
            settings.set_runtime_cache(self._compiled)
        return settings


class TensorRtRun:
    """An execution context with its addresses bound."""

    def __init__(self, engine: TensorRtEngine, context: Any, stream: Stream) -> None:
        self._context = context  # the first to go, in this order: it uses what the engine and the stream hold
        self._engine, self._stream = engine, stream
        self._has_run = False

    @property
    def capturable(self) -> bool:
        """Never before the first run, which may allocate and compile; after it, what the library says of it."""
        if not self._has_run:
            return False
        if not hasattr(self._context, "is_stream_capturable"):
            return True
        with self._engine.gpu.current():
            return bool(self._context.is_stream_capturable(self._stream.handle))

    def enqueue(self, stream: Stream) -> None:
        with self._engine.gpu.current():
            done = self._context.execute_async_v3(stream.handle)
        self._engine.require(done, "run")
        self._has_run = True
