"""A graph loads no weights that no hash covers, and ends: external data, control flow and functions are refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from openvino import opset13 as opset
from support.small_graphs import small_local

from glam_deploy.bundle.onnx_file import INSIDE, NotOnnx, fault, require_plain_graph
from glam_deploy.engines import openvino
from glam_deploy.engines.base import EngineOptions
from glam_deploy.engines.onnxruntime import OnnxRuntimeEngine
from glam_deploy.errors import BackendBuildError, BundleError
from glam_deploy.networks import GLAM_CONCATENATION

PLAIN = small_local()


def outside(name: str = "w") -> TensorProto:
    """A tensor whose values are in the file weights.bin, as `onnx.external_data_helper` makes it."""
    tensor = numpy_helper.from_array(np.ones(4, np.float32), name)
    onnx.external_data_helper.set_external_data(tensor, "weights.bin", 0, 16)
    tensor.ClearField("raw_data")
    return tensor


def varint(value: int, least: int = 1) -> bytes:
    """A number in at least `least` bytes."""
    digits = [value >> shift & 127 for shift in range(0, max(value.bit_length(), 7 * least), 7)]
    return bytes(digit | 128 for digit in digits[:-1]) + bytes(digits[-1:])


def field(number: int, content: bytes | int, *, high: int = 0, least: int = 1) -> bytes:
    """A field of bytes or a number; `high` is added to its tag, which has at least `least` bytes."""
    tag = varint(high + (number << 3 | (0 if isinstance(content, int) else 2)), least)
    return tag + (varint(content) if isinstance(content, int) else varint(len(content)) + content)


def graph_of(*nodes: onnx.NodeProto, **fields: list[TensorProto]) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "g", [], [], **fields)


def model(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def constant(**value: object) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], **value)


def in_training() -> onnx.ModelProto:
    made = model(graph_of())
    made.training_info.add().algorithm.CopyFrom(graph_of(initializer=[outside()]))
    return made


def in_sparse_initializer() -> onnx.ModelProto:
    made = model(graph_of())
    indices = numpy_helper.from_array(np.arange(4), "i")
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(outside(), indices, [9]))
    return made


def in_list_attribute() -> onnx.ModelProto:
    node = constant()
    node.attribute.append(helper.make_attribute("several", [outside()]))
    return model(graph_of(node))


PLACES: dict[str, Callable[[], onnx.ModelProto]] = {
    "initializer": lambda: model(graph_of(initializer=[outside()])),
    "second initializer": lambda: model(
        graph_of(initializer=[numpy_helper.from_array(np.ones(3), "inside"), outside()])
    ),
    "attribute": lambda: model(graph_of(constant(value=outside()))),
    "list attribute": in_list_attribute,
    "training": in_training,
    "sparse initializer": in_sparse_initializer,
}


W_IS_OUTSIDE = "the values of the tensor 'w' are in another file (external data), which no hash of the manifest covers"


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_found(place: str) -> None:
    assert fault(PLACES[place]().SerializeToString()).startswith(W_IS_OUTSIDE)


def test_the_whole_small_network_as_onnx_saves_it_with_external_data(tmp_path: Path) -> None:
    assert not fault(PLAIN)
    onnx.save_model(onnx.load_from_string(PLAIN), tmp_path / "a.onnx", save_as_external_data=True, size_threshold=0)
    assert "external data" in fault((tmp_path / "a.onnx").read_bytes())


def test_entries_without_the_location_flag_count_too() -> None:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "w")
    tensor.external_data.add(key="location", value="weights.bin")
    assert fault(model(graph_of(initializer=[tensor])).SerializeToString()).startswith(W_IS_OUTSIDE)


def test_every_message_that_leads_to_a_tensor_is_searched() -> None:
    """By the descriptors of the library of ONNX."""
    fields: dict[str, dict[int, str]] = {}
    pending = [onnx.ModelProto.DESCRIPTOR]
    while pending:
        message = pending.pop()
        held = {field.number: field.message_type for field in message.fields if field.message_type}
        fields[message.name] = {number: each.name for number, each in held.items()}
        pending += [each for each in held.values() if each.name not in fields]
    leading = {"TensorProto"}
    for _ in fields:
        leading |= {name for name, inner in fields.items() if leading & {*inner.values()}}
    expected = {name: {n: held for n, held in fields[name].items() if held in leading} for name in leading}
    expected["FunctionProto"] = {}  # refused as a whole
    names = [
        f"{name}Proto"
        for name in ["Model", "TrainingInfo", "Function", "Graph", "Node", "Attribute", "SparseTensor", "Tensor"]
    ]
    assert {names[at]: {n: names[each] for n, each in inner.items()} for at, inner in INSIDE.items()} == expected


CONTROL_FLOW = {
    "If": {"then_branch": graph_of(), "else_branch": graph_of()},
    "Loop": {"body": graph_of()},
    "Scan": {"body": graph_of(), "num_scan_inputs": 1},
    "SequenceMap": {"body": graph_of()},
    "Other": {"several": [graph_of()]},
}


@pytest.mark.parametrize("operator", CONTROL_FLOW)
def test_an_operator_that_contains_a_graph_is_refused_by_name(operator: str) -> None:
    node = helper.make_node(operator, ["x"], ["y"], **CONTROL_FLOW[operator])
    with pytest.raises(BundleError, match=rf"local graph: the operator '{operator}' contains a graph .*export the"):
        require_plain_graph(model(graph_of(constant(value_int=1), node)).SerializeToString(), "local")


def test_an_endless_loop_is_refused_by_the_engines() -> None:
    """ONNX Runtime accepts it, and no signal ends its run."""
    made = onnx.load_from_string(PLAIN)
    step, going, total = (helper.make_tensor_value_info(*each, []) for each in (("i", 7), ("on", 9), ("total", 7)))
    counted, goes = (helper.make_tensor_value_info(*each, []) for each in (("sum", 7), ("again", 9)))
    nodes = [helper.make_node("Identity", ["on"], ["again"]), helper.make_node("Add", ["i", "total"], ["sum"])]
    body = helper.make_graph(nodes, "body", [step, going, total], [goes, counted])
    made.graph.node.insert(0, helper.make_node("Loop", ["steps", "", "steps"], ["end"], body=body))
    made.graph.initializer.append(numpy_helper.from_array(np.array(2**62), "steps"))
    graph = made.SerializeToString()
    ort.InferenceSession(graph, providers=["CPUExecutionProvider"])  # no error
    with pytest.raises(BundleError, match="local graph: the operator 'Loop' contains a graph"):
        OnnxRuntimeEngine(graph, "local", EngineOptions(), network=GLAM_CONCATENATION)
    with pytest.raises(BundleError, match="local graph: the operator 'Loop' contains a graph"):
        openvino.graph_engine(graph, "local", network=GLAM_CONCATENATION)


def test_functions_are_refused_by_name() -> None:
    made = model(graph_of())
    made.functions.append(helper.make_function("own", "f", [], ["c"], [], [helper.make_opsetid("", 21)]))
    with pytest.raises(BundleError, match="global graph: it defines the function 'f'; expected operators of ONNX only"):
        require_plain_graph(made.SerializeToString(), "global")


def test_engines_refuse_what_the_library_would_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime takes the weights of a graph in memory from the current folder: whoever writes there decides."""
    monkeypatch.chdir(tmp_path)
    made = onnx.load_from_string(PLAIN)
    onnx.save_model(made, tmp_path / "a.onnx", save_as_external_data=True, size_threshold=99, location="weights.bin")
    graph = (tmp_path / "a.onnx").read_bytes()
    ort.InferenceSession(graph, providers=["CPUExecutionProvider"])  # no error
    refusal = r"local graph: the values of the tensor '.+' are in another file \(external data\), which no hash"
    with pytest.raises(BundleError, match=refusal):
        OnnxRuntimeEngine(graph, "local", EngineOptions(), network=GLAM_CONCATENATION)
    with pytest.raises(BundleError, match=refusal):
        openvino.graph_engine(graph, "local", network=GLAM_CONCATENATION)


def of_two_formats(graph: bytes, folder: Path) -> bytes:
    """An ONNX file with an OpenVINO IR, of one input and output, as the name of its producer."""
    port = opset.parameter([2], np.float32, name="of_the_ir")
    ov.save_model(ov.Model([opset.result(port)], [port], "ir"), folder / "ir.xml")
    assert graph.startswith(b"\x08")
    return graph[:2] + field(2, (folder / "ir.xml").read_bytes() + b"\0") + graph[2:]


def test_a_file_of_two_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`Core.read_model` takes it for its own format, with another graph, which may have a loop without end."""
    graph = of_two_formats(identity_of(W), tmp_path)
    onnx.checker.check_model(onnx.load_from_string(graph))
    assert len(openvino.core().read_model(graph, b"").inputs) == 1
    with pytest.raises(BundleError, match="local graph: it is not an ONNX file"):
        openvino.read_graph(graph, "local")
    monkeypatch.setattr(openvino, "require_plain_graph", lambda *given: None)
    assert not openvino.read_graph(graph, "local").inputs


def test_what_the_reader_of_openvino_refuses_is_an_error_of_the_engine() -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in "xy")
    node = helper.make_node("NotImplementedAnywhere", ["x"], ["y"], domain="com.example")
    made = model(helper.make_graph([node], "g", [x], [y]))
    with pytest.raises(BackendBuildError, match=r"local graph: OpenVINO .* rejects it"):
        openvino.graph_engine(made.SerializeToString(), "local", network=GLAM_CONCATENATION)


FOREIGN = {
    "empty": b"",
    "no graph": b"\x08\x0a",
    "cut": PLAIN[:-1],
    "field 0": b"\x08\x0a\x02\x00",
    "a group": b"\x08\x0a\x0b\x0c" + PLAIN[2:],
    "endless number": b"\x08" + b"\xff" * 20,
    "tag of 33 bits": PLAIN + varint(2**32 + (1 << 3)) + b"\x00",
    "tag of 6 bytes": PLAIN + varint(1 << 3, least=6) + b"\x00",
    "length of 6 bytes": PLAIN + b"\x12" + varint(0, least=6),
    "IR of OpenVINO": b'<?xml version="1.0"?><net name="g" version="11"></net>',
    "format of ONNX Runtime": b"\x08\x0a\x0a\x04ORTM" + PLAIN[2:],
    "TFLite": b"\x08\x0a\x0a\x04TFL3" + PLAIN[2:],
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_bytes_are_no_graph(name: str) -> None:
    with pytest.raises(BundleError, match="global graph: it is not an ONNX file"):
        require_plain_graph(FOREIGN[name], "global")


INSIDE_W, OUTSIDE_W = np.arange(4, dtype=np.float32), np.full(4, 9, np.float32)


def identity_of(tensor: bytes) -> bytes:
    """A graph that gives the tensor `w`; `tensor` is its encoding."""
    node = helper.make_node("Identity", ["w"], ["y"])
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])])
    made = helper.make_model(helper.make_graph([], "g", [], []), opset_imports=[helper.make_opsetid("", 21)])
    made.ClearField("graph")
    return made.SerializeToString() + field(7, graph.SerializeToString() + field(5, tensor))


def values_by_openvino(graph: bytes) -> np.ndarray | None:
    """What the library computes; None if it refuses the graph."""
    try:
        core = openvino.core()
        return np.array(core.compile_model(core.read_model(graph, b""), "CPU")([])[0])
    except RuntimeError:
        return None


PLACE = field(1, b"location") + field(2, b"outside.bin")
W = field(1, 4) + field(2, TensorProto.FLOAT) + field(8, b"w") + field(9, INSIDE_W.tobytes())
LOADED = {
    "as usual": field(13, PLACE) + field(14, 1),
    "tags of 33 bits": field(13, PLACE, high=2**32) + field(14, 1, high=2**32),
    "tags of 35 bits": field(13, PLACE, high=2**34) + field(14, 1, high=2**34),
    "long tags": field(13, PLACE, least=5) + field(14, 1, least=5),
    "location in 33 bits": field(13, PLACE) + field(14, 2**32 + 1),
    "location twice": field(14, 0) + field(13, PLACE) + field(14, 1),
    "entry in two": field(13, PLACE) + field(13, b"") + field(14, 1),
}
"""Encodings of external data that OpenVINO loads."""


@pytest.fixture
def outside_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    OUTSIDE_W.tofile(tmp_path / "outside.bin")


@pytest.mark.usefixtures("outside_file")
@pytest.mark.parametrize("encoding", LOADED)
def test_external_data_in_any_encoding_that_a_library_loads_is_refused(encoding: str) -> None:
    graph = identity_of(W + LOADED[encoding])
    np.testing.assert_array_equal(values_by_openvino(graph), OUTSIDE_W)
    with pytest.raises(BundleError):
        require_plain_graph(graph, "local")


@pytest.mark.usefixtures("outside_file")
@pytest.mark.parametrize("high", [0, 2**32])
def test_onnx_runtime_loads_external_data_by_long_tags_too(high: int) -> None:
    made = onnx.load_from_string(PLAIN)
    weights = [tensor for tensor in made.graph.initializer if tensor.name == "blocks.0.conv2.weight"]
    numpy_helper.to_array(weights[0]).tofile("outside.bin")
    weights[0].ClearField("raw_data")
    tensor = weights[0].SerializeToString() + field(13, PLACE, high=high) + field(14, 1, high=high)
    made.graph.initializer.remove(weights[0])
    inner = made.graph.SerializeToString() + field(5, tensor)
    made.ClearField("graph")
    graph = made.SerializeToString() + field(7, inner)
    ort.InferenceSession(graph, providers=["CPUExecutionProvider"])  # no error
    with pytest.raises(BundleError, match="local graph: "):
        OnnxRuntimeEngine(graph, "local", EngineOptions(), network=GLAM_CONCATENATION)


@pytest.mark.usefixtures("outside_file")
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.builds(
            field,
            st.sampled_from([13, 14]),
            st.sampled_from([PLACE, b"", b"\x01", 0, 1, 2**32, 2**32 + 1, 2**64 - 1]),
            high=st.sampled_from([0, 2**32, 2**34, 2**35, 2**63]),
            least=st.sampled_from([1, 5, 6, 10]),
        ),
        max_size=4,
    )
)
def test_what_is_accepted_has_the_values_inside(fields: list[bytes]) -> None:
    graph = identity_of(W + b"".join(fields))
    try:
        found = fault(graph)
    except NotOnnx:
        return
    if not found and (values := values_by_openvino(graph)) is not None:
        np.testing.assert_array_equal(values, INSIDE_W)


@given(st.data())
def test_any_bytes_have_an_answer(data: st.DataObject) -> None:
    """What is taken for self-contained has no external tensor for the library of ONNX either."""
    graph = bytearray(data.draw(st.sampled_from([made().SerializeToString() for made in PLACES.values()])))
    for _ in range(data.draw(st.integers(1, 4))):
        graph[data.draw(st.integers(0, len(graph) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = fault(bytes(graph))
    except NotOnnx:
        return
    if not found:
        try:
            read = onnx.load_from_string(bytes(graph))
        except Exception:
            return
        tensors = onnx.external_data_helper._get_all_tensors(read)
        assert not any(map(onnx.external_data_helper.uses_external_data, tensors))
