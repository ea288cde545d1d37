"""Interfaces of an engine, which runs the graph of one stage, and of a chain, which runs all stages of a view."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from glam_deploy.errors import BackendRunError, BundleError, UsageError
from glam_deploy.json_records import json_sha256
from glam_deploy.networks import GraphContract, NetworkSpec, Stage, Tensor
from glam_deploy.precision import Form, Precision, StageRecipes
from glam_deploy.records import ChainInput, Findings


@dataclass(frozen=True, kw_only=True)
class EngineIdentity:
    """Identity of an opened engine: the JSON object "engine" in a result's provenance, with the fields as keys."""

    name: str
    """Its name in `engines.registry`, such as "openvino-bf16"."""
    library: str
    """Name and version of the inference library."""
    device: str
    """"cpu", or the name of the GPU."""
    precision: StageRecipes
    sha256: Mapping[Stage, str]
    """Stage -> SHA-256 of the graph, engine file or weights that it runs; empty if these are not from a bundle."""
    fusion_kernels: bool = False
    """Whether CUDA kernels compute the scores of the fusion stage (`gpu.kernels.head`); `sha256` then has the hash of
    their weights, so that a gate of the fusion engine is not valid for the kernels, nor the other way round."""
    flavour: str | None = None
    """For TensorRT engines: "tensorrt" or "tensorrt-rtx"."""
    key: str | None = None
    """For TensorRT engines: `EngineEntry.key` of the bundle."""
    compute_capability: str | None = None
    """Compute capability of the GPU, such as "8.9"."""
    driver: str | None = None
    """Version of the GPU driver."""

    @property
    def digest(self) -> str:
        """SHA-256 of name, library, precision, flavour and file hashes; a gate is valid for exactly one digest.

        The device is not included, because the same engine may run on all GPUs of a model; gates record their machine.
        """
        return json_sha256(
            {
                "name": self.name,
                "library": self.library,
                "precision": str(self.precision),
                "flavour": self.flavour,
                "sha256": dict(self.sha256),
            }
        )

    def form(self, stage: Stage) -> Form:
        """Convolution algorithm of a stage.

        The recipes of the engines *-winograd do not have it: only their local stage uses Winograd convolutions.
        """
        named = stage == "local" and self.name.endswith("-winograd")
        return "winograd" if named else self.precision[stage].form


Arrays = Mapping[str, NDArray[Any]]
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Options for opening engines. `registry.open_engines` rejects options that the engine does not support."""

    threads: int | None = None
    """CPU threads of one engine; None means the library's default (all physical cores)."""
    streams: int | None = None
    """Number of concurrent runs among which the threads of an engine are divided; None means one run."""
    cache: Path | None = None
    """Folder of compiled models; None means `model_cache.default_folder`, /dev/null disables the cache."""
    precision: Precision = "fp32"
    """Precision of the graphs to run, for an engine whose name does not determine it."""
    flavour: str | None = None
    """Which TensorRT engines of the bundle: "tensorrt" or "tensorrt-rtx"; None selects those that fit the machine."""
    device: int | None = None
    """Index of the GPU in the driver's order; None means 0."""

    def __post_init__(self) -> None:
        """Raises UsageError for a number that is not a whole number in range."""
        for name, least in (("threads", 1), ("streams", 1), ("device", 0)):
            require_whole_number(name, getattr(self, name), least)


def require_whole_number(name: str, value: object, least: int) -> None:
    """Raises UsageError unless `value` is None or an int of at least `least`."""
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < least):
        raise UsageError(f"{name} = {value!r}: expected a whole number of {least} or more, or None")


class Engine(ABC):
    """Runs the graph of one stage. Thread-safe; the caller may modify the returned arrays."""

    def __init__(self, stage: Stage, *, network: NetworkSpec, composed: bool = True) -> None:
        """`composed`: whether the fusion stage outputs the fused map; see `NetworkSpec.contract`."""
        self.stage, self.network = stage, network
        self.contract: GraphContract = network.contract(stage, composed=composed)

    @abstractmethod
    def _run(self, inputs: Arrays) -> Arrays:
        """Compute all outputs of the contract from validated, C-contiguous inputs."""

    def run(self, inputs: Arrays) -> Arrays:
        """Run the graph: name -> array for inputs and outputs, as in `contract`, with the batch as axis 0.

        Raises BackendRunError for inputs with names, dtypes or shapes other than in the contract, and for NaN or
        infinite values in inputs or outputs.
        """
        self._check_inputs(inputs)
        # checking the outputs is not enough: OpenVINO's ReLU maps NaN to 0, so an image of NaN gets plausible scores
        self.require_finite_inputs(inputs)
        outputs = self._run({name: np.ascontiguousarray(inputs[name]) for name in self.contract.inputs})
        self.require_finite_outputs(outputs)
        return outputs

    def require_finite_inputs(self, inputs: Arrays) -> None:
        """Raises BackendRunError for NaN or infinite values; for callers that do not use `run`."""
        self._require_finite(inputs, "The cause is before this engine: check the code that computes its inputs.")

    def require_finite_outputs(self, outputs: Arrays) -> None:
        """Raises BackendRunError for NaN or infinite values; for callers that do not use `run`."""
        self._require_finite(outputs, "Check the bundle with `glam-deploy verify`, or use another engine.")

    def _require_finite(self, arrays: Arrays, remedy: str) -> None:
        for name, values in arrays.items():
            if not (finite := np.isfinite(values)).all():
                raise BackendRunError(
                    f"{self.stage} engine: {int((~finite).sum())} of {values.size} values of {name!r} are NaN or "
                    f"infinite. The image gets no result. {remedy}"
                )

    def _require_interface(self, inputs: Tensors, outputs: Tensors, contract: GraphContract | None = None) -> None:
        """Compare the inputs and outputs of an opened graph with `contract`, by default `self.contract`.

        Raises BundleError if they differ, because the graph is then not of the manifest's network.
        """
        contract = contract or self.contract
        for kind, found, expected in (("inputs", inputs, contract.inputs), ("outputs", outputs, contract.outputs)):
            if dict(found) != dict(expected):
                raise BundleError(
                    f"{self.stage} graph: its {kind} are {_described(found)}; expected for the manifest's network: "
                    f"{_described(expected)}. Export the checkpoint again."
                )

    def _check_inputs(self, inputs: Arrays) -> None:
        if inputs.keys() != self.contract.inputs.keys():
            raise BackendRunError(
                f"{self.stage} engine: got inputs {sorted(inputs)}, expected {sorted(self.contract.inputs)}"
            )
        batches = {values.shape[0] if values.ndim else 0 for values in inputs.values()}
        for name, expected in self.contract.inputs.items():
            values = inputs[name]
            if values.shape[1:] != expected.shape or values.dtype != expected.dtype:
                raise BackendRunError(
                    f"{self.stage} engine: {name!r} is {values.dtype} {list(values.shape)}, "
                    f"expected {expected.dtype} {['batch', *expected.shape]}"
                )
        if len(batches) != 1 or 0 in batches:
            raise BackendRunError(
                f"{self.stage} engine: batch sizes of the inputs are {sorted(batches)}, expected one common size >= 1"
            )


def _described(tensors: Tensors) -> str:
    return ", ".join(f"{name} {t.dtype} {['batch', *t.shape]}" for name, t in tensors.items())


@dataclass(frozen=True, kw_only=True)
class OpenedEngines:
    """The opened engines of a bundle. GPU engines are `gpu.engines.base.GpuEngines`."""

    engines: Mapping[Stage, Engine]
    """All stages of one network."""
    identity: EngineIdentity
    streams: int = 1
    """Number of concurrent runs for which they were opened."""

    def __post_init__(self) -> None:
        """Raises ValueError for stages of different networks."""
        names = {(engine.network.name, engine.network.aggregation) for engine in self.engines.values()}
        if len(names) > 1:
            raise ValueError(f"engines are of the networks {sorted(map(str, names))}, expected one network")

    @property
    def network(self) -> NetworkSpec:
        """The network of the engines."""
        return next(iter(self.engines.values())).network


class Stopwatch:
    """Wall time of named steps in milliseconds, in the order of their first start; repeated steps are summed."""

    def __init__(self) -> None:
        self.times_ms: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self.add({step: (perf_counter() - start) * 1e3})

    def add(self, times_ms: Mapping[str, float]) -> None:
        """Add the times of another stopwatch, in milliseconds."""
        for step, spent in times_ms.items():
            self.times_ms[step] = self.times_ms.get(step, 0.0) + spent


PendingFindings = Callable[[], Findings]
"""Waits for a started run and returns its findings, the same object at each call.

Raises BackendRunError, and InputError for a view that the chain places itself and cannot use.
"""


class Chain(Protocol):
    """Runs all steps of a view: standardize, global, patches, local, fusion. Thread-safe."""

    @property
    def largest_batch(self) -> int:
        """Largest number of views of one run; a run has this number of views, or one."""
        ...

    @property
    def in_flight(self) -> int:
        """Number of runs to start before waiting for a result, for full utilization; 1 if `start` is synchronous."""
        ...

    @property
    def engines(self) -> Mapping[Stage, Engine]:
        """The engine of each stage, for running a stage alone."""
        ...

    @property
    def ahead(self) -> int:
        """Number of views to read and prepare at the same time, in as many threads, for full utilization."""
        ...

    def prepare(self, view: ChainInput) -> ChainInput:
        """Do the host's part of the preprocessing of a view; may be called earlier and in another thread.

        The pixels of a Mammogram are of a dtype of `preprocess`. Raises InputError for a view that cannot be used.
        """
        ...

    def start(self, views: Sequence[ChainInput], clock: Stopwatch) -> PendingFindings:
        """Start a run of views, all raw or all standardized; steps are timed by `clock`. Raises BackendRunError."""
        ...

    def close(self) -> None:
        """Release resources; active runs are completed, and no further run may be started. Must be called once."""
        ...
