"""The structure of an ONNX file, as far as it decides which bytes a library loads: weights outside of the file.

A tensor may name another file as the place of its values (external data). No hash of the manifest covers such a file,
and ONNX Runtime and OpenVINO look for it in the current folder when they open a graph from memory.

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
        FUNCTION: {7: NODE, 11: ATTRIBUTE},
        GRAPH: {1: NODE, 5: TENSOR, 15: SPARSE},
        NODE: {5: ATTRIBUTE},
        ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 22: SPARSE, 23: SPARSE},
        SPARSE: {1: TENSOR, 2: TENSOR},
    }
)
"""Message -> field number -> the message in that field, for all fields that lead to a tensor."""

IR_VERSION = b"\x08"
"""Key of the field that a serialized ONNX file begins with. No text format begins with it."""
FLATBUFFERS = (b"ORTM", b"TFL3")
"""Identifiers at byte 4 of ONNX Runtime's own format and of TFLite, which libraries recognize in memory."""

TENSOR_NAME, EXTERNAL_DATA, DATA_LOCATION = 8, 13, 14
MODEL_GRAPH = 7
LONGEST_VARINT = 10
"""Bytes of a varint of 64 bits."""

Field = tuple[int, int, memoryview]
"""Number, wire type and content of a field; the content of a number is its encoding."""


class NotOnnx(ValueError):
    """The bytes are not an ONNX file. The message says why."""


def require_self_contained(graph: bytes, stage: Stage) -> None:
    """Raises BundleError for a graph that is not an ONNX file or whose weights are not all inside it.

    Called wherever a library opens a graph.
    """
    try:
        name = external_tensor(graph)
    except NotOnnx as error:
        raise BundleError(f"{stage} graph: it is not an ONNX file ({error}). Export the checkpoint again.") from error
    if name is not None:
        raise BundleError(
            f"{stage} graph: the values of the tensor {name!r} are in another file (external data), which no hash of "
            f"the manifest covers; expected all weights inside the graph. Do not use this bundle; export the "
            f"checkpoint again."
        )


def external_tensor(graph: bytes) -> str | None:
    """Name of a tensor whose values are outside of the ONNX file `graph`; None if there is none.

    Raises NotOnnx for bytes that are no ONNX file, because a library may read them as another format.
    """
    if not graph.startswith(IR_VERSION) or graph[4:8] in FLATBUFFERS:
        raise NotOnnx("it does not begin as one")
    pending, has_graph = [(MODEL, memoryview(graph))], False
    while pending:
        message, content = pending.pop()
        for number, wire_type, value in _fields(content):
            has_graph |= (message, number, wire_type) == (MODEL, MODEL_GRAPH, BYTES)
            inner = INSIDE[message].get(number)
            if inner is None or wire_type != BYTES:
                continue
            if inner != TENSOR:
                pending.append((inner, value))
            elif (name := _name_if_external(value)) is not None:
                return name
    if not has_graph:
        raise NotOnnx("it has no graph")
    return None


def _name_if_external(tensor: memoryview) -> str | None:
    name, external = "", False
    for number, wire_type, value in _fields(tensor):
        external |= number == EXTERNAL_DATA or (number == DATA_LOCATION and (wire_type != VARINT or any(value)))
        if number == TENSOR_NAME and wire_type == BYTES:
            name = bytes(value[:100]).decode("utf-8", "replace")
    return name if external else None


def _fields(message: memoryview) -> Iterator[Field]:
    """The fields of a message in their order. Raises NotOnnx."""
    place = 0
    while place < len(message):
        key, place = _varint(message, place)
        number, wire_type = key >> 3, key & 7
        start, end = place, place
        if wire_type == VARINT:
            _, end = _varint(message, place)
        elif wire_type == BYTES:
            size, start = _varint(message, place)
            end = start + size
        elif wire_type in (FIXED_32, FIXED_64):
            end = place + (4 if wire_type == FIXED_32 else 8)
        else:
            raise NotOnnx(f"a field has the wire type {wire_type}")
        if number == 0 or end > len(message):
            raise NotOnnx("a field is damaged or cut")
        yield number, wire_type, message[start:end]
        place = end


def _varint(message: memoryview, place: int) -> tuple[int, int]:
    """A number of 7 bits in each byte, and the place after it."""
    value = 0
    for count, byte in enumerate(message[place : place + LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * count)
        if byte < 0x80:
            return value & (2**64 - 1), place + count + 1
    raise NotOnnx("a number is damaged or cut")
