"""Rungs that run the network in PyTorch: as published, and optimized step by step."""

import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glam_bench.ladder.rungs import Run
from glam_deploy import bundle as bundles
from glam_deploy.agreement.answers import COMPARED
from glam_deploy.bundle import Bundle
from glam_deploy.engines.base import EngineIdentity, Stopwatch
from glam_deploy.engines.cpu import BF16, features
from glam_deploy.errors import BackendUnavailable
from glam_deploy.networks import COMPOSED_MAP, Stage
from glam_deploy.precision import Precision, Recipe, StageRecipes
from glam_deploy.records import Float32, Int64, NetworkInput
from glam_deploy.runtime import patching
from glam_export.checkpoint import load_weights
from glam_export.graphs.layers import upsample
from glam_export.reference.base import ReferenceNetwork


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

    def __init__(self, network: ReferenceNetwork, patches: int, options: TorchOptions) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.build_s: float | None = None
        self._patches, self._options, self._spec = patches, options, network.spec
        self._forward = dict(_laid_out(network.to(self.device), options).stages())
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
        locations = np.zeros((0, 2), np.int64)
        with torch.inference_mode():
            with clock("global"):
                image = torch.from_numpy(view.image).to(self.device)[None, None]
                found = self._run("global", image)
            if self._spec.selection:
                with clock("patches"):
                    locations = self._choose(found["saliency_global"])
                    patches = self._cut(view.image, image, locations)
                with clock("local"):
                    found |= {name: values[None] for name, values in self._run("local", patches).items()}
            with clock("fusion"):
                outputs = self._fuse(found, locations)
        return Run(answer={**outputs, "patch_locations": locations}, stages_ms=clock.times_ms)

    def _choose(self, saliency: Tensor) -> Int64:
        cells, _ = patching.choose_windows(saliency[0].cpu().numpy(), self._patches, self._spec.patches)
        return np.array([patching.cell_to_pixel(cell, self._spec) for cell in cells], np.int64)

    def _cut(self, pixels: Float32, image: Tensor, locations: Int64) -> Tensor:
        side = self._spec.patches.side
        if self._options.host_crops:
            return torch.from_numpy(patching.crop(pixels, locations, side)).to(self.device)
        return torch.stack([image[0, :, r : r + side, c : c + side] for r, c in locations.tolist()])

    def _fuse(self, found: Mapping[str, Tensor], locations: Int64) -> dict[str, Any]:
        """The fusion stage, if there is one, and the fused map at full size; those of all outputs that are compared."""
        if "fusion" in self._forward:
            contract = self._spec.contract("fusion")
            inputs = {**found, "patch_locations": torch.from_numpy(locations).to(self.device)[None]}
            outputs = self._forward["fusion"](**{name: inputs[name] for name in contract.inputs})
            found = {**found, **dict(zip(contract.outputs, outputs, strict=True))}
        if COMPOSED_MAP not in found:
            found = {**found, COMPOSED_MAP: upsample(found["saliency_global"], self._spec.cell)}
        on_host = {name: values[0].cpu().numpy() for name, values in found.items()}
        return {name: on_host[name] for name in COMPARED if name in on_host}

    def _run(self, stage: Stage, tensor: Tensor) -> dict[str, Tensor]:
        """Outputs of the global or the local stage by name, in FP32."""
        with self._autocast():
            outputs = self._forward[stage](tensor)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return dict(zip(self._spec.contract(stage).outputs, (output.float() for output in outputs), strict=True))

    def _autocast(self) -> AbstractContextManager[Any]:
        if not self._options.half:
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16 if self.device.type == "cpu" else torch.float16)

    def _compile(self, backend: str) -> None:
        """Compile the networks; the compiler runs in the first call, for which tensors of the right shapes suffice."""
        start = perf_counter()
        batches: dict[Stage, int] = {"global": 1, "local": self._patches}
        for stage, batch in batches.items():
            if stage in self._forward:
                self._forward[stage] = torch.compile(self._forward[stage], backend=backend, dynamic=False)
                (expected,) = self._spec.contract(stage).inputs.values()
                with torch.inference_mode():
                    self._run(stage, torch.zeros(batch, *expected.shape, device=self.device))
        self.build_s = perf_counter() - start


def open_torch(bundle: Bundle, patches: int, threads: int | None, options: TorchOptions) -> TorchRunner:
    """The network with the bundle's weights. Raises BackendUnavailable if weights, bf16 or a compiler are missing."""
    _require(bundle, options)
    if threads:
        torch.set_num_threads(threads)
    network = load_weights(bundle.read(bundles.CHECKPOINT_FILE), bundle.network)
    return TorchRunner(network, patches, options)


def _require(bundle: Bundle, options: TorchOptions) -> None:
    if bundles.CHECKPOINT_FILE not in bundle.files:
        raise BackendUnavailable(f"the bundle has no {bundles.CHECKPOINT_FILE}: export without --no-checkpoint")
    on_cpu = not torch.cuda.is_available()
    if options.half and on_cpu and not features() & {*BF16}:
        raise BackendUnavailable(f"this processor has no bf16 instructions ({' or '.join(BF16)})")
    if options.backend and on_cpu and not shutil.which("g++"):
        raise BackendUnavailable("torch.compile needs a C++ compiler on a CPU: install g++")


def _laid_out(network: ReferenceNetwork, options: TorchOptions) -> ReferenceNetwork:
    if options.host_crops:
        return network
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]
