"""Parser of the layer report of an engine: its layers, their ONNX nodes, and the types of their tensors.

A report has two forms: a VERBOSE message of the builder that begins with "Layers:" and has a line for each layer, and
the JSON of the engine inspector. Their fields depend on the release:

| release | type of a tensor | kernel of a convolution |
|---|---|---|
| 10.x, lines | `Format/Datatype: Half` | `Weights: {"Type": "Half", "Count": 23232}`; in layers of Myelin an input |
| TensorRT-RTX 1.7, lines | `Datatype: Half, Format: ...` | a tensor in `Constants` |
| 10.x, JSON | `"Format/Datatype"` | `"Weights": {"Type": ..., "Count": ...}`, or an input |
| 11.x, JSON | `"DataType"`, with `"Format"` beside it | `"Weights"`, or a tensor in `"Constants"` |

If the batch is dynamic and the inspector has no execution context, a type is "N/A due to dynamic shapes".
Sources: github.com/NVIDIA/TensorRT issues 4397, 4020, 3583 and 3876; docs.nvidia.com, "Engine Inspector" and "Migrating
IEngineInspector Usage from TensorRT 10.x to 11.x"; the output of TensorRT-RTX 1.7.1.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from glam_deploy.errors import BackendBuildError

REPORT_BEGINS = "Layers:"


@dataclass(frozen=True, kw_only=True)
class Operand:
    """A tensor that a layer reads."""

    name: str
    """Name without the suffix of an optimization profile; empty for the parameters of a layer."""
    type: str | None
    """ "fp32", "fp16", "bf16", or the report's name of another type in lower case, such as "int8"; None if the report
    has no type."""
    elements: int
    """Number of elements, with 1 for a dynamic axis; 0 if the report has no shape."""
    dynamic: bool = False
    """Whether an axis is dynamic, like the batch axis of all activations in a report without concrete shapes."""

    @property
    def is_named_constant(self) -> bool:
        """Whether Myelin or the ONNX parser uses this name for constants: `__mye595_dconst`, `..._constantHalf`."""
        return bool(_CONSTANT_NAME.search(self.name))


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer of the engine; often several ONNX nodes fused in one kernel."""

    name: str
    kind: str
    """LayerType, such as "CaskConvolution"; empty if the report has none."""
    metadata: str
    """Names of the ONNX nodes; empty in some releases and layers."""
    inputs: tuple[Operand, ...]
    constants: tuple[Operand, ...]
    """Constants that the report lists separately: kernels, biases, scales."""
    kernel: Operand | None = None
    """Parameter `Weights` of a convolution layer; None without it."""

    def does(self, node: str) -> bool:
        """Whether the layer computes an ONNX node, from the metadata or, without metadata, from the name.

        The name joins the nodes by " + ", with "_" instead of quotes and suffixes such as " [profile 1]_myl1_2".
        """
        if _NODE in self.metadata:
            return f"{_NODE}{node}]" in self.metadata
        plain, wanted = _ADDED.sub("", self.name), node.replace('"', "_")
        return f" + {wanted} + " in f" + {plain} + "


_NODE = "[ONNX Layer: "
_ADDED = re.compile(r"( \[profile \d+\])?(_myl\d+_\d+)?(?= \+ |$)")
_PROFILE = re.compile(r" \[profile \d+\]")
_CONSTANT_NAME = re.compile(r"^__mye\d+\w*const|_constant(Float|Half|BFloat16|Int\d+)?$")


def read_report(text: str) -> list[Layer]:
    """Parse the layers of either form. Raises BackendBuildError if there are none, or only names without details."""
    try:
        found = list(_from_json(text) if text.lstrip().startswith("{") else _from_lines(text))
    except ValueError:  # no JSON
        found = []
    if not found:
        raise BackendBuildError(
            f"the library's layer report cannot be parsed: it begins with {text[:80]!r}, expected JSON or "
            f"{REPORT_BEGINS!r}. Please report this with the library's version."
        )
    return found


# types

_TYPES: Mapping[str, re.Pattern[str]] = {
    "fp32": re.compile(r"\bk?(float|fp32|float32)\b", re.IGNORECASE),
    "fp16": re.compile(r"\bk?(half|fp16|float16)\b", re.IGNORECASE),
    "bf16": re.compile(r"\bk?(bfloat16|bf16)\b", re.IGNORECASE),
}
_OTHER_TYPE = re.compile(r"\bk?(u?int\d+|fp\d\w*|float\d\w*|bool|e\d+m\d+\w*|tf32|double)\b", re.IGNORECASE)


def _type(text: str) -> str | None:
    """The type in a text such as "Half" or "Channel major FP16 format where channel % 8 == 0"; None without one."""
    for name, pattern in _TYPES.items():
        if pattern.search(text):
            return name
    other = _OTHER_TYPE.search(text)
    return other[1].lower() if other else None


def _operand(name: str, axes: Iterable[int] | None, type: str | None) -> Operand:
    sizes = [0] if axes is None else list(axes)
    return Operand(
        name=_PROFILE.sub("", name),
        type=type,
        elements=prod(abs(size) for size in sizes),
        dynamic=any(size < 0 for size in sizes),
    )


# lines

_HEAD = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>[^,]*)(?=, )|Name: (?P<bare>.*?)(?=, (?:Inputs|Constants|Outputs): \[)"
)
_SECTION = re.compile(r", (Inputs|Constants|Outputs): \[")
_SECTION_END = re.compile(r"\](?=, [A-Z]|$)")
_FIELD = r", [A-Z][A-Za-z/]*: (?:\[[-\d, ]*\]|[^{}\[\],]*)"
_TENSOR = re.compile(rf"(?:, )?\s*\{{ Name: (?P<name>.*?)(?P<fields>(?:{_FIELD})+)\}}(?=, \{{ Name: |\])")
"""One tensor. A name may contain any characters, so it ends where only fields follow up to the closing brace."""
_AXES = re.compile(r", Dimensions: \[([-\d, ]*)\]")
_KINDS = (re.compile(r", (?:Format/)?Data[Tt]ype: ([^,}]*)"), re.compile(r", Format: ([^,}]*)"))
_WEIGHTS = re.compile(r", Weights: (\{[^{}]*\})")


def _from_lines(text: str) -> Iterator[Layer]:
    for line in text.split("\n"):  # not splitlines, which also splits at the control characters between names
        if head := _HEAD.match(line):
            tensors, rest = _sections(line, head.end())
            parameters, _, metadata = rest.partition(", Metadata: ")
            yield Layer(
                name=head["name"] or head["bare"] or "",
                kind=head["kind"] or "",
                metadata=metadata,
                inputs=tuple(tensors["Inputs"]),
                constants=tuple(tensors["Constants"]),
                kernel=_line_kernel(parameters),
            )


def _sections(line: str, place: int) -> tuple[dict[str, list[Operand]], str]:
    """Tensors of each section of a line from position `place` on, and the rest of the line."""
    found: dict[str, list[Operand]] = {"Inputs": [], "Constants": [], "Outputs": []}
    while section := _SECTION.match(line, place):
        place = section.end()
        while tensor := _TENSOR.match(line, place):
            found[section[1]].append(_line_operand(tensor["name"], tensor["fields"]))
            place = tensor.end()
        end = _SECTION_END.search(line, place)
        place = end.end() if end else len(line)
    return found, line[place:]


def _line_operand(name: str, fields: str) -> Operand:
    axes = _AXES.search(fields)
    kinds = (_type(found[1]) for found in (key.search(fields) for key in _KINDS) if found)
    return _operand(
        name,
        [int(axis) for axis in axes[1].split(",") if axis.strip()] if axes else None,
        next(filter(None, kinds), None),
    )


def _line_kernel(parameters: str) -> Operand | None:
    found = _WEIGHTS.search(parameters)
    return _json_kernel(json.loads(found[1])) if found else None


# JSON

_KEYS = ("Datatype", "DataType", "Format/Datatype", "Format/DataType", "Format")


def _from_json(text: str) -> Iterator[Layer]:
    for layer in _listed(json.loads(text), "Layers"):
        if isinstance(layer, dict):  # without detailed profiling, each layer is only a name
            yield Layer(
                name=str(layer.get("Name", "")),
                kind=str(layer.get("LayerType", "")),
                metadata=str(layer.get("Metadata", "")),
                inputs=tuple(_json_operands(layer, "Inputs")),
                constants=tuple(_json_operands(layer, "Constants")),
                kernel=_json_kernel(layer.get("Weights")),
            )


def _listed(record: Any, key: str) -> list[Any]:
    found = record.get(key) if isinstance(record, dict) else None
    return found if isinstance(found, list) else []


def _json_operands(layer: Mapping[str, object], key: str) -> Iterator[Operand]:
    for tensor in _listed(layer, key):
        if isinstance(tensor, dict):
            kinds = (_type(str(tensor[key])) for key in _KEYS if key in tensor)
            axes = tensor.get("Dimensions")
            yield _operand(
                str(tensor.get("Name", "")),
                [int(axis) for axis in axes] if isinstance(axes, list) else None,
                next(filter(None, kinds), None),
            )


def _json_kernel(weights: Any) -> Operand | None:
    if not isinstance(weights, dict):
        return None
    count = weights.get("Count")
    elements = int(count) if isinstance(count, int | str) else 0
    return Operand(name="", type=_type(str(weights.get("Type"))), elements=elements)


def reports(trt: Any, engine: Any) -> Iterator[str]:
    """JSON reports without an execution context, then with one for each optimization profile at its usual batch size.

    The engine's GPU must be current. There is no report for a profile whose context the library cannot create, or whose
    shapes it rejects; the library's log has the reason.
    """
    inspector = engine.create_engine_inspector()
    yield str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    for profile in range(engine.num_optimization_profiles):
        # USER_MANAGED: no memory is allocated, because nothing is run
        context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is not None and _shaped(trt, engine, context, profile):
            inspector.execution_context = context
            yield str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _shaped(trt: Any, engine: Any, context: Any, profile: int) -> bool:
    """Set a profile, on the default stream, and its usual shapes. Returns False if the library rejects them."""
    if context.active_optimization_profile != profile and not context.set_optimization_profile_async(profile, 0):
        return False
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    return all(context.set_input_shape(name, engine.get_tensor_profile_shape(name, profile)[1]) for name in inputs)
