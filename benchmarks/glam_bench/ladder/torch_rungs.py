"""Rungs that run the network in PyTorch: as published, and optimized step by step."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glam_bench.ladder.rungs import Run
from glam_deploy import bundle as bundles
from glam_deploy.bundle import Bundle
from glam_deploy.engines.base import EngineIdentity, Stopwatch
from glam_deploy.engines.cpu import BF16, features
from glam_deploy.errors import BackendUnavailable
from glam_deploy.networks import GLAM
from glam_deploy.precision import Precision, Recipe, StageRecipes
from glam_deploy.records import Float32, Int64, NetworkInput
from glam_deploy.runtime import patching
from glam_export.checkpoint import load_weights
from glam_export.reference.glam import GlamNetwork

Module = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True, kw_only=True)
class TorchOptions:
    """Which optimizations a rung has."""

    host_crops: bool = False
    """Patches are cut on the host and tensors keep PyTorch's default layout, as published."""
    half: bool = False
    """Autocast: bf16 on a CPU, fp16 on a GPU."""
    backend: str | None = None
    """Of torch.compile; None is eager."""


class TorchRunner:
    """The reference network, on the GPU where PyTorch sees one."""

    def __init__(self, network: GlamNetwork, patches: int, options: TorchOptions) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.build_s: float | None = None
        self._patches, self._options = patches, options
        self._network = _laid_out(network.to(self.device), options)
        self._global: Module = self._network.global_network
        self._local: Module = self._network.detection_network
        if options.backend:
            self._compile(options.backend)
        half: Precision = "bf16" if self.device.type == "cpu" else "fp16"
        how = f"compiled by {options.backend}" if options.backend else "eager"
        self.identity = EngineIdentity(
            name="torch",
            library=f"torch {torch.__version__}, {how}",
            device=self.device.type,
            precision=StageRecipes(recipes=Recipe(weights=half if options.half else "fp32")),
            sha256={},
        )

    def __call__(self, view: NetworkInput) -> Run:
        clock = Stopwatch()
        with torch.inference_mode():
            with clock("global"):
                image = torch.from_numpy(view.image).to(self.device)[None, None]
                whole = self._float(self._global, image)
            with clock("patches"):
                locations = self._choose(whole[0])
                patches = self._cut(view.image, image, locations)
            with clock("local"):
                parts = self._float(self._local, patches)
            with clock("fusion"):
                outputs = self._fuse(whole, parts, locations)
        return Run(answer=outputs, stages_ms=clock.times_ms)

    def _choose(self, saliency: Tensor) -> Int64:
        cells, _ = patching.choose_windows(saliency[0].cpu().numpy(), self._patches, GLAM.patches)
        return np.array([patching.cell_to_pixel(cell, GLAM) for cell in cells], np.int64)

    def _cut(self, pixels: Float32, image: Tensor, locations: Int64) -> Tensor:
        if self._options.host_crops:
            return torch.from_numpy(patching.crop(pixels, locations, GLAM.patches.side)).to(self.device)
        corners = locations.tolist()
        return torch.stack([image[0, :, r : r + GLAM.patches.side, c : c + GLAM.patches.side] for r, c in corners])

    def _fuse(self, whole: Sequence[Tensor], parts: Sequence[Tensor], locations: Int64) -> dict[str, Any]:
        network, (saliency, y_scale, z_g), (maps, z_k) = self._network, whole, parts
        local = network.aggregate(maps[None], z_k[None])
        network.fuse_saliency(saliency, maps[None], torch.from_numpy(locations)[None]).cpu()
        outputs = {
            "y_global": y_scale[0].mean(0),
            "y_scale": y_scale[0],
            "y_local": local.y_local[0],
            "saliency_global": saliency[0],
            "saliency_patches": maps,
        }
        if local.z_l is not None and local.attention is not None:
            outputs["y_fusion"] = network.predict_fusion(z_g, local.z_l)[0]
            outputs["attention"] = local.attention[0]
        return {"patch_locations": locations, **{name: t.cpu().numpy() for name, t in outputs.items()}}

    def _float(self, module: Module, tensor: Tensor) -> list[Tensor]:
        with self._autocast():
            outputs = module(tensor)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return [output.float() for output in outputs]

    def _autocast(self) -> AbstractContextManager[Any]:
        if not self._options.half:
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.device.type == "cpu" else torch.float16)

    def _compile(self, backend: str) -> None:
        """Compile both networks; the compiler runs in the first call, for which tensors of the right shapes suffice."""
        start = perf_counter()
        self._global, self._local = (
            torch.compile(module, backend=backend, dynamic=False) for module in (self._global, self._local)
        )
        with torch.inference_mode():
            self._float(self._global, torch.zeros(1, 1, *GLAM.input_shape, device=self.device))
            self._float(
                self._local, torch.zeros(self._patches, 1, GLAM.patches.side, GLAM.patches.side, device=self.device)
            )
        self.build_s = perf_counter() - start


def open_torch(bundle: Bundle, patches: int, threads: int | None, options: TorchOptions) -> TorchRunner:
    """The network with the bundle's weights. Raises BackendUnavailable if weights, bf16 or a compiler are missing."""
    _require(bundle, options)
    if threads:
        torch.set_num_threads(threads)
    network = load_weights(bundle.read(bundles.CHECKPOINT_FILE), bundle.network)
    assert isinstance(network, GlamNetwork)
    return TorchRunner(network, patches, options)


def _require(bundle: Bundle, options: TorchOptions) -> None:
    if bundles.CHECKPOINT_FILE not in bundle.files:
        raise BackendUnavailable(f"the bundle has no {bundles.CHECKPOINT_FILE}: export without --no-checkpoint")
    on_cpu = not torch.cuda.is_available()
    if options.half and on_cpu and not features() & {*BF16}:
        raise BackendUnavailable(f"this processor has no bf16 instructions ({' or '.join(BF16)})")
    if options.backend and on_cpu and not shutil.which("g++"):
        raise BackendUnavailable("torch.compile needs a C++ compiler on a CPU: install g++")


def _laid_out(network: GlamNetwork, options: TorchOptions) -> GlamNetwork:
    if options.host_crops:
        return network
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
