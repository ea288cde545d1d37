"""The same engines in two pipelines: on the host, and on the fake GPU with the real kernels."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from fake_cuda.control import FakeDriver
from golden.recipe import raw_mammogram

from glam_deploy.engines.base import Arrays, Engine, OpenedEngines
from glam_deploy.engines.fusion_head import Weights
from glam_deploy.errors import BackendRunError
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.device.kernel import Module, compile_cubin
from glam_deploy.gpu.engines.base import GpuEngines, head_kernels
from glam_deploy.gpu.kernels.launch import Kernels
from glam_deploy.gpu.kernels.source import source
from glam_deploy.networks import GLAM, GLAM_CONCATENATION, NetworkSpec, Stage
from glam_deploy.records import Mammogram, View
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.runtime.result import Result
from support.device import HostFunctionEngine, HostFunctionRun
from support.engines import FakeEngine, blocks, fake_engines, fake_identity, squash

EXACT = ("patch_locations",)
CLOSE = ("y_global", "y_scale", "y_local", "y_fusion", "attention", "saliency_global", "saliency_patches")


class Decided(FakeEngine):
    """A global module whose two maps do not cancel out, so that rounding decides on no patch.

    Those of its base sum up to the same value everywhere. Classes in `flat` are the same everywhere.
    """

    def __init__(self, *, flat: tuple[int, ...] = (), **more: Any) -> None:
        super().__init__("global", **more)
        self.flat = flat

    def _global(self, inputs: Arrays) -> Arrays:
        outputs = dict(super()._global(inputs))
        cells = squash(blocks(inputs["image"], self.network.cell))
        maps = np.stack([cells, cells**2], axis=1)
        maps[:, list(self.flat)] = 0.25
        return outputs | {"saliency_global": maps}


class Eager(HostFunctionEngine):
    """An engine that no graph may hold, as those of ONNX Runtime."""

    def bind(self, *arguments: Any, **more: Any) -> Any:
        return EagerRun(super().bind(*arguments, **more))


@dataclass
class EagerRun:
    inner: HostFunctionRun
    capturable = False

    def enqueue(self, stream: Any) -> None:
        assert not stream.is_capturing
        self.inner.enqueue(stream)


def stage_engines(
    *, network: NetworkSpec = GLAM_CONCATENATION, flat: tuple[int, ...] = (), wrong: Mapping[str, float] | None = None
) -> dict[Stage, Engine]:
    """Plain arithmetic; `wrong` maps an output's name to what is added to it."""
    return fake_engines(network=network, wrong=wrong) | {"global": Decided(network=network, flat=flat, offset=wrong)}


@cache
def module(gpu: Gpu, network: NetworkSpec = GLAM) -> Module:
    """Compiled by NVRTC for this GPU; the fake one runs their twins that g++ made, of one network in each process."""
    return gpu.load(compile_cubin(source(network), architecture=gpu.architecture, name="kernels"))


def kernels(gpu: Gpu, network: NetworkSpec = GLAM) -> Kernels:
    return Kernels(module(gpu, network), network)


def on_host(engines: Mapping[Stage, Engine], patches: int = 1) -> Pipeline:
    opened = OpenedEngines(engines=engines, identity=fake_identity())
    return Pipeline(opened, patches=patches, provenance={})


def opened_on(
    engines: Mapping[Stage, Engine],
    *,
    gpu: Gpu,
    driver: FakeDriver,
    kind: type[HostFunctionEngine] = HostFunctionEngine,
    weights: Weights | None = None,
) -> GpuEngines:
    """`weights`: of the fusion head; None: the fusion engine computes the scores."""
    bound: dict[Stage, Engine] = {stage: kind(engine, gpu, driver) for stage, engine in engines.items()}
    network = engines["global"].network
    same = GLAM if network.has_patch_maps else network  # the kernels of GLAM serve both of its variants
    head = None if weights is None else head_kernels(module(gpu, same), network, weights, gpu)
    return GpuEngines(engines=bound, identity=fake_identity(), gpu=gpu, kernels=kernels(gpu, same), head=head)


def on_gpu(
    engines: Mapping[Stage, Engine],
    patches: int = 1,
    *,
    gpu: Gpu,
    driver: FakeDriver,
    slots: int | None = None,
    kind: type[HostFunctionEngine] = HostFunctionEngine,
    weights: Weights | None = None,
) -> Pipeline:
    """As `opened_on`, in a pipeline."""
    opened = opened_on(engines, gpu=gpu, driver=driver, kind=kind, weights=weights)
    return Pipeline(opened, patches=patches, provenance={}, slots=slots)


def raw_view(
    seed: int,
    view: View = View.L_CC,
    *,
    shape: tuple[int, int] = (1200, 900),
    dtype: str = "uint16",
    flip: bool = False,
) -> Mammogram:
    """A small mammogram of noisy tissue; `flip`: stored mirrored."""
    pixels = raw_mammogram(seed, view.value, *shape)
    if dtype == "uint8":
        pixels = (pixels >> 8) + (pixels > 0)
    pixels = pixels[:, ::-1] if flip else pixels
    return Mammogram(pixels=pixels.astype(dtype), view=view, horizontal_flip=flip)


def assert_same(found: Result, expected: Result) -> None:
    """Two chains agree: on places exactly, on values to rounding."""
    np.testing.assert_array_equal(found.patch_locations, expected.patch_locations)
    for name in CLOSE:
        value, truth = getattr(found, name), getattr(expected, name)
        assert (value is None) == (truth is None), name
        if truth is not None:
            assert value.dtype == truth.dtype
            np.testing.assert_allclose(value, truth, rtol=0, atol=2e-6, err_msg=name)
    assert found.notices == expected.notices
    assert found.input.placement == expected.input.placement
    assert found.input.source == expected.input.source


def break_gpu(gpu: Gpu) -> None:
    """From now on every call fails, until `FakeDriver.repair`: a graph has written to memory that was freed."""
    memory, stream = gpu.allocate(1), gpu.stream()
    with stream.capture() as graph:
        stream.fill(memory.address, 1, 0)
    memory.close()
    graph.launch(stream)
    with suppress(BackendRunError):
        stream.synchronize()
