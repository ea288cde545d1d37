"""Builds one engine from one typed graph, with the same code for both libraries and all their releases.

- Networks are strongly typed: the graph determines the precision, and no builder flag changes it. TF32 is disabled,
  because it is on by default and reduces the mantissa of FP32 convolutions to ten bits.
- Optimization profiles are ranges of batch sizes, never a single size: if the first profile is a single size,
  TensorRT-RTX fixes batch 1 in the outputs of the engine, also for its other profiles. Kernels are optimized for the
  usual size; TensorRT-RTX compiles kernels again for each size that occurs.
- The fusion engine has no output `saliency`, because a kernel computes it; see `NetworkSpec.contract`.
- A build fails if the parsed network does not have the requested precision, or if the layer report contradicts it. A
  precision that the report does not confirm is recorded; see `require_typed` and `layers`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import prod
from threading import Event
from typing import Any

from glam_deploy.bundle.onnx_file import require_plain_graph
from glam_deploy.errors import BackendBuildError, BackendUnavailable, BundleError
from glam_deploy.gpu.device.driver import explain_library
from glam_deploy.gpu.engines.tensorrt import layers, report
from glam_deploy.gpu.engines.tensorrt.callbacks import Progress, interruptible, logger, monitor
from glam_deploy.gpu.engines.tensorrt.flavours import Library
from glam_deploy.gpu.engines.tensorrt.layers import Convolution, percent
from glam_deploy.networks import GraphContract, Stage
from glam_deploy.precision import Precision


@dataclass(frozen=True, kw_only=True)
class TypedConvolution:
    """A convolution and its types in the parsed network."""

    convolution: Convolution
    types: tuple[str, str, str]
    """Types of input, kernel and output: "fp32", "fp16", "bf16", or the library's name of another type."""


def require_typed(trt: Any, network: Any, stage: Stage, precision: Precision) -> list[Convolution]:
    """Returns the convolutions of a network, after checking that it is strongly typed and all are in `precision`.

    Raises BackendBuildError if it is weakly typed, or a convolution has an input, kernel or output of another type.
    """
    _require_strong(trt, network, stage)
    found = list(_convolutions(trt, network))
    if wrong := [c for c in found if set(c.types) != {precision}]:
        raise BackendBuildError(_wrong_types(stage, precision, found, wrong))
    return [c.convolution for c in found]


def _require_strong(trt: Any, network: Any, stage: Stage) -> None:
    """Raises BackendBuildError for a weakly typed network, the default of releases with precision flags (10)."""
    if hasattr(trt.BuilderFlag, "FP16") and not network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED):
        raise BackendBuildError(
            f"{stage} graph: the parsed network is weakly typed, so the builder may choose any precision; expected a "
            f"strongly typed network. Please report this with the library's version, {trt.__version__}."
        )


def _wrong_types(
    stage: Stage, precision: Precision, found: Sequence[TypedConvolution], wrong: Sequence[TypedConvolution]
) -> str:
    work = [sum(c.convolution.multiply_adds for c in some) for some in (found, wrong)]
    first = wrong[0]
    return (
        f"{stage} graph: in the parsed network only {percent((work[0] - work[1]) / work[0])} of the multiply-adds of "
        f"its convolutions are {precision}, expected 100%. {first.convolution.name} has input, kernel and output of "
        f"type {', '.join(first.types)}. No engine was built. "
        f"Export the checkpoint again with --precision {precision}."
    )


def _convolutions(trt: Any, network: Any) -> Iterator[TypedConvolution]:
    names = {trt.DataType.FLOAT: "fp32", trt.DataType.HALF: "fp16", trt.DataType.BF16: "bf16"}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == trt.LayerType.CONVOLUTION:
            layer.__class__ = trt.IConvolutionLayer  # the binding returns the base class
            types = (layer.get_input(0).dtype, _kernel_type(trt, layer), layer.get_output(0).dtype)
            kinds = tuple(names.get(kind, str(kind)) for kind in types)
            yield TypedConvolution(convolution=_convolution(layer), types=(kinds[0], kinds[1], kinds[2]))


def _convolution(layer: Any) -> Convolution:
    taps = prod(layer.kernel_size_nd) * layer.get_input(0).shape[1] // layer.num_groups
    weights = taps * layer.num_output_maps
    return Convolution(name=layer.name, weights=weights, multiply_adds=weights * prod(layer.get_output(0).shape[2:]))


def _kernel_type(trt: Any, layer: Any) -> Any:
    """Type of a convolution's kernel.

    A computed kernel is the second input. A constant kernel is an array, or `Weights` in BF16.
    """
    if (computed := layer.get_input(1)) is not None:
        return computed.dtype
    kind = layer.kernel.dtype
    return {"float32": trt.DataType.FLOAT, "float16": trt.DataType.HALF}.get(getattr(kind, "name", ""), kind)


PROFILES: Mapping[Stage, Sequence[tuple[int, int, int]]] = {
    "global": ((1, 1, 4), (1, 4, 4)),
    "local": ((1, 1, 6), (1, 4, 24)),
    "fusion": ((1, 1, 4), (1, 4, 4)),
}
"""Minimum, usual and maximum batch size of each profile: one profile for a view, one for an exam of four views.

A batch row of the local graph is a patch: 1 to 6 for a view, up to 24 for an exam.
"""


@dataclass(frozen=True, kw_only=True)
class StageRequest:
    """Graph, precision and target of one engine."""

    stage: Stage
    graph: bytes
    """Content of the ONNX file."""
    contract: GraphContract
    precision: Precision
    compute_capabilities: Sequence[str] = ()
    """Target compute capabilities, for a library with ahead-of-time builds; one that the library does not list is the
    capability of this machine's GPU."""
    timing_cache: bytes | None = None
    """Timing cache of an earlier build with the same library on the same GPU."""
    current: Callable[[], AbstractContextManager[None]] = nullcontext
    """Context manager that makes this machine's GPU current in a thread."""


@dataclass(frozen=True, kw_only=True)
class BuiltStage:
    """A built engine that is not yet stored."""

    engine: bytes
    verdict: layers.Verdict
    """Precision according to the layer report."""
    timing_cache: bytes | None
    warnings: tuple[str, ...]
    """Warnings of the library."""

    @property
    def share(self) -> float | None:
        """Share of the convolutions' multiply-adds whose precision the layer report confirms, 0..1; None if unknown."""
        return self.verdict.share


def options(library: Library) -> dict[str, object]:
    """Options of the build, as JSON values; they are part of the engines' key."""
    return {
        "profiles": {stage: [list(sizes) for sizes in profiles] for stage, profiles in PROFILES.items()},
        "tf32": False,
        "user_allocation": _wants_user_allocation(library.trt),
        "saliency": "composed by a kernel",
    }


def build_stage(library: Library, request: StageRequest, progress: Progress) -> BuiltStage:
    """Parse the graph, build the engine and check its precision.

    Ctrl-C stops the builder at its next step and raises KeyboardInterrupt. Raises BackendUnavailable if the library
    does not start; BackendBuildError with the library's message if it rejects the graph, and if the convolutions of the
    engine are not in the requested precision; BundleError if inputs or outputs of the graph differ from the contract,
    or if its weights are not all inside it.
    """
    with request.current():
        return _Build(library, request).run(progress)


class _Build:
    """The library's objects for one build, created in the order of their dependencies."""

    def __init__(self, library: Library, request: StageRequest) -> None:
        self.library, self.trt, self.request = library, library.trt, request
        self.log = logger(library)
        self.builder = self._started(self.trt.Builder)
        self.network = self._parsed()
        self.convolutions = require_typed(self.trt, self.network, request.stage, request.precision)
        self.config = self._configured()
        self.cache = self._timing_cache()

    def run(self, progress: Progress) -> BuiltStage:
        stopped = Event()
        self.config.progress_monitor = watcher = monitor(self.library, progress, stopped)
        plan = interruptible(self._plan, stopped)
        if watcher.error:
            raise watcher.error
        if plan is None:
            raise self._refused(self.log.errors)
        engine = bytes(plan)
        return BuiltStage(
            engine=engine,
            verdict=self._verdict(engine),
            timing_cache=bytes(self.cache.serialize()) if self.cache else None,
            warnings=tuple(dict.fromkeys(self.log.warnings)),
        )

    def _plan(self) -> Any:
        with self.request.current():
            return self.builder.build_serialized_network(self.network, self.config)

    def _started(self, make: Callable[[Any], Any]) -> Any:
        try:
            return make(self.log)
        except TypeError as error:  # the binding raises it for a null pointer
            reason = explain_library("; ".join(self.log.errors) or str(error))
            raise BackendUnavailable(f"{self.library} does not start on this machine: {reason}") from error

    def _refused(self, reasons: Sequence[str]) -> BackendBuildError:
        message = "; ".join(dict.fromkeys(reasons)).rstrip(".") or "the library gives no reason"
        return BackendBuildError(
            f"{self.request.stage} graph: {self.library} cannot build it: {message}. Try another precision or library "
            f"(--flavour), or run with --engine onnx-cuda, which needs no build."
        )

    # the network

    def _parsed(self) -> Any:
        require_plain_graph(self.request.graph, self.request.stage)
        parsed = self.builder.create_network(_network_flags(self.trt))
        parser = self.trt.OnnxParser(parsed, self.log)
        if not parser.parse(self.request.graph):
            raise self._refused([parser.get_error(i).desc() for i in range(parser.num_errors)])
        for output in _outputs(parsed):
            if output.name not in self.request.contract.outputs:
                parsed.unmark_output(output)
        self._require_contract(parsed)
        return parsed

    def _require_contract(self, parsed: Any) -> None:
        contract = self.request.contract
        for kind, found, expected in (
            ("inputs", _inputs(parsed), contract.inputs),
            ("outputs", _outputs(parsed), contract.outputs),
        ):
            actual = {t.name: (self.trt.nptype(t.dtype).__name__, *_row(t)) for t in found}
            wanted = {name: (tensor.dtype, *tensor.shape) for name, tensor in expected.items()}
            if actual != wanted:
                raise BundleError(
                    f"{self.request.stage} graph: its {kind} are {actual}, expected {wanted} for the manifest's "
                    f"network. Export the checkpoint again."
                )

    # the configuration

    def _configured(self) -> Any:
        trt, config = self.trt, self.builder.create_builder_config()
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        if hasattr(trt.BuilderFlag, "TF32"):
            config.clear_flag(trt.BuilderFlag.TF32)
        if _wants_user_allocation(trt):
            config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
        if self.library.targets:
            self._set_targets(config)
        for sizes in PROFILES[self.request.stage]:
            if config.add_optimization_profile(self._profile(sizes)) < 0:
                raise self._refused([f"it does not accept the batch sizes {sizes}", *self.log.errors])
        return config

    def _set_targets(self, config: Any) -> None:
        config.num_compute_capabilities = len(self.request.compute_capabilities)
        for index, capability in enumerate(self.request.compute_capabilities):
            target = self.library.targets.get(capability, self.trt.ComputeCapability.CURRENT)
            if not config.set_compute_capability(target, index):
                raise self._refused([f"it does not accept compute capability {capability}", *self.log.errors])

    def _profile(self, sizes: Sequence[int]) -> Any:
        profile = self.builder.create_optimization_profile()
        for tensor in _inputs(self.network):
            profile.set_shape(tensor.name, *((size, *_row(tensor)) for size in sizes))
        return profile

    def _timing_cache(self) -> Any:
        """Timing cache of a builder that times kernels on this machine's GPU; None for ahead-of-time builds.

        A library with ahead-of-time builds has the same functions, but it times nothing and they require a GPU.
        """
        if self.library.targets:
            return None
        cache = self.config.create_timing_cache(self.request.timing_cache or b"")
        if cache is None or not self.config.set_timing_cache(cache, False):  # it is of another library or GPU
            cache = self.config.create_timing_cache(b"")
            self.config.set_timing_cache(cache, False)
        return cache

    # check of the precision

    def _verdict(self, engine: bytes) -> layers.Verdict:
        request = self.request
        return layers.judge(
            request.stage,
            request.precision,
            self.convolutions,
            self._reports(engine),
            float_inputs=request.contract.inputs,
        )

    def _reports(self, engine: bytes) -> Iterator[str]:
        """The forms of the layer report; first the one that is available without opening the engine."""
        if self.log.report:
            yield self.log.report
        if not self.library.targets:  # an engine built ahead of time may be for other GPUs and cannot be opened here
            yield from report.reports(self.trt, self._opened(engine))

    def _opened(self, engine: bytes) -> Any:
        opened = self._started(self.trt.Runtime).deserialize_cuda_engine(engine)
        if opened is None:
            raise self._refused(["it cannot open its own engine", *self.log.errors])
        return opened


def _network_flags(trt: Any) -> int:
    """Creation flags for strong typing; the newest releases have no flag because all networks are strongly typed."""
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if typed is None else 1 << int(typed)


def _wants_user_allocation(trt: Any) -> bool:
    """Whether the caller can be required to allocate all device memory, which TensorRT-RTX needs for CUDA graphs."""
    return hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION")


def _inputs(network: Any) -> list[Any]:
    return [network.get_input(index) for index in range(network.num_inputs)]


def _outputs(network: Any) -> list[Any]:
    return [network.get_output(index) for index in range(network.num_outputs)]


def _row(tensor: Any) -> tuple[int, ...]:
    """Shape without the batch axis."""
    return tuple(tensor.shape)[1:]
