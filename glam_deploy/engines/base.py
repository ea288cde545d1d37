"""The interface of an engine (one stage's graph, ready to run) with its checks and identity, and of a chain of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from glam_deploy.errors import BackendRunError, BundleError
from glam_deploy.json_records import json_sha256
from glam_deploy.networks import GraphContract, NetworkSpec, Stage, Tensor
from glam_deploy.precision import Form, Precision, StageRecipes
from glam_deploy.records import Findings, NetworkInput, PlacedView


@dataclass(frozen=True, kw_only=True)
class EngineIdentity:
    """An engine as it was opened. In a result's provenance it is the JSON object "engine", keys named as the fields."""

    name: str
    """Its name in `engines.registry`, such as "openvino-bf16"."""
    library: str
    """Name and version of the library that computes."""
    device: str
    """"cpu", or the name of the GPU."""
    precision: StageRecipes
    sha256: Mapping[Stage, str]
    """Stage -> SHA-256 of the graph, engine file or weights that it runs; empty where they come from no bundle."""
    flavour: str | None = None
    """Of TensorRT engines: "tensorrt" or "tensorrt-rtx"."""
    key: str | None = None
    """Of TensorRT engines: the bundle's `EngineEntry.key`."""
    compute_capability: str | None = None
    """Of the GPU, such as "8.9"."""
    driver: str | None = None
    """Version of the GPU's driver."""

    @property
    def digest(self) -> str:
        """SHA-256 over name, library, precision, flavour and hashes: what a gate's verdict is bound to.

        Another graph, engine file or version of a library is another engine. The device is none of it: engines may
        run on every GPU of a kind, and verdicts name their machine.
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
        """How the convolutions of a stage are computed. The engines *-winograd tell it by their name, not the recipe:
        only the local graph comes in Winograd's form."""
        named = stage == "local" and self.name.endswith("-winograd")
        return "winograd" if named else self.precision[stage].form


Arrays = Mapping[str, NDArray[Any]]
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How to open engines. What an engine cannot honour is refused by `registry.open_engines`, never ignored."""

    threads: int | None = None
    """CPU threads of one engine; None leaves it to the library (all physical cores)."""
    streams: int | None = None
    """How many runs at once the threads of one engine are divided among; None gives all of them to one run."""
    cache: Path | None = None
    """Folder of compiled models; None is `model_cache.default_folder`, and /dev/null keeps none."""
    precision: Precision = "fp32"
    """Which of the bundle's graphs to run, for an engine whose name does not say it."""
    flavour: str | None = None
    """Which of the bundle's TensorRT engines: "tensorrt" or "tensorrt-rtx"; None takes those that fit the machine."""
    device: int | None = None
    """Index of the GPU, as the driver counts; None is 0, the first."""


class Engine(ABC):
    """One stage's graph, ready to run. Safe to call from several threads; outputs belong to the caller."""

    def __init__(self, stage: Stage, *, network: NetworkSpec, composed: bool = True) -> None:
        """`composed`: as of `NetworkSpec.contract`."""
        self.stage, self.network = stage, network
        self.contract: GraphContract = network.contract(stage, composed=composed)

    @abstractmethod
    def _run(self, inputs: Arrays) -> Arrays:
        """Compute every output of the contract from checked, C-contiguous inputs."""

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs by name, as the contract says; axis 0 is the batch.

        Raises BackendRunError for inputs that break the contract (names, dtypes, shapes) and for inputs or outputs
        that are not finite: such numbers are never handed on.
        """
        self._check_inputs(inputs)
        # not left to the outputs: OpenVINO's ReLU makes NaN 0, and an image of nothing else gets plausible scores
        self.require_finite_inputs(inputs)
        outputs = self._run({name: np.ascontiguousarray(inputs[name]) for name in self.contract.inputs})
        self.require_finite_outputs(outputs)
        return outputs

    def require_finite_inputs(self, inputs: Arrays) -> None:
        """Raises BackendRunError for NaN and infinity; for whoever feeds the engine otherwise than through `run`."""
        self._require_finite(inputs, "The fault lies before this engine: look at how its inputs were made.")

    def require_finite_outputs(self, outputs: Arrays) -> None:
        """Raises BackendRunError for NaN and infinity; for whoever takes outputs otherwise than from `run`."""
        self._require_finite(outputs, "Check the bundle with `glam-deploy verify`, or use another engine.")

    def _require_finite(self, arrays: Arrays, remedy: str) -> None:
        for name, values in arrays.items():
            if not (finite := np.isfinite(values)).all():
                raise BackendRunError(
                    f"{self.stage} engine: {int((~finite).sum())} of {values.size} values of {name!r} are NaN or "
                    f"infinite. The image gets no result. {remedy}"
                )

    def _require_interface(self, inputs: Tensors, outputs: Tensors, contract: GraphContract | None = None) -> None:
        """For a backend that has opened a graph: hold what it found against `contract`, else against the engine's own.

        Raises BundleError: the manifest and the graph are not of one network.
        """
        contract = contract or self.contract
        for kind, found, expected in (("inputs", inputs, contract.inputs), ("outputs", outputs, contract.outputs)):
            if dict(found) != dict(expected):
                raise BundleError(
                    f"{self.stage} graph: its {kind} are {_words(found)}; the manifest's network has "
                    f"{_words(expected)}. Export the checkpoint again."
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
            raise BackendRunError(f"{self.stage} engine: inputs of one run share one batch size >= 1, got {batches}")


def _words(tensors: Tensors) -> str:
    return ", ".join(f"{name} {t.dtype} {['batch', *t.shape]}" for name, t in tensors.items())


@dataclass(frozen=True, kw_only=True)
class OpenedEngines:
    """The engines of a bundle, opened. Those of a GPU are `gpu.engines.base.GpuEngines`."""

    engines: Mapping[Stage, Engine]
    """All stages of one network."""
    identity: EngineIdentity
    streams: int = 1
    """Number of runs at once that they were opened for."""

    def __post_init__(self) -> None:
        """Raises ValueError for stages of different networks."""
        names = {(engine.network.name, engine.network.aggregation) for engine in self.engines.values()}
        if len(names) > 1:
            raise ValueError(f"engines of one bundle are of one network, got {sorted(map(str, names))}")

    @property
    def network(self) -> NetworkSpec:
        """The network whose stages the engines are."""
        return next(iter(self.engines.values())).network


class Stopwatch:
    """Wall time of named steps, in milliseconds, in the order of their first start; a step may be timed in parts."""

    def __init__(self) -> None:
        self.times_ms: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self.add({step: (perf_counter() - start) * 1e3})

    def add(self, times_ms: Mapping[str, float]) -> None:
        """Count what another watch has measured, too."""
        for step, spent in times_ms.items():
            self.times_ms[step] = self.times_ms.get(step, 0.0) + spent


Flight = Callable[[], Findings]
"""Waits for what was started and gives its findings, the same at each call; raises BackendRunError."""


class Chain(Protocol):
    """Standardize, global, patches, local, fusion. Safe to use from several threads."""

    @property
    def largest_batch(self) -> int:
        """How many views it can run together; it takes so many, or one."""
        ...

    @property
    def in_flight(self) -> int:
        """How many starts it takes to keep the chain busy; 1 where a start returns when all is computed."""
        ...

    @property
    def engines(self) -> Mapping[Stage, Engine]:
        """The three stages, each to be run alone."""
        ...

    def prepare(self, view: PlacedView | NetworkInput) -> PlacedView | NetworkInput:
        """The host's part of a view, which may be done earlier and in another thread; once is enough."""
        ...

    def start(self, views: Sequence[PlacedView | NetworkInput], clock: Stopwatch) -> Flight:
        """Begin with views, all raw or all standardized, and time the steps on `clock`. Raises BackendRunError."""
        ...

    def close(self) -> None:
        """Start no more, and let go of what can be: runs under way go on to their findings. Called once."""
        ...
