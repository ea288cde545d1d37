"""Engines without a network: plain arithmetic behind the engine contract, in milliseconds.

`install()` puts them where "onnx" stands, in this process. Settings come from the environment, so that they also reach
a subprocess: GLAM_TEST_WAIT makes the global stage say "waiting" on standard error and then sleep, GLAM_TEST_NAN makes
it return NaN, GLAM_TEST_FAULT makes it raise what no engine should.
"""

import os
import sys
import time
from collections.abc import Mapping, MutableMapping
from dataclasses import replace
from threading import Barrier
from typing import Any

import numpy as np

from glam_deploy.agreement.golden import GOLDEN_FILE, write_golden
from glam_deploy.bundle import Bundle
from glam_deploy.engines.base import Arrays, Engine, EngineIdentity, EngineOptions, OpenedEngines
from glam_deploy.engines.registry import OWNERS, Owner
from glam_deploy.networks import GLAM_CONCATENATION, NetworkSpec, Stage, glam
from glam_deploy.precision import StageRecipes
from glam_deploy.records import Mammogram, View
from glam_deploy.runtime.pipeline import Pipeline
from support.bundles import facts, write_manifest


def squash(values: np.ndarray) -> np.ndarray:
    """Anything to 0..1, order kept, in the values' own dtype."""
    return 0.5 + values / (2 + 2 * np.abs(values))


def blocks(images: np.ndarray, cell: int) -> np.ndarray:
    """Means of cell x cell blocks: [N, 1, rows, columns] -> [N, rows / cell, columns / cell]."""
    n, _, rows, columns = images.shape
    return images.reshape(n, rows // cell, cell, columns // cell, cell).mean((2, 4))


class FakeEngine(Engine):
    """Brightness instead of lesions: saliency is the squashed mean of each cell, darker cells are malignant.

    Has the outputs of its network; where patches have no maps, their scores and attention follow from `z_k`.
    `offset` is added to the output named, so that a wrong engine can be had.
    """

    def __init__(
        self, stage: Stage, *, network: NetworkSpec = GLAM_CONCATENATION, offset: Mapping[str, float] | None = None
    ) -> None:
        super().__init__(stage, network=network)
        self.offset = offset or {}

    def _run(self, inputs: Arrays) -> Arrays:
        compute = {"global": self._global, "local": self._local, "fusion": self._fusion}[self.stage]
        computed = compute(inputs)
        outputs = {name: computed[name].astype(np.float32) for name in self.contract.outputs}
        return {name: values + np.float32(self.offset.get(name, 0)) for name, values in outputs.items()}

    def _global(self, inputs: Arrays) -> Arrays:
        _misbehave()
        cells = squash(blocks(inputs["image"], self.network.cell))
        y = np.stack([cells.max((1, 2)), cells.mean((1, 2))], axis=1)
        z_g = np.repeat(y.mean(1, keepdims=True), glam.Z_GLOBAL, axis=1)
        return {
            "saliency_global": np.stack([cells, 1 - cells], axis=1),
            "y_scale": np.stack([y, y / 2, y / 4], axis=1) * (np.nan if "GLAM_TEST_NAN" in os.environ else 1),
            "y_global": y,
            "z_g": z_g,
        }

    def _local(self, inputs: Arrays) -> Arrays:
        cells = squash(blocks(inputs["patches"], self.network.grid_cell))
        z_k = np.repeat(cells.mean((1, 2))[:, None], glam.Z_PATCH, axis=1)
        return {"saliency_patches": np.stack([cells, 1 - cells], axis=1), "z_k": z_k}

    def _fusion(self, inputs: Arrays) -> Arrays:
        used = (inputs["patch_locations"][..., 0] >= 0).astype(np.float32)
        if "saliency_patches" in inputs:
            whole, weight, local = inputs["y_scale"].mean(1), used, inputs["saliency_patches"].mean((3, 4))
        else:
            whole, weight, local = inputs["z_g"][:, :2], used * (1 + inputs["z_k"][..., 0]), inputs["z_k"][..., :2]
        with np.errstate(invalid="ignore"):  # tests make z_k infinite
            share = weight / weight.sum(1, keepdims=True)
        y_local = (share[..., None] * local).sum(1)
        saliency = np.zeros((len(used), 2, *self.network.input_shape), np.float32)
        outputs = {"y_global": whole, "y_local": y_local, "saliency": saliency}
        return outputs | {"y_fusion": (whole + y_local) / 2, "attention": share}


class InStep(FakeEngine):
    """A global stage that answers only when as many runs of it are under way as were told."""

    def __init__(self, runs: int) -> None:
        super().__init__("global")
        self._met = Barrier(runs)

    def _run(self, inputs: Arrays) -> Arrays:
        self._met.wait(timeout=60)  # never spent unless a test fails
        return super()._run(inputs)


def in_step(runs: int) -> OpenedEngines:
    """Engines opened for so many runs at once, which work in no other way."""
    return replace(opened_fakes(), engines=fake_engines() | {"global": InStep(runs)}, streams=runs)


def fake_engines(
    *, network: NetworkSpec = GLAM_CONCATENATION, wrong: Mapping[str, float] | None = None
) -> dict[Stage, Engine]:
    """All stages; `wrong` maps an output's name to what is added to it."""
    return {stage: FakeEngine(stage, network=network, offset=wrong) for stage in network.stages}


def fake_identity(name: str = "fake", precision: str = "fp32", **changed: Any) -> EngineIdentity:
    """Of an engine that computes block means on the CPU."""
    identity = EngineIdentity(
        name=name, library="block means", device="cpu", precision=StageRecipes.from_json(precision), sha256={}
    )
    return replace(identity, **changed)


def opened_fakes(*, network: NetworkSpec = GLAM_CONCATENATION) -> OpenedEngines:
    return OpenedEngines(engines=fake_engines(network=network), identity=fake_identity())


def open_engines(bundle: Bundle, options: EngineOptions) -> OpenedEngines:
    """As the owners in `glam_deploy.engines` do."""
    return OpenedEngines(engines=fake_engines(network=bundle.network), identity=fake_identity("onnx"))


def install(owners: MutableMapping[str, Owner] = OWNERS) -> None:
    """From now on "onnx", and with it "auto", is this engine."""
    options = ("threads", "precision")
    owners["onnx"] = Owner(module="support.engines", packages=(), options=options, summary="block means")


def fill_with_golden(bundle: Bundle, view: Mammogram) -> None:
    """Put into a made-up bundle the golden case that this engine passes."""
    pipeline = Pipeline(open_engines(bundle, EngineOptions()), patches=1, provenance={})
    write_golden(bundle.folder / GOLDEN_FILE, view, pipeline(view))
    write_manifest(bundle.folder, facts())


def small_view() -> Mammogram:
    """uint16 [500, 400]: a bright spot in an even breast at the left edge, so L-CC."""
    pixels = np.zeros((500, 400), np.uint16)
    pixels[50:450, :250] = 1000
    pixels[200:260, 100:160] = 3000
    return Mammogram(pixels=pixels, view=View.L_CC)


def _misbehave() -> None:
    if "GLAM_TEST_WAIT" in os.environ:
        print("waiting", file=sys.stderr, flush=True)
        time.sleep(60)
    if "GLAM_TEST_FAULT" in os.environ:
        raise ZeroDivisionError("made up for a test")
