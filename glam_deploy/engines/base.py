"""What an engine is: a stage's graph that runs. Checks written once, for every backend."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.errors import BackendRunError, BundleError, UsageError
from glam_deploy.spec import GraphContract, Precision, Stage, graph_contract

Arrays = Mapping[str, NDArray[Any]]
Axes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How to open engines."""

    threads: int | None = None
    """CPU threads of one engine; None leaves it to the library (all physical cores)."""
    precision: Precision = "fp32"
    """Which of the bundle's graphs to run; an owner that cannot run it raises UsageError."""

    def require_fp32(self, engine: str) -> None:
        """For an engine that computes in fp32 and in nothing else. Raises UsageError."""
        if self.precision != "fp32":
            raise UsageError(f"engine {engine!r} computes in fp32, not in {self.precision}; choose another --engine")


class Engine(ABC):
    """One stage's graph, ready to run. Safe to call from several threads; outputs belong to the caller."""

    def __init__(self, stage: Stage, *, fusion_head: bool) -> None:
        self.stage = stage
        self.contract: GraphContract = graph_contract(stage, fusion_head=fusion_head)

    @abstractmethod
    def _run(self, inputs: Arrays) -> Arrays:
        """Compute every output of the contract from checked, C-contiguous inputs."""

    def run(self, inputs: Arrays) -> Arrays:
        """Outputs by name, as `spec.graph_contract` tells; axis 0 is the batch.

        Raises BackendRunError for inputs that break the contract (names, dtypes, shapes) and for inputs or outputs
        that are not finite: such numbers are never handed on.
        """
        self._check_inputs(inputs)
        # not left to the outputs: OpenVINO's ReLU makes NaN 0, and an image of nothing else gets plausible scores
        self._require_finite(inputs, "The fault lies before this engine: look at how its inputs were made.")
        outputs = self._run({name: np.ascontiguousarray(inputs[name]) for name in self.contract.inputs})
        self._require_finite(outputs, "Check the bundle with `glam-deploy verify`, or use another engine.")
        return outputs

    def _require_finite(self, arrays: Arrays, remedy: str) -> None:
        for name, values in arrays.items():
            if not (finite := np.isfinite(values)).all():
                raise BackendRunError(
                    f"{self.stage} engine: {int((~finite).sum())} of {values.size} values of {name!r} are NaN or "
                    f"infinite. The image gets no result. {remedy}"
                )

    def _require_interface(self, inputs: Axes, outputs: Axes) -> None:
        """For a backend that has opened a graph: hold the names and axes it found against the contract.

        Axes are sizes without the batch. Raises BundleError: the manifest and the graph are not of one network.
        """
        for kind, found, tensors in (
            ("inputs", inputs, self.contract.inputs),
            ("outputs", outputs, self.contract.outputs),
        ):
            expected = {name: t.shape for name, t in tensors.items()}
            if dict(found) != expected:
                raise BundleError(
                    f"{self.stage} graph: its {kind} are {dict(found)}, the manifest's network has {expected}. Export "
                    f"the checkpoint again."
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


@dataclass(frozen=True, kw_only=True)
class OpenedEngines:
    """The three engines of a bundle and where they came from."""

    engines: Mapping[Stage, Engine]
    provenance: Mapping[str, Any]
    """JSON-ready: engine, library version, device, precision, SHA-256 of what each stage runs."""
