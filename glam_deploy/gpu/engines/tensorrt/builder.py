"""One typed graph -> one engine. The same path for both libraries and all their releases.

- Networks are strongly typed: the precision stands in the graph, and no builder flag changes it. TF32 is switched off,
  for it is on by default and gives FP32 convolutions ten bits of mantissa.
- Optimization profiles are ranges of batches, none of them a single size: TensorRT-RTX writes batch 1 into the outputs
  of an engine whose first profile is one size, also for its other profiles. Kernels are chosen for the size that is
  usual, and TensorRT-RTX compiles them anew for each size that it meets.
- The fusion engine does not give `saliency`, which a kernel composes; see `NetworkSpec.contract`.
- The parsed network must have the precision, and the layer report must not contradict it, or there is no engine. What
  the report does not say is noted; see `require_typed` and `layers`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import prod
from threading import Event
from typing import Any

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
    """A convolution with the types that the network gives it."""

    convolution: Convolution
    types: tuple[str, str, str]
    """Of its input, kernel and output: "fp32", "fp16", "bf16", or the library's own name of another."""


def require_typed(trt: Any, network: Any, stage: Stage, precision: Precision) -> list[Convolution]:
    """The convolutions of a network that is strongly typed, and all of them in `precision`.

    Raises BackendBuildError where it is not, or one of them has an input, kernel or output of another type.
    """
    _require_strong(trt, network, stage)
    found = list(_convolutions(trt, network))
    if wrong := [c for c in found if set(c.types) != {precision}]:
        raise BackendBuildError(_wrong_types(stage, precision, found, wrong))
    return [c.convolution for c in found]


def _require_strong(trt: Any, network: Any, stage: Stage) -> None:
    """Where the builder knows precision flags (release 10), networks are weakly typed unless they are told."""
    if hasattr(trt.BuilderFlag, "FP16") and not network.get_flag(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED):
        raise BackendBuildError(
            f"{stage} graph: the library made a weakly typed network of it, in which a builder may take any precision. "
            f"Please report this with the library's version, {trt.__version__}."
        )


def _wrong_types(
    stage: Stage, precision: Precision, found: Sequence[TypedConvolution], wrong: Sequence[TypedConvolution]
) -> str:
    work = [sum(c.convolution.multiply_adds for c in some) for some in (found, wrong)]
    first = wrong[0]
    return (
        f"{stage} graph: the engine was to compute in {precision}, but in the network only "
        f"{percent((work[0] - work[1]) / work[0])} of the multiply-adds of its convolutions do; 100% are expected. "
        f"{first.convolution.name} has input, kernel and output of type {', '.join(first.types)}. No engine was built. "
        f"Export the checkpoint again with --precision {precision}."
    )


def _convolutions(trt: Any, network: Any) -> Iterator[TypedConvolution]:
    names = {trt.DataType.FLOAT: "fp32", trt.DataType.HALF: "fp16", trt.DataType.BF16: "bf16"}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        if layer.type == trt.LayerType.CONVOLUTION:
            layer.__class__ = trt.IConvolutionLayer  # the binding hands out the base class
            types = (layer.get_input(0).dtype, _kernel_type(trt, layer), layer.get_output(0).dtype)
            kinds = tuple(names.get(kind, str(kind)) for kind in types)
            yield TypedConvolution(convolution=_convolution(layer), types=(kinds[0], kinds[1], kinds[2]))


def _convolution(layer: Any) -> Convolution:
    taps = prod(layer.kernel_size_nd) * layer.get_input(0).shape[1] // layer.num_groups
    weights = taps * layer.num_output_maps
    return Convolution(name=layer.name, weights=weights, multiply_adds=weights * prod(layer.get_output(0).shape[2:]))


def _kernel_type(trt: Any, layer: Any) -> Any:
    """A kernel that the network computes is the second input. A constant one is an array, or `Weights` in BF16."""
    if (computed := layer.get_input(1)) is not None:
        return computed.dtype
    kind = layer.kernel.dtype
    return {"float32": trt.DataType.FLOAT, "float16": trt.DataType.HALF}.get(getattr(kind, "name", ""), kind)


PROFILES: Mapping[Stage, Sequence[tuple[int, int, int]]] = {
    "global": ((1, 1, 4), (1, 4, 4)),
    "local": ((1, 1, 6), (1, 4, 24)),
    "fusion": ((1, 1, 4), (1, 4, 4)),
}
"""Smallest, usual and largest batch of each profile: one for a view, one for an exam of four.

A batch row of the local graph is a patch: 1 to 6 of a view, up to 24 of an exam.
"""


@dataclass(frozen=True, kw_only=True)
class StageRequest:
    """What one engine is built from and for."""

    stage: Stage
    graph: bytes
    """ONNX."""
    contract: GraphContract
    precision: Precision
    compute_capabilities: Sequence[str] = ()
    """Targets, for a library that takes them; one that it has no name for is that of the GPU at hand."""
    timing_cache: bytes | None = None
    """What an earlier build of the same library on the same GPU has measured."""
    current: Callable[[], AbstractContextManager[None]] = nullcontext
    """Makes the GPU at hand the current one of a thread, inside a block."""


@dataclass(frozen=True, kw_only=True)
class BuiltStage:
    """An engine, not yet in its place."""

    engine: bytes
    verdict: layers.Verdict
    """What the layer report says of its precision."""
    timing_cache: bytes | None
    warnings: tuple[str, ...]
    """The library's own words."""

    @property
    def share(self) -> float | None:
        """Of the convolutions' arithmetic, what the layer report confirms to be of the precision asked for, 0..1."""
        return self.verdict.share


def options(library: Library) -> dict[str, object]:
    """What engines are built with, JSON-ready; a change of it makes other engines."""
    return {
        "profiles": {stage: [list(sizes) for sizes in profiles] for stage, profiles in PROFILES.items()},
        "tf32": False,
        "user_allocation": _wants_user_allocation(library.trt),
        "saliency": "composed by a kernel",
    }


def build_stage(library: Library, request: StageRequest, progress: Progress) -> BuiltStage:
    """Parse, build, examine the precision.

    Ctrl-C stops the builder at its next step and raises KeyboardInterrupt. Raises BackendUnavailable where the library
    does not start, BackendBuildError in the library's words where it refuses the graph, and where the engine's
    convolutions are not of the precision; BundleError where the graph is not the contract's.
    """
    with request.current():
        return _Build(library, request).run(progress)


class _Build:
    """The library's objects for one engine, in the order in which they need each other."""

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
        except TypeError as error:  # what the binding makes of a null pointer
            reason = explain_library("; ".join(self.log.errors) or str(error))
            raise BackendUnavailable(f"{self.library} does not start on this machine: {reason}") from error

    def _refused(self, reasons: Sequence[str]) -> BackendBuildError:
        words = "; ".join(dict.fromkeys(reasons)).rstrip(".") or "it gives no reason"
        return BackendBuildError(
            f"{self.request.stage} graph: {self.library} cannot build it: {words}. Try another precision or library "
            f"(--flavour), or run with --engine onnx-cuda, which needs no build."
        )

    # the network

    def _parsed(self) -> Any:
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
            has = {t.name: (self.trt.nptype(t.dtype).__name__, *_row(t)) for t in found}
            wanted = {name: (tensor.dtype, *tensor.shape) for name, tensor in expected.items()}
            if has != wanted:
                raise BundleError(
                    f"{self.request.stage} graph: its {kind} are {has}, the manifest's network has {wanted}. Export "
                    f"the checkpoint again."
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
                raise self._refused([f"it does not take the batches {sizes}", *self.log.errors])
        return config

    def _set_targets(self, config: Any) -> None:
        config.num_compute_capabilities = len(self.request.compute_capabilities)
        for index, capability in enumerate(self.request.compute_capabilities):
            target = self.library.targets.get(capability, self.trt.ComputeCapability.CURRENT)
            if not config.set_compute_capability(target, index):
                raise self._refused([f"it does not take compute capability {capability}", *self.log.errors])

    def _profile(self, sizes: Sequence[int]) -> Any:
        profile = self.builder.create_optimization_profile()
        for tensor in _inputs(self.network):
            profile.set_shape(tensor.name, *((size, *_row(tensor)) for size in sizes))
        return profile

    def _timing_cache(self) -> Any:
        """Where a builder that times kernels on the GPU at hand keeps what it measured; None for the other kind.

        A library that builds ahead of time has the functions too, but then it measures nothing and asks for a GPU.
        """
        if self.library.targets:
            return None
        cache = self.config.create_timing_cache(self.request.timing_cache or b"")
        if cache is None or not self.config.set_timing_cache(cache, False):  # of another library or GPU: begin anew
            cache = self.config.create_timing_cache(b"")
            self.config.set_timing_cache(cache, False)
        return cache

    # what came of it

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
        """The forms of the layer report, the one that costs nothing first."""
        if self.log.report:
            yield self.log.report
        if not self.library.targets:  # else the engine is for other GPUs than the one at hand
            yield from report.reports(self.trt, self._opened(engine))

    def _opened(self, engine: bytes) -> Any:
        opened = self._started(self.trt.Runtime).deserialize_cuda_engine(engine)
        if opened is None:
            raise self._refused(["it cannot open its own engine", *self.log.errors])
        return opened


def _network_flags(trt: Any) -> int:
    """Strong typing, which the newest releases do without being told."""
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if typed is None else 1 << int(typed)


def _wants_user_allocation(trt: Any) -> bool:
    """All device memory comes from the caller, without which TensorRT-RTX cannot be captured in a CUDA graph."""
    return hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION")


def _inputs(network: Any) -> list[Any]:
    return [network.get_input(index) for index in range(network.num_inputs)]


def _outputs(network: Any) -> list[Any]:
    return [network.get_output(index) for index in range(network.num_outputs)]


def _row(tensor: Any) -> tuple[int, ...]:
    """Axes without the batch."""
    return tuple(tensor.shape)[1:]
