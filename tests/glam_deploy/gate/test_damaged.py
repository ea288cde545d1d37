"""Full-size networks, damaged in one place each: the gate fails them and names the part. The same weights pass."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from support.engines import FakeEngine, fake_identity

from glam_deploy.agreement.limits import Limits
from glam_deploy.agreement.verdict import judge
from glam_deploy.bundle import graph_file, open_bundle, write_manifest
from glam_deploy.engines.base import Engine, EngineOptions, OpenedEngines
from glam_deploy.engines.onnxruntime import open_engines
from glam_deploy.gate.trial import EnginePair, ImageTrial, examine
from glam_deploy.networks import GLAM, STAGES, Stage
from glam_deploy.preprocess import from_standardized
from glam_deploy.records import NetworkInput, Source
from glam_deploy.runtime import patching
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.runtime.result import Result
from glam_export.torch_engine import MemoizedEngine

pytestmark = pytest.mark.network


@pytest.fixture(scope="module")
def whole(golden_bundle: Path) -> dict[Stage, Engine]:
    opened = open_engines(open_bundle(golden_bundle), EngineOptions())
    return {stage: MemoizedEngine(opened.engines[stage]) for stage in STAGES}


@pytest.fixture(scope="module")
def image(golden_image: Callable[[int], np.ndarray]) -> NetworkInput:
    return from_standardized(golden_image(9), source=Source(name="mammogram", kind="array"))


Open = Callable[[Stage, Callable[[Path, Path], object]], Engine]


@pytest.fixture
def damaged(golden_bundle: Path, tmp_path: Path) -> Open:
    """Opens a stage whose graph a function has read from one place and written, damaged, to another."""

    def make(stage: Stage, damage: Callable[[Path, Path], object]) -> Engine:
        (tmp_path / "graphs").mkdir()
        for other in STAGES:
            if other != stage:
                (tmp_path / graph_file(other)).hardlink_to(golden_bundle / graph_file(other))
        damage(golden_bundle / graph_file(stage), tmp_path / graph_file(stage))
        write_manifest(tmp_path, open_bundle(golden_bundle).manifest)
        return MemoizedEngine(open_engines(open_bundle(tmp_path), EngineOptions()).engines[stage])

    return make


def scale_one_layer(source: Path, target: Path) -> None:
    """The weights of the middle convolution, times 1.2."""
    model = onnx.load(source)
    names = [node.input[1] for node in model.graph.node if node.op_type == "Conv"]
    (weights,) = (held for held in model.graph.initializer if held.name == names[len(names) // 2])
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * np.float32(1.2), weights.name))
    onnx.save(model, target)


def to_8_bits(source: Path, target: Path) -> None:
    """Weights and activations of all convolutions, one scale a tensor, no calibration."""
    quantize_dynamic(source, target, op_types_to_quantize=["Conv"], weight_type=QuantType.QUInt8)


def pipeline(engines: dict[Stage, Engine]) -> Pipeline:
    return Pipeline(OpenedEngines(engines=engines, identity=fake_identity("onnx")), patches=1, provenance={})


def found(reference: dict[Stage, Engine], candidate: dict[Stage, Engine], image: NetworkInput) -> ImageTrial:
    pair = EnginePair(
        network=GLAM, reference=pipeline(reference), candidate=pipeline(candidate), local=candidate["local"]
    )
    return examine(pair, image, None, Limits()).trial


def failures(trial: ImageTrial) -> list[str]:
    return list(judge([trial.agreement], Limits()).failures)


@pytest.mark.slow
def test_one_layer_of_the_local_network(whole: dict[Stage, Engine], damaged: Open, image: NetworkInput) -> None:
    assert failures(found(whole, whole, image)) == []
    row = found(whole, {**whole, "local": damaged("local", scale_one_layer)}, image)
    assert row.agreement.reasons == ("local differs",)
    assert failures(row)


@pytest.fixture
def brief(whole: dict[Stage, Engine]) -> dict[Stage, Engine]:
    """The same global network; the local one costs nothing, for it is not what is damaged."""
    return {**whole, "local": FakeEngine("local")}


@pytest.mark.parametrize("damage", [scale_one_layer, to_8_bits])
def test_the_global_network(
    brief: dict[Stage, Engine], damaged: Open, image: NetworkInput, damage: Callable[[Path, Path], object]
) -> None:
    row = found(brief, {**brief, "global": damaged("global", damage)}, image)
    assert "global differs" in row.agreement.reasons
    assert "local differs" not in row.agreement.reasons
    assert failures(row)


def test_patch_selection_in_half_precision(
    brief: dict[Stage, Engine], image: NetworkInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact, candidate = patching.window_sums, pipeline(brief)

    def ill(view: Any) -> Result:
        with monkeypatch.context() as patch:
            patch.setattr(
                patching, "window_sums", lambda heat, side: exact(heat, side).astype(np.float16).astype(np.float32)
            )
            return candidate(view)

    pair: Any = SimpleNamespace(network=GLAM, reference=pipeline(brief), candidate=ill, local=brief["local"])
    row = examine(pair, image, None, Limits()).trial
    assert row.agreement.reasons == ("patch moved",)
    assert any(failure.startswith("patches where") for failure in failures(row))
