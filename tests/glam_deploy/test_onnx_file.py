"""A graph loads no weights that no hash covers: external data is found wherever a tensor may be, and refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from support.small_graphs import small_local

from glam_deploy.bundle.onnx_file import NotOnnx, external_tensor, require_self_contained
from glam_deploy.engines import openvino
from glam_deploy.engines.base import EngineOptions
from glam_deploy.engines.onnxruntime import OnnxRuntimeEngine
from glam_deploy.errors import BundleError
from glam_deploy.networks import GLAM_CONCATENATION

PLAIN = small_local()


def outside(name: str = "w") -> TensorProto:
    """A tensor whose values are in the file weights.bin, as `onnx.external_data_helper` makes it."""
    tensor = numpy_helper.from_array(np.ones(4, np.float32), name)
    onnx.external_data_helper.set_external_data(tensor, "weights.bin", 0, 16)
    tensor.ClearField("raw_data")
    return tensor


def graph_of(*nodes: onnx.NodeProto, **fields: list[TensorProto]) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "g", [], [], **fields)


def model(graph: onnx.GraphProto) -> onnx.ModelProto:
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def constant(**value: object) -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["c"], **value)


def in_function() -> onnx.ModelProto:
    made = model(graph_of())
    made.functions.append(
        helper.make_function("own", "f", [], ["c"], [constant(value=outside())], [helper.make_opsetid("", 21)])
    )
    return made


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


def in_branch() -> onnx.ModelProto:
    inner = graph_of(constant(value=outside()))
    outer = helper.make_node(
        "If", ["c"], ["d"], then_branch=graph_of(helper.make_node("If", [], [], else_branch=inner))
    )
    return model(graph_of(outer))


PLACES: dict[str, Callable[[], onnx.ModelProto]] = {
    "initializer": lambda: model(graph_of(initializer=[outside()])),
    "second initializer": lambda: model(
        graph_of(initializer=[numpy_helper.from_array(np.ones(3), "inside"), outside()])
    ),
    "attribute": lambda: model(graph_of(constant(value=outside()))),
    "list attribute": in_list_attribute,
    "graph in a graph in an attribute": in_branch,
    "function": in_function,
    "training": in_training,
    "sparse initializer": in_sparse_initializer,
}


@pytest.mark.parametrize("place", PLACES)
def test_external_data_is_found(place: str) -> None:
    assert external_tensor(PLACES[place]().SerializeToString()) == "w"


def test_the_whole_small_network_as_onnx_saves_it_with_external_data(tmp_path: Path) -> None:
    assert external_tensor(PLAIN) is None
    onnx.save_model(onnx.load_from_string(PLAIN), tmp_path / "a.onnx", save_as_external_data=True, size_threshold=0)
    assert external_tensor((tmp_path / "a.onnx").read_bytes()) is not None


def test_entries_without_the_location_flag_count_too() -> None:
    tensor = numpy_helper.from_array(np.ones(4, np.float32), "w")
    tensor.external_data.add(key="location", value="weights.bin")
    assert external_tensor(model(graph_of(initializer=[tensor])).SerializeToString()) == "w"


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


FOREIGN = {
    "empty": b"",
    "no graph": b"\x08\x0a",
    "cut": PLAIN[:-1],
    "field 0": b"\x08\x0a\x02\x00",
    "a group": b"\x08\x0a\x0b\x0c" + PLAIN[2:],
    "endless number": b"\x08" + b"\xff" * 20,
    "IR of OpenVINO": b'<?xml version="1.0"?><net name="g" version="11"></net>',
    "format of ONNX Runtime": b"\x08\x0a\x0a\x04ORTM" + PLAIN[2:],
    "TFLite": b"\x08\x0a\x0a\x04TFL3" + PLAIN[2:],
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_bytes_are_no_graph(name: str) -> None:
    with pytest.raises(BundleError, match="global graph: it is not an ONNX file"):
        require_self_contained(FOREIGN[name], "global")


@given(st.data())
def test_any_bytes_have_an_answer(data: st.DataObject) -> None:
    """What is taken for self-contained has no external tensor for the library of ONNX either."""
    graph = bytearray(data.draw(st.sampled_from([made().SerializeToString() for made in PLACES.values()])))
    for _ in range(data.draw(st.integers(1, 4))):
        graph[data.draw(st.integers(0, len(graph) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = external_tensor(bytes(graph))
    except NotOnnx:
        return
    if found is None:
        try:
            read = onnx.load_from_string(bytes(graph))
        except Exception:
            return
        tensors = onnx.external_data_helper._get_all_tensors(read)
        assert not any(map(onnx.external_data_helper.uses_external_data, tensors))
