"""Graphs in 8 bits: what is narrow, what stays wide, and how far their answers are apart."""

import re
import sys

import numpy as np
import onnx
import pytest
from support.commands import install_line
from support.small_graphs import patches, small_local

from glam_deploy.engines.base import EngineOptions
from glam_deploy.engines.onnxruntime import OnnxRuntimeEngine
from glam_deploy.engines.openvino import graph_engine
from glam_deploy.errors import BackendUnavailable, UsageError
from glam_deploy.networks import GLAM_CONCATENATION
from glam_export.precision.quantize import blocks, multiply_adds, narrow_share, quantized, require_nncf, widened

WIDE = small_local()
WORK = {"stem": 16 * 4, "conv1": 36 * 4, "conv2": 36 * 4, "head": 4 * 2}
"""Multiplications of each convolution at each of 128 x 128 places, by hand."""


@pytest.fixture(scope="module")
def narrow() -> bytes:
    return quantized(WIDE, [{"patches": patch[None]} for patch in patches(3)])


def operators(graph: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(graph).graph.node]


def run(graph: bytes) -> dict[str, np.ndarray]:
    engine = OnnxRuntimeEngine(graph, "local", EngineOptions(), network=GLAM_CONCATENATION)
    return dict(engine.run({"patches": patches(2, seed=9)}))


def test_blocks() -> None:
    assert blocks(WIDE) == {
        "stem": ("stem", "stem_relu"),
        "blocks.0": ("conv1", "relu1", "conv2", "sum", "relu2", "mean", "z"),
        "head": ("head",),
    }


def test_arithmetic_is_counted() -> None:
    assert multiply_adds(WIDE) == {name: work * 128 * 128 for name, work in WORK.items()}


def test_all_convolutions_are_in_8_bits_and_nothing_else(narrow: bytes) -> None:
    assert narrow_share(WIDE, narrow) == 1
    model = onnx.load_from_string(narrow)
    pairs = {name for node in model.graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    assert {node.op_type for node in model.graph.node if pairs.intersection(node.input)} == {"Conv"}
    assert narrow == widened(WIDE, narrow, ())


@pytest.mark.parametrize(("block", "share"), [("stem", 1 - 64 / 360), ("blocks.0", 72 / 360), ("head", 352 / 360)])
def test_a_block_that_is_kept_wide(narrow: bytes, block: str, share: float) -> None:
    mixed = widened(WIDE, narrow, blocks(WIDE)[block])
    assert narrow_share(WIDE, mixed) == pytest.approx(share)
    onnx.checker.check_model(onnx.load_from_string(mixed), full_check=True)


def test_all_kept_wide_is_the_graph_itself(narrow: bytes) -> None:
    mixed = widened(WIDE, narrow, [node for nodes in blocks(WIDE).values() for node in nodes])
    found, expected = onnx.load_from_string(mixed).graph, onnx.load_from_string(WIDE).graph
    assert list(found.node) == list(expected.node)
    for key, values in run(WIDE).items():
        np.testing.assert_array_equal(run(mixed)[key], values)


def test_answers_are_near_and_nearer_the_wider(narrow: bytes) -> None:
    """8 bits hold a value to 1/255 of its range, 7 bits of a weight to 1/127; a handful of layers adds up."""
    expected = run(WIDE)["saliency_patches"]
    far = np.abs(run(narrow)["saliency_patches"] - expected)
    near = np.abs(run(widened(WIDE, narrow, blocks(WIDE)["blocks.0"]))["saliency_patches"] - expected)
    assert 0 < near.mean() < far.mean() < 0.01
    assert far.max() < 0.05


def test_openvino_and_onnx_runtime_agree(narrow: bytes) -> None:
    expected = run(narrow)
    found = graph_engine(narrow, "local", network=GLAM_CONCATENATION).run({"patches": patches(2, seed=9)})
    wide = run(WIDE)["saliency_patches"]
    apart = np.abs(found["saliency_patches"] - expected["saliency_patches"]).mean()
    assert apart < np.abs(expected["saliency_patches"] - wide).mean() / 2


def test_the_same_calibration_gives_the_same_bytes(narrow: bytes) -> None:
    assert quantized(WIDE, [{"patches": patch[None]} for patch in patches(3)]) == narrow


def test_calibration_decides(narrow: bytes) -> None:
    """Ranges come from the images: with ten times the contrast in them, other scales."""
    assert quantized(WIDE, [{"patches": 10 * patch[None]} for patch in patches(3)]) != narrow


def test_refusals(narrow: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="at least one image"):
        quantized(WIDE, [])
    with pytest.raises(UsageError, match="no node conv9"):
        widened(WIDE, narrow, ["conv1", "conv9"])
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(BackendUnavailable, match=re.escape(install_line("quantize"))):
        require_nncf()
