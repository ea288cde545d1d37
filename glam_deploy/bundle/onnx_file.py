"""The structure of an ONNX file, as far as it decides which bytes a library loads and whether a run ends.

A tensor may name another file as the place of its values (external data). No hash of the manifest covers such a file,
and ONNX Runtime and OpenVINO look for it in the current folder when they open a graph from memory.

An operator may contain a graph (Loop, Scan, If, SequenceMap) or be defined by the file (functions). The graphs of an
export have neither, and a loop of 2**62 steps would run forever inside the library, where no signal ends it.

The reader accepts no encoding that a parser may read in two ways. Parsers of Protocol Buffers cut a tag to 32 bits, so
that a longer one would be another field for them.

Sources: onnx.proto of ONNX 1.21 (field numbers); Protocol Buffers, "Encoding" (wire types, varints).
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from glam_deploy.errors import BundleError
from glam_deploy.networks import Stage

VARINT, FIXED_64, BYTES, FIXED_32 = 0, 1, 2, 5
"""Wire types; 3 and 4, groups, are not used by ONNX."""

MODEL, TRAINING, FUNCTION, GRAPH, NODE, ATTRIBUTE, SPARSE, TENSOR = range(8)
"""Messages that may contain tensors, and the tensor itself."""

INSIDE: Mapping[int, Mapping[int, int]] = MappingProxyType(
    {
        MODEL: {7: GRAPH, 20: TRAINING, 25: FUNCTION},
        TRAINING: {1: GRAPH, 2: GRAPH},
        FUNCTION: {},
        GRAPH: {1: NODE, 5: TENSOR, 15: SPARSE},
        NODE: {5: ATTRIBUTE},
        ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 22: SPARSE, 23: SPARSE},
        SPARSE: {1: TENSOR, 2: TENSOR},
        TENSOR: {},
    }
)
"""Message -> field number -> the message in that field, for all fields that lead to a tensor. A function is not
searched, because its file is refused."""

IR_VERSION = b"\x08"
"""Key of the field that a serialized ONNX file begins with. No text format begins with it."""
FLATBUFFERS = (b"ORTM", b"TFL3")
"""Identifiers at byte 4 of ONNX Runtime's own format and of TFLite, which libraries recognize in memory."""
OPENVINO_IR = b"<net"
OPENVINO_SEARCHES = 512
"""OpenVINO takes a file for its own format, XML up to a NUL, if this is in its first bytes (2026.4)."""

TENSOR_NAME, EXTERNAL_DATA, DATA_LOCATION = 8, 13, 14
FUNCTION_NAME, OPERATOR = 1, 4
LONGEST_VARINT = 10
"""Bytes of a varint of 64 bits."""
LONGEST_TAG = 5
"""Bytes of a varint of 32 bits: of a tag and of a length, for which parsers accept no more."""

Field = tuple[int, int, memoryview]
"""Number, wire type and content of a field; the content of a number is its encoding."""


class NotOnnx(ValueError):
    """The bytes are not an ONNX file. The message says why."""


def require_plain_graph(graph: bytes, stage: Stage) -> None:
    """Raises BundleError for a graph that is not an ONNX file, whose weights are not all inside it, or which may not
    end, because it has operators that contain graphs, or functions.

    Called wherever a library opens a graph.
    """
    try:
        found = fault(graph)
    except NotOnnx as error:
        raise BundleError(f"{stage} graph: it is not an ONNX file ({error}). Export the checkpoint again.") from error
    if found:
        raise BundleError(f"{stage} graph: {found}. Do not use this bundle; export the checkpoint again.")


def fault(graph: bytes) -> str:
    """What an ONNX file has that no export has, and what was expected, as a clause; "" if there is nothing.

    Raises NotOnnx for bytes that are no ONNX file, because a library may read them as another format.
    """
    is_other = graph[4:8] in FLATBUFFERS or OPENVINO_IR in graph[:OPENVINO_SEARCHES]
    if not graph.startswith(IR_VERSION) or is_other:
        raise NotOnnx("it does not begin as one")
    pending, has_graph = [(MODEL, memoryview(graph))], False
    while pending:
        message, content = pending.pop()
        has_graph |= message == GRAPH
        inner = list(_inner(message, content))
        if found := _fault_of(message, content, inner):
            return found
        pending.extend(inner)
    if not has_graph:
        raise NotOnnx("it has no graph")
    return ""


def _inner(message: int, content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Those messages directly inside a message that `INSIDE` names. Raises NotOnnx for damage in any of its fields."""
    for number, wire_type, value in _fields(content):
        inner = INSIDE[message].get(number)
        if inner is not None and wire_type == BYTES:
            yield inner, value


def _fault_of(message: int, content: memoryview, inner: list[tuple[int, memoryview]]) -> str:
    if message == TENSOR and _is_external(content):
        return (
            f"the values of the tensor {_text(content, TENSOR_NAME)!r} are in another file (external data), which no "
            f"hash of the manifest covers; expected all weights inside the graph"
        )
    if message == FUNCTION:
        return (
            f"it defines the function {_text(content, FUNCTION_NAME)!r}; expected operators of ONNX only, as an export "
            f"has"
        )
    if message == NODE and any(each == GRAPH for _, held in inner for each, _ in _inner(ATTRIBUTE, held)):
        return (
            f"the operator {_text(content, OPERATOR)!r} contains a graph (control flow), whose running time has no "
            f"bound; expected none, as in an export"
        )
    return ""


def _is_external(tensor: memoryview) -> bool:
    return any(
        number == EXTERNAL_DATA or (number == DATA_LOCATION and (wire_type != VARINT or any(value)))
        for number, wire_type, value in _fields(tensor)
    )


def _text(message: memoryview, field: int) -> str:
    """The first characters of a text field, of which the last occurrence counts; "" if it is missing."""
    found = [value for number, wire_type, value in _fields(message) if (number, wire_type) == (field, BYTES)]
    return bytes(found[-1][:100]).decode("utf-8", "replace") if found else ""


def _fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message in their order. Raises NotOnnx."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place, LONGEST_TAG)
        number, wire_type = tag >> 3, tag & 7
        start, end = place, place
        if wire_type == VARINT:
            _, end = _varint(message, place)
        elif wire_type == BYTES:
            size, start = _varint(message, place, LONGEST_TAG)
            end = start + size
        elif wire_type in (FIXED_32, FIXED_64):
            end = place + (4 if wire_type == FIXED_32 else 8)
        else:
            raise NotOnnx(f"a field has the wire type {wire_type}")
        if number == 0 or tag >= 2**32 or end > len(message):
            raise NotOnnx("a field is damaged or cut")
        yield number, wire_type, message[start:end]
        place = end


def _varint(message: memoryview, place: int, longest: int = LONGEST_VARINT) -> tuple[int, int]:
    """A number of 7 bits in each byte, at most `longest` bytes, and the place after it."""
    value = 0
    for count, byte in enumerate(message[place : place + longest]):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value, place + count + 1
    raise NotOnnx("a number is damaged, cut or too long")
