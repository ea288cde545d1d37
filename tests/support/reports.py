"""Layer reports as the releases of TensorRT print them, of layers that a test makes up.

Where each form was seen:
- lines of 10.x: github.com/NVIDIA/TensorRT issues 4397 (10.10), 3583 (9.1, formats in words, nodes separated by U+001E)
  and the logs of trtexec in torch_onnx_trtexec of 2024 (10.x: scalars `alpha` and `beta`, constants among the inputs);
  Torch-TensorRT's documentation "Compile Mixed Precision models" (layers of Myelin without metadata);
- JSON of 10.x: issues 4020 and 3876; "N/A due to dynamic shapes" of engines with a dynamic batch: NvInferRuntime.h,
  `IEngineInspector::setExecutionContext`;
- JSON of 11.x: docs.nvidia.com, "Migrating IEngineInspector Usage from TensorRT 10.x to 11.x": `Format/DataType` is
  split, `Bindings` has become `I/O Tensors`;
- lines of TensorRT-RTX 1.7.1: its own output, recorded in tests/glam_deploy/gpu/engines/reports/rtx-1.7.1.*.txt.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

NOT_TOLD = "N/A due to dynamic shapes"
WORDS = {"Float": "FP32", "Half": "FP16", "BFloat16": "BF16", "Int8": "Int8", "FP8": "FP8"}
RECORD_SEPARATOR = "\x1e"


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor of a layer."""

    name: str
    axes: Sequence[int]
    kind: str
    """Such as "Half" and "Float", or NOT_TOLD."""


@dataclass(frozen=True, kw_only=True)
class MadeLayer:
    """A layer of an engine."""

    name: str
    kind: str = "CaskConvolution"
    nodes: Sequence[str] = ()
    inputs: Sequence[Tensor] = ()
    constants: Sequence[Tensor] = ()
    outputs: Sequence[Tensor] = ()
    weights: tuple[str, int] | None = None
    """Type and count of the kernel, of a layer that tells it as a parameter."""
    extra: dict[str, Any] = field(default_factory=dict)
    """More parameters."""

    @property
    def metadata(self) -> str:
        return RECORD_SEPARATOR.join(f"[ONNX Layer: {node}]" for node in self.nodes)


def lines(layers: Sequence[MadeLayer], *, release: int = 10) -> str:
    """The builder's message at VERBOSE: of release 10, or as TensorRT-RTX 1.7 has it for 11."""
    form = _line_10 if release == 10 else _line_11
    end = (
        ["", "Bindings:", "patches", "z_k"] if release == 10 else ["", "I/O Tensors:", " Name: patches, IOMode: Input"]
    )
    return "\n".join(["Layers:", *map(form, layers), *end])


def _line_10(layer: MadeLayer) -> str:
    def told(tensor: Tensor) -> str:
        place = "" if layer.kind in ("gemm", "kgen") else "Location: Device, "
        axes = ",".join(map(str, tensor.axes))
        return f"{{ Name: {tensor.name}, {place}Dimensions: [{axes}], Format/Datatype: {tensor.kind} }}"

    inputs = ", ".join(map(told, (*layer.inputs, *layer.constants)))
    outputs = ", ".join(map(told, layer.outputs))
    return (
        f"Name: {layer.name}, LayerType: {layer.kind}, Inputs: [ {inputs}], Outputs: [ {outputs}]{_parameters(layer)}, "
        f"TacticName: sm80_xmma, StreamId: 0, Metadata: {layer.metadata}"
    )


def _line_11(layer: MadeLayer) -> str:
    def told(tensor: Tensor) -> str:
        axes = ",".join(map(str, tensor.axes))
        strides = ",".join("1" for _ in tensor.axes)
        return (
            f"{{ Name: {tensor.name}, Dimensions: [{axes}], Strides: [{strides}], StrideOrder: [{strides}], "
            f"Datatype: {tensor.kind}, Format: (NHWC) Channel major format }}"
        )

    sections = ((name, getattr(layer, name.lower())) for name in ("Inputs", "Constants", "Outputs"))
    tensors = ", ".join(f"{name}: [{' ' if found else ''}{', '.join(map(told, found))}]" for name, found in sections)
    return (
        f"Name: {layer.name}, LayerType: {layer.kind}, {tensors}{_parameters(layer)}, TacticName: __myelin_CASK_STUB, "
        f"StreamId: 0, Metadata: {layer.metadata}"
    )


def _parameters(layer: MadeLayer) -> str:
    weights = {} if layer.weights is None else {"Weights": _weights(layer.weights)}
    told = {**layer.extra, **weights}
    return "".join(f", {key}: {_plain(value)}" for key, value in told.items())


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return value if isinstance(value, str) else json.dumps(value)


def _weights(weights: tuple[str, int]) -> dict[str, Any]:
    return {"Type": weights[0], "Count": weights[1]}


def inspected(layers: Sequence[MadeLayer], *, release: int = 10) -> dict[str, Any]:
    """The inspector's JSON."""
    io = (
        {"Bindings": ["patches", "z_k"]} if release == 10 else {"I/O Tensors": [{"Name": "patches", "IOMode": "Input"}]}
    )
    return {"Layers": [_described(layer, release) for layer in layers], **io}


def _described(layer: MadeLayer, release: int) -> dict[str, Any]:
    def told(tensor: Tensor) -> dict[str, Any]:
        words = WORDS.get(tensor.kind)
        format_ = f"Channel major {words} format where channel % 8 == 0" if words else tensor.kind
        new = {"Format": "N/A", "DataType": tensor.kind}
        return {
            "Name": tensor.name,
            "Location": "Device",
            "Dimensions": list(tensor.axes),
            **({"Format/Datatype": format_} if release == 10 else new),
        }

    constants = {} if release == 10 else {"Constants": [told(tensor) for tensor in layer.constants]}
    inputs = (*layer.inputs, *(layer.constants if release == 10 else ()))
    return {
        "Name": layer.name,
        "LayerType": layer.kind,
        "Inputs": [told(tensor) for tensor in inputs],
        **constants,
        "Outputs": [told(tensor) for tensor in layer.outputs],
        **layer.extra,
        **({} if layer.weights is None else {"Weights": _weights(layer.weights)}),
        "TacticName": "sm80_xmma",
        "TacticValue": "0x1",
        "StreamId": 0,
        "Metadata": layer.metadata,
    }
