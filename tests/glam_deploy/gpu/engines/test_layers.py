"""Layer reports: what confirms a precision, what contradicts it, and what says nothing."""

import json
from typing import Any

import pytest

from glam_deploy.errors import BackendBuildError
from glam_deploy.gpu.engines.tensorrt.layers import Convolution, read_report, require, share, weigh
from glam_deploy.precision import Precision

BIG = Convolution(name="node_big", weights=64 * 64 * 9, multiply_adds=900)
SMALL = Convolution(name="node_small", weights=64 * 64, multiply_adds=100)
BOTH = [BIG, SMALL]


def tensor(name: str, axes: str, kind: str) -> str:
    return (
        f"{{ Name: {name}, Dimensions: [{axes}], Strides: [9,9], StrideOrder: [1,0], Datatype: {kind}, "
        f"Format: (NHWC) Channel major format }}"
    )


def line(name: str, *, inputs: str, constants: str = "", metadata: str = "", kind: str = "correlation") -> str:
    """As TensorRT-RTX 1.7 prints a layer."""
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [{inputs}], Constants: [{constants}], "
        f"Outputs: [{tensor('out', '-1,64,8,8', 'Half')}], TacticName: x, StreamId: 0, Metadata: {metadata}"
    )


def big(kind: str, *, weights: str | None = None, name: str = "node_big_myl0_2") -> str:
    """The layer of BIG, with a bias and a scale in FP32 as the real ones have."""
    constants = (
        tensor("w", "64,64,3,3", weights or kind),
        tensor("bias", "1,64,1,1", kind),
        tensor("scale", "1", "Float"),
    )
    metadata = "[ONNX Layer: node_big][ONNX Layer: relu]"
    return line(name, inputs=tensor("a", "-1,64,8,8", kind), constants=", ".join(constants), metadata=metadata)


def small(kind: str) -> str:
    """The layer of SMALL, made a matrix product, its kernel transposed and without an axis."""
    return line(
        "__myl_FcAdd_myl0_42",
        kind="runtime_fusion",
        inputs=tensor("a", "-1,64,64", kind),
        constants=", ".join((tensor("bias", "1,64,1", kind), tensor("w", "1,64,64", kind))),
        metadata="[ONNX Layer: node_small]__gemm_from_conv1x1",
    )


def text(*lines: str) -> str:
    io = " Name: image, IOMode: Input, DataType: Float, Dimensions: [-1,1,8,8], Location: Device"
    return "\n".join(["Layers:", *lines, "", "I/O Tensors:", io, "", "Engine Metadata:", " Multi-Device: Disabled"])


def found(report: str, precision: Precision, float_inputs: tuple[str, ...] = ()) -> float:
    return share(BOTH, read_report(report), precision, float_inputs=float_inputs)


# the builder's lines


@pytest.mark.parametrize(("kind", "precision"), [("Float", "fp32"), ("Half", "fp16"), ("BFloat16", "bf16")])
def test_all_of_one_type(kind: str, precision: Precision) -> None:
    report = text(big(kind), small(kind))
    shares = {p: found(report, p) for p in ("fp32", "fp16", "bf16")}
    assert shares == {"fp32": 0.0, "fp16": 0.0, "bf16": 0.0} | {precision: 1.0}


def test_share_is_of_arithmetic_and_not_of_layers() -> None:
    assert found(text(big("Half"), small("Float")), "fp16") == pytest.approx(0.9)
    assert found(text(big("Float"), small("Half")), "fp16") == pytest.approx(0.1)


def test_half_weights_beside_float_inputs_are_not_half() -> None:
    assert found(text(big("Float", weights="Half"), small("Half")), "fp16") == pytest.approx(0.1)
    assert found(text(big("Half", weights="Float"), small("Half")), "fp16") == pytest.approx(0.1)


def test_second_input_counts_too() -> None:
    residual = tensor("a", "-1,64,8,8", "Half") + ", " + tensor("b", "-1,64,8,8", "Float")
    fused = line("x", inputs=residual, constants=tensor("w", "64,64,3,3", "Half"), metadata="[ONNX Layer: node_big]")
    assert found(text(fused, small("Half")), "fp16") == pytest.approx(0.1)


def test_layer_that_only_moves_the_input_of_a_convolution_does_not_count() -> None:
    pad = line("__myl_CastConc_myl0_1", kind="kgen", inputs=tensor("t", "-1,1,8,8", "Float"),
               metadata="[ONNX Layer: cast][ONNX Layer: node_big]")  # fmt: skip
    assert found(text(pad, big("Half"), small("Half")), "fp16") == 1.0


def test_padded_kernel_is_still_the_kernel() -> None:
    padded = line("x", inputs=tensor("a", "-1,128,8,8", "Half"), constants=tensor("w", "64,128,3,3", "Half"),
                  metadata="[ONNX Layer: node_big]")  # fmt: skip
    assert found(text(padded, small("Half")), "fp16") == 1.0


def test_every_profile_must_be_of_the_type() -> None:
    other = big("Float", name="node_big [profile 1]_myl1_2")
    assert found(text(big("Half"), other, small("Half")), "fp16") == pytest.approx(0.1)


def test_engine_input_that_is_converted_in_the_kernel() -> None:
    stem = line("x", inputs=tensor("image", "-1,1,8,8", "Float"), constants=tensor("w", "64,64,3,3", "Half"),
                metadata="[ONNX Layer: node_big]")  # fmt: skip
    report = text(stem, small("Half"))
    assert found(report, "fp16") == pytest.approx(0.1)
    assert found(report, "fp16", float_inputs=("image",)) == 1.0


def confirmed(report: str, precision: Precision) -> tuple[float, float]:
    """And what is contradicted."""
    found = weigh(BOTH, read_report(report), precision, float_inputs=())
    return found.confirmed, found.contradicted


def test_convolution_that_the_report_does_not_name_is_neither_confirmed_nor_contradicted() -> None:
    assert confirmed(text(big("Half")), "fp16") == pytest.approx((0.9, 0))
    assert confirmed(text(big("Half")), "fp32") == pytest.approx((0, 0.9))
    assert found(text(big("Half")), "fp16") == 1.0


def test_names_that_begin_alike_are_not_mixed_up() -> None:
    other = (
        big("Half").replace("[ONNX Layer: node_big]", "[ONNX Layer: node_big_2]").replace("Name: node_big", "Name: y")
    )
    assert confirmed(text(other, small("Half")), "fp16") == pytest.approx((0.1, 0))


def test_nodes_from_the_name_where_there_is_no_metadata() -> None:
    plain = big("Half", name="node_big [profile 1]_myl1_2").replace("[ONNX Layer: node_big][ONNX Layer: relu]", "")
    assert found(text(plain, small("Half")), "fp16") == 1.0


# the inspector's JSON


def described(kind: str, axes: list[int], *, release: int) -> dict[str, Any]:
    words = {"Float": "FP32", "Half": "FP16", "BFloat16": "BF16"}[kind]
    old = {"Format/Datatype": f"Channel major {words} format where channel % 8 == 0"}
    new = {"Format": "Channel major format where channel % 8 == 0", "DataType": kind}
    return {"Name": "t", "Dimensions": axes, **(old if release == 10 else new)}


def inspected(big_kind: str, small_kind: str, *, release: int) -> str:
    """BIG by a convolution kernel with its parameters, SMALL inside a fused layer with its constants."""
    layers = [
        {
            "Name": "node_big + relu",
            "LayerType": "CaskConvolution",
            "Inputs": [described(big_kind, [-1, 64, 8, 8], release=release)],
            "Outputs": [described(big_kind, [-1, 64, 8, 8], release=release)],
            "ParameterType": "Convolution",
            "Kernel": [3, 3],
            "OutMaps": 64,
            "Groups": 1,
            "Weights": {"Type": big_kind, "Count": BIG.weights},
            "Bias": {"Type": "Float", "Count": 64},
            "TacticName": "sm80_xmma_fprop",
            "Metadata": "[ONNX Layer: node_big]\x1e[ONNX Layer: relu]",
        },
        {
            "Name": "__myl_FcAdd_myl0_3",
            "LayerType": "gemm",
            "Inputs": [described(small_kind, [-1, 64, 64], release=release)],
            "Constants": [described(small_kind, [1, 64, 64], release=release)],
            "Outputs": [described(small_kind, [-1, 64, 64], release=release)],
            "Metadata": "[ONNX Layer: node_small]\x1f[ONNX Layer: add]",
        },
    ]
    io = {"Bindings": ["image", "z"]} if release == 10 else {"I/O Tensors": [{"Name": "image", "DataType": "Float"}]}
    return json.dumps({"Layers": layers, **io})


@pytest.mark.parametrize("release", [10, 11])
def test_inspector(release: int) -> None:
    assert found(inspected("Half", "Half", release=release), "fp16") == 1.0
    assert found(inspected("Half", "Float", release=release), "fp16") == pytest.approx(0.9)
    assert found(inspected("Float", "Float", release=release), "fp16") == 0.0
    assert found(inspected("Float", "Float", release=release), "fp32") == 1.0
    assert found(inspected("BFloat16", "BFloat16", release=release), "bf16") == 1.0
    assert found(inspected("BFloat16", "BFloat16", release=release), "fp16") == 0.0


def test_inspector_that_tells_types_of_inputs_alone() -> None:
    report = json.loads(inspected("Half", "Half", release=10))
    for layer in report["Layers"]:
        layer.pop("Weights", None)
        layer.pop("Constants", None)
    assert found(json.dumps(report), "fp16") == 1.0
    report["Layers"][0]["Inputs"][0]["Format/Datatype"] = "Row major linear FP32"
    assert found(json.dumps(report), "fp16") == pytest.approx(0.1)


def test_unknown_type_is_no_type() -> None:
    report = inspected("Half", "Half", release=11).replace('"Half"', '"Int8"')
    assert {found(report, p) for p in ("fp32", "fp16", "bf16")} == {0.0}


@pytest.mark.parametrize("report", ["", "Layers:", '{"Layers": []}', "{}", '{"Layers": ["node_big", "node_small"]}'])
def test_report_without_layers_confirms_nothing(report: str) -> None:
    with pytest.raises(BackendBuildError, match="layer report cannot be parsed"):
        read_report(report)


# the verdict


@pytest.mark.parametrize(("precision", "least"), [("fp16", 0.95), ("bf16", 0.95), ("fp32", 1.0)])
def test_floor(precision: Precision, least: float) -> None:
    require("local", precision, least)
    with pytest.raises(BackendBuildError, match=rf"local graph.*only 94\.0% .* are {precision}, expected {least:.0%}"):
        require("local", precision, 0.94)


def test_floor_is_no_rounding_matter() -> None:
    with pytest.raises(BackendBuildError):
        require("local", "fp32", 0.9999)
    with pytest.raises(BackendBuildError):
        require("global", "fp16", 0.9499)
