"""Runs TensorRT and TensorRT-RTX engines on the GPU.

TensorRT-RTX compiles kernels for the GPU and the batch size when an engine is bound and first run, which takes seconds.
All bindings of an engine share the compiled kernels. They are kept in memory only, because on disk they would be code
that no hash in the manifest verifies.
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
    """A deserialized engine. Every binding has its own execution context, with memory of the caller."""

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
        """Runtime cache of compiled kernels, created with the first context."""
        self._scratch: dict[int, int] = {}
        """Batch size -> bytes of scratch memory."""
        self._spare: dict[int, Any] = {}
        """Batch size -> context that was created to query them, for the first binding."""

    def scratch_bytes(self, batch: int) -> int:
        """Bytes for this batch size; if the library does not report them, those of the profile's maximum batch size."""
        with self._binding, self.gpu.current():
            if batch not in self._scratch:
                with self.gpu.stream() as stream:
                    self._spare[batch] = self._shaped(batch, stream)
                self._scratch[batch] = self._needed(self._spare[batch])
        return self._scratch[batch]

    def bind(self, tensors: Addresses, *, batch: int, scratch: int, stream: Stream) -> "TensorRtRun":
        available = self.scratch_bytes(batch)
        with self._binding, self.gpu.current():
            context = self._spare.pop(batch, None)
            if context is None:
                context = self._shaped(batch, stream)
                self._require_enough(self._needed(context), available, batch)
            context.set_device_memory(scratch, available)
            for name in (*self.contract.inputs, *self.contract.outputs):
                self.require(context.set_tensor_address(name, tensors[name]), f"set the address of {name!r}")
        return TensorRtRun(self, context, stream)

    def require(self, done: bool, what: str) -> None:
        """Raises BackendRunError with the library's messages if a call has returned False."""
        if not done:
            raise BackendRunError(f"{self.stage} engine: {self.library} cannot {what}: {self._errors()}")

    def _require_enough(self, needed: int, available: int, batch: int) -> None:
        if needed > available:
            raise BackendRunError(
                f"{self.stage} engine: {self.library} needs {needed} bytes of scratch for a batch of {batch}, but it "
                f"reported {available} before, which were allocated. Use the engine onnx-cuda, and report this."
            )

    def _errors(self) -> str:
        """Error messages of the library since the last call."""
        messages = "; ".join(dict.fromkeys(self._log.errors)) or "the library gives no reason"
        self._log.errors.clear()
        return messages

    def _start(self) -> Any:
        try:
            runtime = self.library.trt.Runtime(self._log)
        except TypeError as error:  # the binding raises it for a null pointer
            reason = explain_library(self._errors())
            raise BackendUnavailable(f"{self.library} does not start on this machine: {reason}") from error
        runtime.engine_host_code_allowed = False  # the default; set explicitly because host code is a security risk
        return runtime

    def _deserialize(self, plan: bytes) -> Any:
        engine = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            message = self._errors()
            raise BackendBuildError(
                f"{self.stage} engine: {self.library} cannot load it: {message}. {self.library.remedy(message)}"
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
        """Index of the optimization profile for this batch size, else of the smallest profile that includes it."""
        ranges = list(self._batches())
        fitting = [i for i, (low, _, high) in enumerate(ranges) if low <= batch <= high]
        if not fitting:
            built_for = ", ".join(f"{low} to {high}" for low, _, high in ranges)
            raise BackendRunError(f"{self.stage} engine: the batch size is {batch}, expected {built_for}")
        return min(fitting, key=lambda i: (ranges[i][1] != batch, ranges[i][2]))

    def _batches(self) -> Iterator[tuple[int, int, int]]:
        """Minimum, usual and maximum batch size of each profile."""
        first = next(iter(self.contract.inputs))
        for profile in range(self._engine.num_optimization_profiles):
            low, usual, high = (shape[0] for shape in self._engine.get_tensor_profile_shape(first, profile))
            yield low, usual, high

    def _shaped(self, batch: int, stream: Stream) -> Any:
        """Create a context with the profile and shapes of a batch size; it can run on any stream after it gets memory.

        The library may copy in `stream` when the profile changes; the caller must wait for that.
        Source: NvInferRuntime.h, IExecutionContext::setOptimizationProfileAsync.
        """
        profile, context = self._profile(batch), self._context()
        if context.active_optimization_profile != profile:
            self.require(context.set_optimization_profile_async(profile, stream.handle), "change its profile")
            stream.synchronize()
        for name, tensor in self.contract.inputs.items():
            self.require(context.set_input_shape(name, (batch, *tensor.shape)), f"set {batch} rows for {name!r}")
        return context

    def _needed(self, context: Any) -> int:
        """Bytes of scratch memory for the current shapes; the call also sets the context's partition of the memory.

        A size of 0 means either an error or that none is needed (NvInferRuntime.h, updateDeviceMemorySizeForShapes).
        The profile's upper bound is returned then, which is sufficient in both cases.
        """
        profile = context.active_optimization_profile
        upper = self._engine.get_device_memory_size_for_profile_v2(profile)
        return int(context.update_device_memory_size_for_shapes() or upper)

    def _context(self) -> Any:
        context = self._engine.create_execution_context(self._runtime_settings())
        if context is None:
            raise BackendRunError(f"{self.stage} engine: {self.library} cannot create a context: {self._errors()}")
        return context

    def _runtime_settings(self) -> Any:
        """Settings of a context; some exist only in TensorRT-RTX, which compiles kernels at run time."""
        trt = self.library.trt
        settings = self._engine.create_runtime_config()
        settings.set_execution_context_allocation_strategy(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if hasattr(trt, "CudaGraphStrategy"):  # disabled because the pipeline captures the engine in its own graph
            settings.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
        if hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
            # with lazy compilation in another thread, a captured graph would keep the slower generic kernels
            settings.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        if hasattr(settings, "create_runtime_cache"):
            self._compiled = self._compiled or settings.create_runtime_cache()
            settings.set_runtime_cache(self._compiled)
        return settings


class TensorRtRun:
    """An execution context with bound addresses."""

    def __init__(self, engine: TensorRtEngine, context: Any, stream: Stream) -> None:
        self._context = context  # first, because attributes are freed in this order and it uses engine and stream
        self._engine, self._stream = engine, stream
        self._has_run = False

    @property
    def capturable(self) -> bool:
        """False before the first run, which may allocate and compile; afterwards as reported by the library."""
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
