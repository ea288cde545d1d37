"""The installed TensorRT library on one small convolution, before minutes are spent on the networks.

Shows where its bindings, layer reports, sizes and recordings differ from what this package expects. All messages and
reports of the library are kept whole, in files beside the record.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from glam_bench.gpu import contract
from glam_bench.gpu.clock import recorded
from glam_bench.gpu.plan import GpuContext
from glam_deploy.errors import BackendBuildError, BackendRunError, GlamError
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.engines.tensorrt import flavours
from glam_deploy.gpu.engines.tensorrt.flavours import Library
from glam_deploy.precision import Precision

CHANNELS, KERNELS, SIDE = 8, 16, 32
PROFILE = (1, 2, 4)
"""Smallest, usual and largest batch."""
BATCHES = (1, 4)
TYPES: dict[Precision, tuple[int, type[np.floating[Any]], tuple[str, ...]]] = {
    "fp16": (TensorProto.FLOAT16, np.float16, ("Half", "FP16", "half")),
    "fp32": (TensorProto.FLOAT, np.float32, ("Float", "FP32", "float")),
}
"""ONNX's type, numpy's, and the names that reports may have for it."""
TOLERANCE: dict[Precision, float] = {"fp16": 2e-2, "fp32": 1e-4}
"""Largest difference from numpy for sums of 72 products; ten bits of mantissa (TF32) are further off in fp32."""
RECORDED = "recorded"
LAYERS = "Layers:"
"""How the builder's log line with the layers begins."""


def run(context: GpuContext) -> None:
    """One trial for each precision. Raises BackendUnavailable where the flavour is not installed."""
    library = flavours.load(flavours.find(context.argument))
    lacking = contract.differences(library.trt, rtx=context.argument == "tensorrt-rtx")
    differs = [f"bindings: {line}" for line in lacking]
    context.add(library=str(library), differs=differs)
    gpu = Gpu(context.options.device)
    for precision in TYPES:
        trial = Trial(library=library, gpu=gpu, precision=precision)
        try:
            trial.run()
        except GlamError as error:
            trial.differs.append(str(error))
        finally:
            saved = trial.save(context)
        differs += [f"{precision}: {line}" for line in trial.differs]
        context.add(**{precision: {**trial.found, "files": saved}}, differs=differs)


@dataclass(kw_only=True)
class Trial:
    """One convolution in one precision: built, inspected, run, recorded."""

    library: Library
    gpu: Gpu
    precision: Precision
    said: dict[str, str] = field(default_factory=dict)
    """Ending of a file name -> a report of the library, whole."""
    found: dict[str, Any] = field(default_factory=dict)
    differs: list[str] = field(default_factory=list)
    """Differences from what this package expects."""
    log: Any = None
    """The library's logger, for all of its objects."""

    def __post_init__(self) -> None:
        self.log = diary(self.library.trt)

    def run(self) -> None:
        """Raises BackendBuildError and BackendRunError where the library fails."""
        with self.gpu.current():
            plan = self.built()
            self._read_log()
            engine = self._opened(plan)
            self._inspect(engine)
            for batch in BATCHES:
                self._execute(engine, batch)

    def save(self, context: GpuContext) -> list[str]:
        """Write log and reports; returns the names of the files."""
        log = "".join(f"[{severity}] {words}\n" for severity, words in self.log.lines)
        files = {"log.txt": log, **self.said}
        return [context.keep(f"{context.argument}-{self.precision}.{ending}", text) for ending, text in files.items()]

    # building

    def built(self) -> Any:
        """The serialized engine."""
        trt = self.library.trt
        builder = trt.Builder(self.log)
        typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        network = builder.create_network(0 if typed is None else 1 << int(typed))
        parser = trt.OnnxParser(network, self.log)
        if not parser.parse(graph(self.precision)):
            raise self._refused("parse the graph")
        config = builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        config.clear_flag(trt.BuilderFlag.TF32)
        if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):
            config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
        profile = builder.create_optimization_profile()
        profile.set_shape("x", *((batch, CHANNELS, SIDE, SIDE) for batch in PROFILE))
        config.add_optimization_profile(profile)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise self._refused("build it")
        self.found["engine_bytes"] = len(bytes(plan))
        return plan

    def _refused(self, what: str) -> BackendBuildError:
        return BackendBuildError(f"the library cannot {what}: {self.log.errors()}")

    def _opened(self, plan: Any) -> Any:
        runtime = self.library.trt.Runtime(self.log)
        runtime.engine_host_code_allowed = False
        engine = runtime.deserialize_cuda_engine(bytes(plan))
        if engine is None:
            raise self._refused("load its own engine")
        return engine

    # reports

    def _read_log(self) -> None:
        reports = [words for _, words in self.log.lines if words.startswith(LAYERS)]
        if not reports:
            self.differs.append(f"the builder's log has no message that begins with {LAYERS!r}")
        self._keep("layers.txt", "\n\n".join(reports), must_tell=False)

    def _inspect(self, engine: Any) -> None:
        trt = self.library.trt
        inspector = engine.create_engine_inspector()
        text = str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
        self._keep("inspector.json", text, must_tell=False)
        inspector.execution_context = self.shaped(engine, PROFILE[1])
        text = str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
        self._keep("inspector-with-shapes.json", text, must_tell=True)

    def _keep(self, ending: str, text: str, *, must_tell: bool) -> None:
        """Keep a report, and note which of the known names of types it contains."""
        self.said[ending] = text
        told = sorted({word for _, _, words in TYPES.values() for word in words if word in text})
        self.found.setdefault("types_told", {})[ending] = told
        if must_tell and not set(told) & set(TYPES[self.precision][2]):
            self.differs.append(f"{ending} does not tell {' or '.join(TYPES[self.precision][2][:2])}; it has {told}")

    # running

    def shaped(self, engine: Any, batch: int) -> Any:
        """A context for a batch, without memory. Raises BackendRunError."""
        settings = engine.create_runtime_config()
        settings.set_execution_context_allocation_strategy(
            self.library.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        context = engine.create_execution_context(settings)
        if context is None or not context.set_input_shape("x", (batch, CHANNELS, SIDE, SIDE)):
            raise BackendRunError(f"no context for a batch of {batch}: {self.log.errors()}")
        return context

    def _execute(self, engine: Any, batch: int) -> None:
        """Against numpy, then recorded, and the recording against the run before it."""
        bound = Bound(self, engine, batch)
        told = self.found.setdefault(f"batch {batch}", {"scratch_bytes": bound.scratch.nbytes})
        bound.enqueue()
        plain = bound.result()
        told["largest_difference"] = off = float(np.abs(plain.astype(np.float64) - bound.expected).max())
        if not off <= TOLERANCE[self.precision]:
            self.differs.append(f"a batch of {batch} is {off:.2g} from numpy, {TOLERANCE[self.precision]} expected")
        told["recording"] = reason = bound.again()
        if reason != RECORDED:
            self.differs.append(f"a batch of {batch} cannot be recorded: {reason}")
        if not np.array_equal(bound.result(), plain):
            self.differs.append(f"a batch of {batch}, run again ({reason}), gives other numbers")


class Bound:
    """An execution context with memory for one batch."""

    def __init__(self, trial: Trial, engine: Any, batch: int) -> None:
        self._trial, self._batch = trial, batch
        self._context = trial.shaped(engine, batch)
        self._stream = trial.gpu.stream()
        image, self.expected = example(trial.precision, batch)
        self._dtype = image.dtype
        self.scratch = trial.gpu.allocate(self._scratch_bytes(engine))
        self._image = trial.gpu.allocate(image.nbytes)
        self._target = trial.gpu.allocate(self.expected.size * image.dtype.itemsize)
        self._stream.copy_in(self._image.address, image.ctypes.data, image.nbytes)
        self._stream.synchronize()
        self._context.set_device_memory(self.scratch.address, self.scratch.nbytes)
        for name, memory in (("x", self._image), ("y", self._target)):
            if not self._context.set_tensor_address(name, memory.address):
                raise BackendRunError(f"no address for {name}: {trial.log.errors()}")

    def _scratch_bytes(self, engine: Any) -> int:
        upper = int(engine.get_device_memory_size_for_profile_v2(self._context.active_optimization_profile))
        needed = int(self._context.update_device_memory_size_for_shapes())
        self._trial.found["scratch_bytes_of_profile"] = upper
        if needed > upper:
            words = f"a batch of {self._batch} needs {needed} bytes of scratch, its profile {upper}"
            self._trial.differs.append(words)
        return max(needed or upper, 1)

    def enqueue(self) -> None:
        """Raises BackendRunError."""
        if not self._context.execute_async_v3(self._stream.handle):
            raise BackendRunError(f"a batch of {self._batch} does not run: {self._trial.log.errors()}")

    def result(self) -> NDArray[Any]:
        """The result, once the run is done."""
        values = np.empty(self.expected.shape, self._dtype)
        self._stream.copy_out(values.ctypes.data, self._target.address, values.nbytes)
        self._stream.synchronize()
        return values

    def again(self) -> str:
        """Another run into emptied memory, as a CUDA graph: RECORDED, or why it ran without one."""
        self._stream.fill(self._target.address, self._target.nbytes, 0)
        self._stream.synchronize()
        try:
            graph = recorded(self._stream, self.enqueue)
        except BackendRunError as error:
            self.enqueue()
            return str(error)
        graph.launch(self._stream)
        self._stream.synchronize()
        return RECORDED


def graph(precision: Precision) -> bytes:
    """ONNX: y = conv(x, w), 3 x 3 with padding; axis 0 is dynamic."""
    kind = TYPES[precision][0]
    kernel = numpy_helper.from_array(weights(precision), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1, 1, 1, 1])
    x, y = (
        helper.make_tensor_value_info(name, kind, ["batch", channels, SIDE, SIDE])
        for name, channels in (("x", CHANNELS), ("y", KERNELS))
    )
    model = helper.make_model(
        helper.make_graph([node], "one convolution", [x], [y], [kernel]), opset_imports=[helper.make_opsetid("", 18)]
    )
    model.ir_version = 9
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def weights(precision: Precision) -> NDArray[Any]:
    """[KERNELS, CHANNELS, 3, 3], in the type."""
    values = np.random.default_rng(7).standard_normal((KERNELS, CHANNELS, 3, 3)) / 8
    return values.astype(TYPES[precision][1])


def example(precision: Precision, batch: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """An image in the type, and numpy's result from the same numbers in FP64."""
    shape = (batch, CHANNELS, SIDE, SIDE)
    image = np.random.default_rng(batch).standard_normal(shape).astype(TYPES[precision][1])
    padded = np.pad(image.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return image, np.einsum("nchwij,kcij->nkhw", windows, weights(precision).astype(np.float64))


def diary(trt: Any) -> Any:
    """A logger of the library that keeps messages of every severity: `lines` and `errors()`."""
    base = trt.ILogger

    class Log(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.lines: list[tuple[str, str]] = []

        def log(self, severity: Any, msg: str) -> None:
            self.lines.append((str(getattr(severity, "name", severity)), msg))

        def errors(self) -> str:
            """The error messages so far."""
            return "; ".join(dict.fromkeys(_errors(self.lines))) or "it gives no reason"

    return Log()


def _errors(lines: list[tuple[str, str]]) -> Iterator[str]:
    return (words for severity, words in lines if severity in {"INTERNAL_ERROR", "ERROR"})
