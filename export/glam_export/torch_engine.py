"""The PyTorch reference as an engine, so that the same pipeline runs it and the engines that are compared with it."""

import os
from collections.abc import Mapping

import torch

from glam_deploy import bundle as bundles
from glam_deploy.bundle import Bundle
from glam_deploy.engines.base import Arrays, Engine, EngineIdentity, EngineOptions, OpenedEngines
from glam_deploy.engines.cpu import within_cores
from glam_deploy.errors import BackendRunError, BackendUnavailable
from glam_deploy.networks import Stage
from glam_deploy.precision import FP32, StageRecipes
from glam_export.checkpoint import load_weights
from glam_export.reference.base import ReferenceNetwork

_PROCESS = os.getpid()
"""Number of the process that imported this module."""
_FORKED = (
    "the engine 'torch' cannot run in a process that was forked from one that had loaded it, because its OpenMP would "
    "wait forever for threads that only the parent has. Start processes with multiprocessing.get_context('spawn') and "
    "load the pipeline there, or choose the engine onnx or openvino."
)


class TorchEngine(Engine):
    """One stage of a reference network, on the device of its weights."""

    def __init__(self, network: ReferenceNetwork, stage: Stage) -> None:
        super().__init__(stage, network=network.spec)
        self._device = next(network.parameters()).device
        self._forward = network.stages()[stage]

    def _run(self, inputs: Arrays) -> Arrays:
        if os.getpid() != _PROCESS:
            raise BackendRunError(_FORKED)
        try:
            with torch.inference_mode():
                # copies, because PyTorch warns about read-only arrays
                tensors = {name: torch.tensor(values, device=self._device) for name, values in inputs.items()}
                outputs = self._forward(**tensors)
        except RuntimeError as error:
            raise BackendRunError(f"{self.stage} engine: PyTorch {torch.__version__} failed: {error}") from error
        return {name: t.cpu().numpy() for name, t in zip(self.contract.outputs, outputs, strict=True)}


class MemoizedEngine(Engine):
    """Runs `engine`, and returns the stored outputs for inputs that it had before: the reference takes seconds a patch.

    Keeps every input and output in memory as long as it exists.
    """

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.stage, network=engine.network)
        self.contract = engine.contract
        self._engine = engine
        self._outputs: dict[bytes, Arrays] = {}

    def _run(self, inputs: Arrays) -> Arrays:
        key = b"".join(values.tobytes() for values in inputs.values())
        if key not in self._outputs:
            self._outputs[key] = self._engine.run(inputs)
        return {name: values.copy() for name, values in self._outputs[key].items()}


def network_engines(network: ReferenceNetwork) -> dict[Stage, TorchEngine]:
    """The stages of a network in memory."""
    network.use_exact_layout()
    return {stage: TorchEngine(network, stage) for stage in network.spec.stages}


def open_engines(bundle: Bundle, options: EngineOptions) -> OpenedEngines:
    """The reference with the bundle's copy of the weights.

    Raises BackendUnavailable if the bundle was exported without it, or in a process that was forked from one that had
    loaded PyTorch; BundleError if the copy was changed, CheckpointError if it has no weights of this network.
    """
    if os.getpid() != _PROCESS:
        raise BackendUnavailable(_FORKED)
    require_checkpoint(bundle, options)
    if threads := within_cores(options).threads:
        torch.set_num_threads(threads)
    network = load_weights(bundle.read(bundles.CHECKPOINT_FILE), bundle.network)
    sha256 = dict.fromkeys(bundle.network.stages, bundle.files[bundles.CHECKPOINT_FILE].sha256)
    return OpenedEngines(engines=network_engines(network), identity=torch_identity(sha256))


def torch_identity(sha256: Mapping[Stage, str]) -> EngineIdentity:
    """Identity of the reference on the CPU. `sha256`: of the weights, by stage; empty for a network in memory."""
    return EngineIdentity(
        name="torch",
        library=f"torch {torch.__version__}",
        device="cpu",
        precision=StageRecipes(recipes=FP32),
        sha256=sha256,
    )


def require_checkpoint(bundle: Bundle, options: EngineOptions) -> None:
    """Raises BackendUnavailable if the bundle was exported without its weights."""
    if bundles.CHECKPOINT_FILE not in bundle.files:
        raise BackendUnavailable(
            f"{bundle.folder}: has no {bundles.CHECKPOINT_FILE}, which the engine 'torch' runs. Export the checkpoint "
            f"again without --no-checkpoint, or choose another --engine."
        )
