"""What an engine is: a stage's graph that runs. Checks written once, for every backend."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.errors import BackendRunError
from glam_deploy.spec import GraphContract, Stage, graph_contract

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How to open engines."""

    threads: int | None = None
    """CPU threads of one engine; None leaves it to the library (all physical cores)."""


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

        Raises BackendRunError for inputs that break the contract (names, dtypes, shapes) and for outputs that are
        not finite: such numbers are never handed on.
        """
        self._check_inputs(inputs)
        outputs = self._run({name: np.ascontiguousarray(inputs[name]) for name in self.contract.inputs})
        for name, values in outputs.items():
            if not np.isfinite(values).all():
                bad = int(values.size - np.isfinite(values).sum())
                raise BackendRunError(
                    f"{self.stage} engine: {bad} of {values.size} values of {name!r} are NaN or infinite. The image "
                    f"gets no result; check the bundle with `glam-deploy verify`, or use another engine."
                )
        return outputs

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
