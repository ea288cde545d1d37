"""The files of graphs as other programs find them: valid, within limits, silent about the machine that made them."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from glam_deploy.bundle import graph_file
from glam_deploy.errors import BackendBuildError
from glam_deploy.spec import STAGES, Stage, graph_contract
from glam_export.graphs import FusionGraph
from glam_export.onnx_file import write_graph

FILES = [*(("golden", stage) for stage in STAGES), ("joint", "fusion")]
"""The joint bundle's other graphs are the golden bundle's."""
TOPK_LIMIT = 3840
"""Of TensorRT's TopK layer."""

network = pytest.mark.network


class File(NamedTuple):
    stage: Stage
    fusion_head: bool
    path: Path
    model: onnx.ModelProto

    def initializers(self) -> dict[str, np.ndarray]:
        return {tensor.name: numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer}

    def nodes(self, kind: str) -> Iterator[onnx.NodeProto]:
        return (node for node in self.model.graph.node if node.op_type == kind)


@pytest.fixture(scope="module", params=FILES, ids="-".join)
def file(request: pytest.FixtureRequest) -> File:
    kind, stage = request.param
    path = request.getfixturevalue(f"{kind}_bundle") / graph_file(stage)
    return File(stage, kind == "joint", path, onnx.load(path))


def axes(value: onnx.ValueInfoProto) -> list[str | int]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


@network
def test_valid(file: File) -> None:
    onnx.checker.check_model(str(file.path), full_check=True)


@network
def test_one_operator_set(file: File) -> None:
    assert [(opset.domain, opset.version) for opset in file.model.opset_import] == [("", 21)]
    assert {node.domain for node in file.model.graph.node} == {""}
    assert not file.model.functions
    assert not file.model.training_info


@network
def test_interface(file: File) -> None:
    contract = graph_contract(file.stage, fusion_head=file.fusion_head)
    for values, tensors in ((file.model.graph.input, contract.inputs), (file.model.graph.output, contract.outputs)):
        assert [v.name for v in values] == list(tensors)
        for value, tensor in zip(values, tensors.values(), strict=True):
            assert axes(value) == ["batch", *tensor.shape]
            assert value.type.tensor_type.elem_type == {"float32": 1, "int64": 7}[tensor.dtype]


@network
def test_nothing_that_an_engine_has_to_work_around(file: File) -> None:
    kinds = {node.op_type for node in file.model.graph.node}
    assert not kinds & {"BatchNormalization", "Dropout", "If", "Loop", "Scan", "NonZero", "ScatterND", "Random"}
    constants = file.initializers()
    counts = [int(constants[node.input[1]].item()) for node in file.nodes("TopK")]
    assert all(count <= TOPK_LIMIT for count in counts)
    assert counts == ([662] if file.stage == "global" else [])


@network
def test_learned_numbers_are_float32_and_inside(file: File) -> None:
    constants = file.initializers()
    assert {c.dtype.name for c in constants.values() if np.issubdtype(c.dtype, np.floating)} <= {"float32"}
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in file.model.graph.initializer)
    assert not any(np.isnan(c).any() for c in constants.values())


@network
@pytest.mark.parametrize("stage", STAGES[:2])
def test_stem_takes_one_grey_channel(golden_bundle: Path, stage: Stage) -> None:
    model = onnx.load(golden_bundle / graph_file(stage))
    (image,) = model.graph.input
    stems = [node for node in model.graph.node if image.name in node.input]
    assert [node.op_type for node in stems] == ["Conv"]
    weight = next(t for t in model.graph.initializer if t.name == stems[0].input[1])
    assert list(weight.dims) == [16 if stage == "global" else 64, 1, 7, 7]


@network
def test_no_trace_of_this_machine(file: File) -> None:
    content = file.path.read_bytes()
    places = (Path.cwd(), Path.home(), Path(torch.__file__).parents[1], Path(__file__).parents[2])
    for place in {str(p).encode() for p in places}:
        assert place not in content
    graph = file.model.graph
    described = (file.model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer)
    assert not any(item.doc_string or item.metadata_props for item in described)


@network
def test_equal_weights_give_equal_bytes(golden_bundle: Path, tmp_path: Path) -> None:
    write_graph(FusionGraph().eval(), "fusion", tmp_path / "again.onnx", fusion_head=False)
    assert (tmp_path / "again.onnx").read_bytes() == (golden_bundle / graph_file("fusion")).read_bytes()


class Nearly(nn.Module):
    """Takes what the local stage takes, and gives what it should but for the fault."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        maps = patches[..., ::4, ::4].expand(-1, 2, -1, -1).sigmoid()
        vector = patches[:, 0, 0]
        return maps[:1] if self.fault == "one image only" else maps.double(), vector


@pytest.mark.parametrize("fault", ["one image only", "float64"])
def test_a_graph_that_breaks_its_contract_is_not_written(tmp_path: Path, fault: str) -> None:
    path = tmp_path / "local.onnx"
    with pytest.raises(BackendBuildError, match=r"graph 'local': outputs are .*, expected "):
        write_graph(Nearly(fault), "local", path, fusion_head=False)
    assert not path.exists()
