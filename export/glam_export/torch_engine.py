"""The PyTorch reference behind the engine contract, so that one pipeline runs both it and what is held against it."""

import os
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from glam_deploy import bundle as bundles
from glam_deploy.bundle import Bundle
from glam_deploy.engines.base import Arrays, Engine, EngineIdentity, EngineOptions, OpenedEngines
from glam_deploy.engines.cpu import within_cores
from glam_deploy.errors import BackendRunError, BackendUnavailable
from glam_deploy.networks import GLAM, STAGES, Stage
from glam_deploy.precision import FP32, StageRecipes
from glam_export.checkpoint import load_weights
from glam_export.reference import GlamNetwork

_PROCESS = os.getpid()
"""The one that imported this module."""
_FORKED = (
    "the engine 'torch' cannot run in a process that was forked from one that had loaded it: its OpenMP would wait for "
    "ever for threads that only the parent has. Start processes with multiprocessing.get_context('spawn') and load the "
    "pipeline there, or choose the engine onnx or openvino."
)


class TorchEngine(Engine):
    """One stage of a GlamNetwork, on the device that its weights are on."""

    def __init__(self, network: GlamNetwork, stage: Stage) -> None:
        super().__init__(stage, network=network.spec)
        self._network = network
        self._device = next(network.parameters()).device
        forward: dict[Stage, Callable[..., tuple[Tensor, ...]]] = {
            "global": network.global_network,
            "local": network.detection_network,
            "fusion": self._fuse,
        }
        self._forward = forward[stage]

    def _run(self, inputs: Arrays) -> Arrays:
        if os.getpid() != _PROCESS:
            raise BackendRunError(_FORKED)
        try:
            with torch.inference_mode():
                # copied, since PyTorch warns of arrays that are read-only
                tensors = {name: torch.tensor(values, device=self._device) for name, values in inputs.items()}
                outputs = self._forward(**tensors)
        except RuntimeError as error:
            raise BackendRunError(f"{self.stage} engine: PyTorch {torch.__version__} failed: {error}") from error
        return {name: t.cpu().numpy() for name, t in zip(self.contract.outputs, outputs, strict=True)}

    def _fuse(self, **inputs: Tensor) -> tuple[Tensor, ...]:
        """One image at a time, since each may use another number of its patch slots."""
        rows = [self._fuse_one({k: v[n : n + 1] for k, v in inputs.items()}) for n in range(len(inputs["y_scale"]))]
        return tuple(torch.cat(values) for values in zip(*rows, strict=True))

    def _fuse_one(self, one: dict[str, Tensor]) -> list[Tensor]:
        net = self._network
        slots = one["patch_locations"].shape[1]
        used = int((one["patch_locations"][0, :, 0] >= 0).sum())
        maps, places = one["saliency_patches"][:, :used], one["patch_locations"][:, :used]
        z_k = one["z_k"][:, :used] if net.spec is GLAM else torch.empty(0)
        local = net.aggregate(maps, z_k)
        outputs = [one["y_scale"].mean(1), local.y_local, net.fuse_saliency(one["saliency_global"], maps, places)]
        if local.attention is not None and local.z_l is not None:
            outputs.append(net.predict_fusion(one["z_g"], local.z_l))
            outputs.append(torch.nn.functional.pad(local.attention, (0, slots - used)))
        return outputs


def network_engines(network: GlamNetwork) -> dict[Stage, TorchEngine]:
    """The three stages of a network in memory."""
    # channels last only for its rounding: in that layout oneDNN's sums come closer to a float64 run, at the same speed
    for weight in network.detection_network.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    return {stage: TorchEngine(network, stage) for stage in STAGES}


def open_engines(bundle: Bundle, options: EngineOptions) -> OpenedEngines:
    """The reference with the bundle's own copy of the weights.

    Raises BackendUnavailable where the bundle was exported without it, and in a process that was forked from one that
    had loaded it; BundleError where it was changed, CheckpointError where it holds no weights of this network.
    """
    if os.getpid() != _PROCESS:
        raise BackendUnavailable(_FORKED)
    require_checkpoint(bundle, options)
    if threads := within_cores(options).threads:
        torch.set_num_threads(threads)
    network = load_weights(bundle.read(bundles.CHECKPOINT_FILE), bundle.network)
    sha256 = dict.fromkeys(STAGES, bundle.files[bundles.CHECKPOINT_FILE].sha256)
    return OpenedEngines(engines=network_engines(network), identity=torch_identity(sha256))


def torch_identity(sha256: Mapping[Stage, str]) -> EngineIdentity:
    """Of the reference on the CPU. `sha256`: of the weights, by stage; empty for a network in memory."""
    return EngineIdentity(
        name="torch",
        library=f"torch {torch.__version__}",
        device="cpu",
        precision=StageRecipes(recipes=FP32),
        sha256=sha256,
    )


def require_checkpoint(bundle: Bundle, options: EngineOptions) -> None:
    """Raises BackendUnavailable where the bundle was exported without its weights."""
    if bundles.CHECKPOINT_FILE not in bundle.files:
        raise BackendUnavailable(
            f"{bundle.folder}: has no {bundles.CHECKPOINT_FILE}, which the engine 'torch' runs. Export the checkpoint "
            f"again without --no-checkpoint, or choose another --engine."
        )
