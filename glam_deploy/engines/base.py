"""What an engine is: a stage's graph that runs. Checks written once, for every backend."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.device.gpu import Gpu
from glam_deploy.engines.identity import EngineIdentity
from glam_deploy.errors import BackendRunError, BundleError
from glam_deploy.kernels.launch import Kernels
from glam_deploy.networks import GraphContract, NetworkSpec, Stage, Tensor
from glam_deploy.precision import Precision

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
    """The engines of a bundle and where they came from."""

    engines: Mapping[Stage, Engine]
    """All stages of one network."""
    identity: EngineIdentity
    gpu: Gpu | None = None
    """The GPU that the engines run on, each then a `device_base.DeviceEngine`; None where they run on the CPU."""
    streams: int = 1
    """How many runs at once they were opened for."""
    kernels: Kernels | None = None
    """The steps between the engines, loaded on that GPU."""

    @property
    def network(self) -> NetworkSpec:
        """The network whose stages the engines are."""
        return next(iter(self.engines.values())).network
