"""Graphs in Winograd's form against torch's convolutions in float64."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper, numpy_helper

from glam_export.precision.winograd import MIN_CHANNELS, TILE, transforms, winograd

Arrays = dict[str, np.ndarray]

ROUNDINGS = 2**-18
"""Share of the largest value that a chain may be off, in float32 of 24 bits: measured at most a third of it."""


def graph(nodes: Sequence[NodeProto], weights: Arrays, shape: Sequence[int], outputs: Sequence[str] = ("y",)) -> bytes:
    """An ONNX file that takes x [batch, *shape]."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *shape])
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    tensors = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    whole = helper.make_graph(list(nodes), "test", [x], results, tensors)
    model = helper.make_model(whole, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    onnx.checker.check_model(inferred, full_check=True)
    return bytes(inferred.SerializeToString())


def conv(x: str, kernel: str, y: str, bias: str = "", **attributes: Any) -> NodeProto:
    return helper.make_node("Conv", [x, kernel, *filter(None, [bias])], [y], **attributes)


def run(file: bytes, x: np.ndarray) -> list[np.ndarray]:
    onnx.checker.check_model(onnx.load_from_string(file), full_check=True)
    return list(ort.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {"x": x}))


def operators(file: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(file).graph.node]


def random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def kernel(seed: int, *shape: int) -> np.ndarray:
    """Such that a map keeps its size."""
    return random(seed, *shape) / np.float32(np.sqrt(np.prod(shape[1:])))


def wide(values: np.ndarray) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def assert_close(found: np.ndarray, expected: torch.Tensor) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected.numpy()).max() <= ROUNDINGS * float(expected.abs().max())


@given(st.lists(st.integers(-99, 99), min_size=6, max_size=6), st.lists(st.integers(-99, 99), min_size=3, max_size=3))
def test_transforms_make_a_correlation(row: list[int], taps: list[int]) -> None:
    a, b, g = transforms()
    assert np.allclose(a.T @ ((g @ taps) * (b @ row)), np.correlate(row, taps, "valid"), rtol=0, atol=1e-9)


def test_transforms_of_maps_are_exact_in_float32() -> None:
    for matrix in transforms()[:2]:
        both = np.kron(matrix, matrix)
        assert (both == both.astype(np.float32)).all()


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 3),
    channels=st.integers(MIN_CHANNELS, MIN_CHANNELS + 20),
    outputs=st.integers(MIN_CHANNELS, MIN_CHANNELS + 20),
    tiles=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    bias=st.booleans(),
)
def test_one_convolution_of_any_shape(
    seed: int, batch: int, channels: int, outputs: int, tiles: tuple[int, int], bias: bool
) -> None:
    sides = [side * TILE for side in tiles]
    weights = {"w": kernel(seed, outputs, channels, 3, 3)} | ({"b": random(seed + 1, outputs)} if bias else {})
    x = random(seed + 2, batch, channels, *sides)
    file = winograd(graph([conv("x", "w", "y", "b" if bias else "", pads=[1] * 4)], weights, x.shape[1:]))
    expected = F.conv2d(wide(x), wide(weights["w"]), wide(weights["b"]) if bias else None, padding=1)
    assert "Conv" not in operators(file)
    assert_close(run(file, x)[0], expected)


@pytest.fixture(scope="module")
def block() -> tuple[bytes, Arrays, np.ndarray]:
    """Two residual blocks as the local graph has them, the first with a shortcut; biases that are far from zero."""
    c, d = MIN_CHANNELS, MIN_CHANNELS + 8
    shapes = {"w1": (d, c, 3, 3), "w2": (d, d, 3, 3), "w3": (d, c, 1, 1), "w4": (d, d, 3, 3), "w5": (2, d, 1, 1)}
    weights = {name: kernel(i, *shape) for i, (name, shape) in enumerate(shapes.items())}
    weights |= {f"b{name[1:]}": random(i + 9, shape[0]) * 5 for i, (name, shape) in enumerate(shapes.items())}
    node = helper.make_node
    nodes = [
        conv("x", "w1", "c1", "b1", pads=[1] * 4),
        node("Relu", ["c1"], ["r1"]),
        conv("r1", "w2", "c2", "b2", pads=[1] * 4),
        conv("x", "w3", "c3", "b3"),
        node("Add", ["c3", "c2"], ["a1"]),
        node("Relu", ["a1"], ["r2"]),
        conv("r2", "w4", "c4", "b4", pads=[1] * 4),
        node("Add", ["r2", "c4"], ["a2"]),
        conv("a2", "w5", "c5", "b5"),
        node("Sigmoid", ["c5"], ["map"]),
        node("ReduceMax", ["a2", "axes"], ["most"], keepdims=0),
    ]
    x = random(31, 2, c, 3 * TILE, 5 * TILE)
    axes = {"axes": np.array([2, 3], np.int64)}
    return graph(nodes, weights | axes, x.shape[1:], ("map", "most", "a2")), weights, x


def expected_of_block(weights: Arrays, x: np.ndarray) -> list[torch.Tensor]:
    w = {name: wide(values) for name, values in weights.items()}
    first = F.relu(F.conv2d(wide(x), w["w1"], w["b1"], padding=1))
    second = F.relu(F.conv2d(wide(x), w["w3"], w["b3"]) + F.conv2d(first, w["w2"], w["b2"], padding=1))
    last = second + F.conv2d(second, w["w4"], w["b4"], padding=1)
    return [F.conv2d(last, w["w5"], w["b5"]).sigmoid(), last.amax((2, 3)), last]


def test_chain_stays_in_tiles_and_keeps_the_border(block: tuple[bytes, Arrays, np.ndarray]) -> None:
    file, weights, x = block
    found = run(winograd(file), x)
    for values, expected in zip(found, expected_of_block(weights, x), strict=True):
        assert_close(values, expected)
    # x once to tiles; the map and the sum, which are outputs, once back
    assert operators(winograd(file)).count("Transpose") == 3
    assert "Conv" not in operators(winograd(file))


def test_largest_value_below_zero(block: tuple[bytes, Arrays, np.ndarray]) -> None:
    """The tile of zeros has no part in it."""
    _, weights, x = block
    nodes = [
        conv("x", "w", "c", "b", pads=[1] * 4),
        helper.make_node("ReduceMax", ["c", "axes"], ["y"], keepdims=0),
    ]
    few = {"w": weights["w1"], "b": np.full(len(weights["w1"]), -99, np.float32), "axes": np.array([2, 3], np.int64)}
    (found,) = run(winograd(graph(nodes, few, x.shape[1:])), x)
    assert_close(found, F.conv2d(wide(x), wide(few["w"]), wide(few["b"]), padding=1).amax((2, 3)))
    assert found.max() < 0


def test_openvino_runs_it_alike(block: tuple[bytes, Arrays, np.ndarray]) -> None:
    file, weights, x = block
    core = ov.Core()
    compiled = core.compile_model(core.read_model(winograd(file), b""), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled({"x": x})
    for i, expected in enumerate(expected_of_block(weights, x)):
        assert_close(results[i], expected)


@pytest.mark.parametrize(
    ("attributes", "shape", "sides"),
    [
        ({"pads": [1] * 4, "strides": [2, 2]}, (64, 64, 3, 3), (8, 8)),
        ({"pads": [2] * 4, "dilations": [2, 2]}, (64, 64, 3, 3), (8, 8)),
        ({"pads": [1] * 4, "group": 2}, (64, 64, 3, 3), (8, 8)),
        ({"pads": [0, 0, 2, 2]}, (64, 64, 3, 3), (8, 8)),
        ({"auto_pad": "SAME_UPPER"}, (64, 64, 3, 3), (8, 8)),
        ({"pads": [2] * 4}, (64, 64, 5, 5), (8, 8)),
        ({"pads": [1] * 4}, (64, 64, 3, 3), (8, 10)),
        ({"pads": [1] * 4}, (32, 64, 3, 3), (8, 8)),
        ({}, (64, 64, 1, 1), (8, 8)),
    ],
    ids=["stride", "dilation", "groups", "uneven padding", "automatic padding", "5x5", "no whole tiles", "few", "1x1"],
)
def test_other_convolutions_stay(attributes: dict[str, Any], shape: tuple[int, ...], sides: tuple[int, int]) -> None:
    channels = shape[1] * attributes.get("group", 1)
    file = graph([conv("x", "w", "y", **attributes)], {"w": kernel(1, *shape)}, (channels, *sides))
    assert operators(winograd(file)) == ["Conv"]
    x = random(2, 1, channels, *sides)
    assert np.array_equal(run(winograd(file), x)[0], run(file, x)[0])


def test_deep_chain_loses_little() -> None:
    """Sixteen blocks, as the local graph has; no more than one convolution may."""
    c, depth = MIN_CHANNELS, 16
    weights = {f"w{i}": kernel(i, c, c, 3, 3) * np.float32(2**0.5) for i in range(depth)}
    nodes, last = [], "x"
    for i in range(depth):
        nodes += [conv(last, f"w{i}", f"c{i}", pads=[1] * 4), helper.make_node("Relu", [f"c{i}"], [f"r{i}"])]
        last = f"r{i}"
    nodes[-1].output[0] = "y"
    x = random(77, 1, c, 16, 16)
    expected = wide(x)
    for values in weights.values():
        expected = F.relu(F.conv2d(expected, wide(values), padding=1))
    assert_close(run(winograd(graph(nodes, weights, x.shape[1:])), x)[0], expected)
