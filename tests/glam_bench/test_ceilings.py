"""Arithmetic and bytes, counted here by hand."""

import pytest
from onnx import TensorProto, helper

from glam_bench.arithmetic import convolution_flop
from glam_bench.measurements import kernel_times
from glam_bench.measurements.facts import bandwidth
from glam_bench.measurements.kernel_times import bytes_moved


def test_convolutions_are_counted_with_their_stride_and_nothing_else_is() -> None:
    """[3, 8, 8] -> 5 filters 3 x 3, stride 2, padding 1 -> [5, 4, 4]; then one filter 1 x 1."""
    weights = [
        helper.make_tensor("a", TensorProto.FLOAT, (5, 3, 3, 3), [0.0] * 135),
        helper.make_tensor("b", TensorProto.FLOAT, (1, 5, 1, 1), [0.0] * 5),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["y"], ["z"]),
        helper.make_node("Conv", ["z", "b"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", 3, 8, 8))],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ("batch", 1, 4, 4))],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    assert convolution_flop(model.SerializeToString()) == 2 * (5 * 4 * 4 * 27 + 4 * 4 * 5)


def test_bandwidth_of_known_cards() -> None:
    """Datasheets: H100 SXM 3.35 TB/s from 2619 MHz and 5120 bits, H200 4.8 TB/s from 3201 MHz and 6144 bits."""
    assert bandwidth(2_619_000, 5120) == pytest.approx(3.352e12, rel=1e-3)
    assert bandwidth(3_201_000, 6144) == pytest.approx(4.917e12, rel=1e-3)
    assert bandwidth(0, 6144) is None


def test_bytes_of_each_step() -> None:
    """As in docs/kernels.md, pixels read twice: 2944 x 1920 of them, 2 x 184 x 120 cells of a map, 512 x 512 pixels and
    2 x 128 x 128 cells of a patch; the fusion head reads these five times, and its weights: 2 x 128 x 512, 128, 2 x 768
    and 2. `place`: 3328 x 2560 pixels, 13.625 masks of 1 064 960 bytes, samples of 2 bytes."""
    samples = 2 * 236_985 + 2 * 266_240 + 2 * 5_888 + 39_996 + 133_120
    assert bytes_moved(3, 4) == {
        "place, uint16": 4 * (3328 * 2560 * 2 + 14_510_080 + 4 * samples),
        "standardize, uint16": 4 * 2944 * 1920 * (2 + 2 + 4),
        "standardize, float32": 4 * 2944 * 1920 * (4 + 4 + 4),
        "propose": 4 * 3 * 176_640,
        "crop": 4 * 3 * 2 * 1_048_576,
        "fuse": 4 * (2 * 2944 * 1920 * 4 + 176_640 + 3 * 131_072),
        "examine": 4 * 2944 * 1920 * 4,
        "head": 4 * (5 * 3 * 131_072 + 530_952),
    }


def test_share_of_the_bandwidth() -> None:
    """2 MB in 2 us are 1 TB/s."""
    row = kernel_times._row({"warm": 1.0, "cold": 2.0}, 2_000_000, {"copy": 2e12, "data_sheet": 4e12})
    assert row["bytes_per_s"] == pytest.approx(1e12)
    assert row["share"] == pytest.approx({"copy": 0.5, "data_sheet": 0.25})
    unknown = kernel_times._row({"warm": 1.0, "cold": 2.0}, None, {"copy": None})
    assert unknown == {"us": {"warm": 1.0, "cold": 2.0}, "bytes": None}
