"""What an engine really computes in: from the library's own report of the layers that it built.

Engines labelled fp16 that compute in FP32 exist, so the label is never believed. Each convolution of the network is
looked up in the report by its ONNX name, and counts for a precision if its weights and inputs have that type. The
weight of a convolution is its multiply-adds, so that one large layer in the wrong type is not hidden by many small
ones.

A report comes in two forms, and releases differ in names of fields; all are read here, and what cannot be found counts
as not confirmed:

- the builder's verbose message that begins "Layers:" (TensorRT-RTX), a line a layer, which needs no GPU;
- JSON of the engine inspector (both libraries, where there is a GPU), with "Format/Datatype" in one field up to
  TensorRT 10 and types in a field of their own since 11. Source: docs.nvidia.com, "Engine Inspector" and "Migrating
  IEngineInspector Usage from TensorRT 10.x to 11.x".
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from glam_deploy.errors import BackendBuildError
from glam_deploy.spec import Precision, Stage

REPORT_BEGINS = "Layers:"
MINIMUM_SHARE: Mapping[Precision, float] = {"fp32": 1.0, "fp16": 0.95, "bf16": 0.95}
"""Share of the convolutions' arithmetic below which an engine is not what it is called."""


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """A convolution of the network before it was built."""

    name: str
    """Of its ONNX node."""
    weights: int
    """Elements of its kernel tensor."""
    multiply_adds: int
    """For a batch of one."""


@dataclass(frozen=True, kw_only=True)
class Operand:
    """A tensor that a layer reads."""

    name: str
    precision: Precision | None
    """None for a type that is none of ours, and for one that the report does not tell."""
    elements: int
    """1 for every dynamic axis."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer of the engine: often several ONNX nodes in one kernel."""

    nodes: frozenset[str]
    """Names of those nodes."""
    inputs: tuple[Operand, ...]
    weights: tuple[Operand, ...]
    """Constants that it reads: kernels, biases, scales."""


def share(
    convolutions: Sequence[Convolution], layers: Sequence[Layer], precision: Precision, *, float_inputs: Iterable[str]
) -> float:
    """Share of the convolutions' multiply-adds that the engine does in `precision`, 0..1.

    A convolution counts if each layer that does it has weights and inputs of that type. `float_inputs` are the engine's
    own inputs, which are float32 in every precision: a kernel that reads one and converts it on the way still computes
    in `precision`.
    """
    total = sum(convolution.multiply_adds for convolution in convolutions)
    given = frozenset(float_inputs)
    confirmed = sum(c.multiply_adds for c in convolutions if _computes_in(precision, _doing(c, layers), given))
    return confirmed / total


def require(stage: Stage, precision: Precision, found: float) -> None:
    """Raises BackendBuildError where less of the convolutions' arithmetic than is due is confirmed to be of a type."""
    if found < MINIMUM_SHARE[precision]:
        raise BackendBuildError(
            f"{stage} graph: the engine was to compute in {precision}, but by its own layer report only "
            f"{found:.1%} of the multiply-adds of its convolutions do; {MINIMUM_SHARE[precision]:.0%} are expected. It "
            f"was not kept. Export the checkpoint again, or build another precision."
        )


def _doing(convolution: Convolution, layers: Sequence[Layer]) -> list[Layer]:
    """The layers that do a convolution, one for each optimization profile.

    Layers that only move its input name the same node; those that hold its weights are the ones, where the report
    tells weights at all. A library may pad a kernel, so that it grows.
    """
    naming = [layer for layer in layers if convolution.name in layer.nodes]
    return [layer for layer in naming if _kernels(layer, convolution)] or naming


def _kernels(layer: Layer, convolution: Convolution) -> list[Operand]:
    return [operand for operand in layer.weights if operand.elements >= convolution.weights]


def _computes_in(precision: Precision, layers: Sequence[Layer], float_inputs: frozenset[str]) -> bool:
    operands = [o for layer in layers for o in (*layer.inputs, *_largest(layer.weights)) if o.name not in float_inputs]
    return bool(layers) and all(operand.precision == precision for operand in operands)


def _largest(operands: Sequence[Operand]) -> Sequence[Operand]:
    """The kernel itself: biases and scales beside it may have any type."""
    return sorted(operands, key=lambda operand: operand.elements)[-1:]


# reading


def read_report(text: str) -> list[Layer]:
    """Layers from either form of a report. Raises BackendBuildError where it has none, or names without details."""
    found = list(_from_json(text) if text.lstrip().startswith("{") else _from_lines(text))
    if not found:
        raise BackendBuildError(
            f"the library's layer report cannot be read, so that the engine's precision is not confirmed. It begins "
            f"with {text[:80]!r}. Please report this with the library's version."
        )
    return found


_ONNX_NODE = re.compile(r"\[ONNX Layer: ([^]]*)\]")
_ADDED = re.compile(r"( \[profile \d+\])?(_myl\d+_\d+)?$")
"""What the library appends to the name of a node."""


def _nodes(name: str, metadata: str) -> frozenset[str]:
    """ONNX nodes in a layer: the metadata lists them; without any, they are joined by a plus in the name."""
    told = _ONNX_NODE.findall(metadata) or [_ADDED.sub("", part.strip()) for part in name.split(" + ")]
    return frozenset(told)


_TYPES: Mapping[Precision, re.Pattern[str]] = {
    "fp32": re.compile(r"\b(Float|FP32|Float32)\b", re.IGNORECASE),
    "fp16": re.compile(r"\b(Half|FP16|Float16)\b", re.IGNORECASE),
    "bf16": re.compile(r"\b(BFloat16|BF16)\b", re.IGNORECASE),
}


def _precision(words: str) -> Precision | None:
    """The type in "Half", or in "Channel major FP16 format where channel % 8 == 0"."""
    return next((precision for precision, pattern in _TYPES.items() if pattern.search(words)), None)


def _elements(dimensions: Iterable[int]) -> int:
    return prod(abs(axis) for axis in dimensions)


# lines

_LINE = re.compile(
    r"^Name: (?P<name>.*?), LayerType: \w+, Inputs: (?P<inputs>.*?), Constants: (?P<constants>.*?), Outputs: .*?"
    r"Metadata: (?P<metadata>.*)$",
    re.MULTILINE,
)
_TENSOR = re.compile(r"\{ Name: (.*?), Dimensions: \[([-\d,]*)\].*?, Datatype: (\w+)")


def _from_lines(text: str) -> Iterator[Layer]:
    for line in _LINE.finditer(text):
        yield Layer(
            nodes=_nodes(line["name"], line["metadata"]),
            inputs=tuple(_operands(line["inputs"])),
            weights=tuple(_operands(line["constants"])),
        )


def _operands(text: str) -> Iterator[Operand]:
    for name, axes, kind in _TENSOR.findall(text):
        elements = _elements(int(axis) for axis in axes.split(",") if axis)
        yield Operand(name=name, precision=_precision(kind), elements=elements)


# JSON


def _from_json(text: str) -> Iterator[Layer]:
    for layer in json.loads(text).get("Layers", []):
        if isinstance(layer, dict):  # of an engine built without detailed profiling, each is a name alone
            yield Layer(
                nodes=_nodes(layer.get("Name", ""), layer.get("Metadata", "")),
                inputs=tuple(map(_operand, layer.get("Inputs", []))),
                weights=tuple(_weights(layer)),
            )


def _weights(layer: Mapping[str, Any]) -> Iterator[Operand]:
    yield from map(_operand, layer.get("Constants", []))
    if kernel := layer.get("Weights"):
        yield Operand(name="", precision=_precision(str(kernel.get("Type"))), elements=int(kernel.get("Count", 0)))


def _operand(tensor: Mapping[str, Any]) -> Operand:
    kind = next((tensor[key] for key in ("Datatype", "DataType", "Format/Datatype", "Format") if key in tensor), "")
    return Operand(
        name=tensor.get("Name", ""), precision=_precision(kind), elements=_elements(tensor.get("Dimensions", []))
    )
