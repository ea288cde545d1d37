"""The files of graphs as other programs find them: valid, within limits, silent about the machine that made them."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from glam_deploy.bundle import graph_file
from glam_deploy.errors import BackendBuildError
from glam_deploy.networks import GLAM, GLAM_CONCATENATION, STAGES, NetworkSpec, Stage
from glam_deploy.precision import PRECISIONS, Precision
from glam_export.graphs.onnx_file import write_graph
from glam_export.networks import graph_modules
from glam_export.reference.glam import GlamNetwork

HALF = [(stage, precision) for precision in PRECISIONS[1:] for stage in STAGES[:2]]
FILES = [
    *(("golden", stage, "fp32") for stage in STAGES),
    *(("golden", *half) for half in HALF),
    ("joint", "fusion", "fp32"),
]
"""The joint bundle's other graphs are the golden bundle's."""
FLOATS = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
TOPK_LIMIT = 3840
"""Of TensorRT's TopK layer."""

network = pytest.mark.network


class File(NamedTuple):
    stage: Stage
    precision: Precision
    network: NetworkSpec
    path: Path
    model: onnx.ModelProto

    def initializers(self) -> dict[str, np.ndarray]:
        return {tensor.name: numpy_helper.to_array(tensor) for tensor in self.model.graph.initializer}

    def types(self) -> dict[str, int]:
        """Of every tensor, by ONNX's own inference."""
        graph = onnx.shape_inference.infer_shapes(self.model, strict_mode=True).graph
        values = (*graph.input, *graph.value_info, *graph.output)
        found = {value.name: value.type.tensor_type.elem_type for value in values}
        return found | {tensor.name: tensor.data_type for tensor in graph.initializer}

    def maker(self, tensor: str) -> onnx.NodeProto:
        return next(node for node in self.model.graph.node if tensor in node.output)

    def after(self, kind: str) -> set[str]:
        """Every tensor that a node of this kind has a part in."""
        found: set[str] = set()
        for node in self.model.graph.node:
            if node.op_type == kind or found.intersection(node.input):
                found.update(node.output)
        return found

    def nodes(self, kind: str) -> Iterator[onnx.NodeProto]:
        return (node for node in self.model.graph.node if node.op_type == kind)


@pytest.fixture(scope="module", params=FILES, ids="-".join)
def file(request: pytest.FixtureRequest) -> File:
    kind, stage, precision = request.param
    path = request.getfixturevalue(f"{kind}_bundle") / graph_file(stage, precision)
    return File(stage, precision, GLAM if kind == "joint" else GLAM_CONCATENATION, path, onnx.load(path))


def axes(value: onnx.ValueInfoProto) -> list[str | int]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


@network
def test_valid(file: File) -> None:
    onnx.checker.check_model(str(file.path), full_check=True)


@network
def test_one_operator_set(file: File) -> None:
    version = 22 if file.precision == "bf16" else 21  # the first with convolutions in bfloat16
    assert [(opset.domain, opset.version) for opset in file.model.opset_import] == [("", version)]
    assert {node.domain for node in file.model.graph.node} == {""}
    assert not file.model.functions
    assert not file.model.training_info


@network
def test_interface(file: File) -> None:
    contract = file.network.contract(file.stage)
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
def test_learned_numbers_are_inside(file: File) -> None:
    assert all(tensor.data_location == TensorProto.DEFAULT for tensor in file.model.graph.initializer)
    assert not any(np.isnan(c).any() for c in file.initializers().values())


@network
def test_convolutions_are_of_the_precision_and_weights_with_them(file: File) -> None:
    types = file.types()
    convolutions = list(file.nodes("Conv"))
    assert len(convolutions) == {"global": 29, "local": 37, "fusion": 0}[file.stage]
    for node in convolutions:
        assert {types[name] for name in (*node.input, *node.output)} == {FLOATS[file.precision]}
    weights = {name for node in convolutions for name in node.input[1:]}
    others = {t.name for t in file.model.graph.initializer if t.data_type in FLOATS.values()} - weights
    assert {types[name] for name in others} <= {TensorProto.FLOAT}


@network
def test_all_from_the_logits_on_is_float32(file: File) -> None:
    types = file.types()
    late = file.after("Sigmoid")
    integers = {TensorProto.INT64, TensorProto.BOOL}
    assert {types[name] for name in late} - integers == ({TensorProto.FLOAT} if late else set())
    for kind in ("Sigmoid", "ReduceMax", "ReduceMean", "ReduceSum", "TopK", "Mul"):
        for node in file.nodes(kind):
            assert types[node.input[0]] in {TensorProto.FLOAT, *integers}
    for node in file.nodes("Sigmoid") if file.stage != "fusion" else ():
        cast = file.maker(node.input[0])
        assert (cast.op_type, file.maker(cast.input[0]).op_type) == ("Cast", "Conv") or file.precision == "fp32"


@network
def test_half_graphs_compute_nothing_else_in_half_and_fp32_graphs_need_no_casts(file: File) -> None:
    types = file.types()
    half = {FLOATS[precision] for precision in PRECISIONS[1:]}
    kinds = {node.op_type for node in file.model.graph.node if {types[n] for n in node.output} & half}
    assert kinds == ({"Conv", "Relu", "MaxPool", "Add", "Cast"} if file.precision != "fp32" else set())
    if file.precision == "fp32" and file.stage != "fusion":
        assert not list(file.nodes("Cast"))


@network
@pytest.mark.parametrize(("stage", "precision"), HALF)
def test_weights_of_half_graphs_are_those_of_fp32_rounded_once(
    golden_bundle: Path, stage: Stage, precision: Precision
) -> None:
    plain, half = (onnx.load(golden_bundle / graph_file(stage, p)).graph.initializer for p in ("fp32", precision))
    rounding = {"fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    expected = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in plain}
    assert {t.name for t in half} == expected.keys()
    for tensor in half:
        found = torch.from_numpy(numpy_helper.to_array(tensor).astype(np.float64))
        exact = expected[tensor.name]
        assert torch.equal(found, (exact if tensor.data_type != FLOATS[precision] else exact.to(rounding)).double())


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
    places = (Path.cwd(), Path.home(), Path(torch.__file__).parents[1], Path(__file__).parents[3])
    for place in {str(p).encode() for p in places}:
        assert place not in content
    graph = file.model.graph
    described = (file.model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer)
    assert not any(item.doc_string or item.metadata_props for item in described)


@network
@pytest.mark.slow
def test_equal_weights_give_equal_bytes(golden_network: GlamNetwork, golden_bundle: Path, tmp_path: Path) -> None:
    write_graph(graph_modules(golden_network)["global"], "global", tmp_path / "again.onnx", network=GLAM_CONCATENATION)
    assert (tmp_path / "again.onnx").read_bytes() == (golden_bundle / graph_file("global")).read_bytes()


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
        write_graph(Nearly(fault), "local", path, network=GLAM_CONCATENATION)
    assert not path.exists()


class Toy(nn.Module):
    """A local stage of two convolutions, typed as asked: `types` by the name of a step, FP32 where it says nothing."""

    def __init__(self, **types: torch.dtype) -> None:
        super().__init__()
        self.types = types
        self.stem = nn.Conv2d(1, 3, 4, 4).to(self.type_of("stem"))
        self.scale = nn.Parameter(torch.rand(3, 1, 1).to(self.type_of("scale")))
        self.head = nn.Conv2d(3, 2, 1).to(self.type_of("head"))

    def type_of(self, step: str) -> torch.dtype:
        return self.types.get(step, torch.float32)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        h = self.stem(patches.to(self.type_of("stem"))).relu()
        h = h.to(self.type_of("scale")) * self.scale
        maps = self.head(h.to(self.type_of("head"))).to(self.type_of("sigmoid")).sigmoid()
        maps = maps.to(self.type_of("sum")) + maps.to(self.type_of("sum"))
        return maps.float(), patches[:, 0, 0]


F16, B16 = torch.float16, torch.bfloat16


@pytest.mark.parametrize(("precision", "half"), [("fp16", F16), ("bf16", B16)])
def test_a_graph_with_the_right_types_is_written(tmp_path: Path, precision: Precision, half: torch.dtype) -> None:
    write_graph(
        Toy(stem=half, head=half), "local", tmp_path / "l.onnx", network=GLAM_CONCATENATION, precision=precision
    )
    assert onnx.load(tmp_path / "l.onnx").graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT


@pytest.mark.parametrize(
    ("precision", "types", "fault"),
    [
        ("fp16", {}, "Conv .* computes in FLOAT, expected FLOAT16"),
        ("fp16", {"stem": F16}, "Conv .* computes in FLOAT, expected FLOAT16"),
        ("bf16", {"stem": B16, "head": F16}, "Cast .* computes in FLOAT and FLOAT16, expected BFLOAT16 and FLOAT"),
        ("fp16", {"stem": F16, "head": F16, "scale": F16}, "Mul .* computes in FLOAT16, expected FLOAT"),
        ("fp16", {"stem": F16, "head": F16, "sigmoid": F16}, "Sigmoid .* computes in FLOAT16, expected FLOAT"),
        ("fp16", {"stem": F16, "head": F16, "sum": F16}, "Cast .* computes in FLOAT and FLOAT16, expected FLOAT"),
        ("bf16", {"stem": B16, "head": B16, "sigmoid": B16}, "Sigmoid .* computes in BFLOAT16, expected FLOAT"),
        ("fp32", {"stem": F16, "head": F16}, "Cast .* computes in FLOAT and FLOAT16, expected FLOAT"),
    ],
)
def test_a_graph_with_a_wrong_type_is_not_written(
    tmp_path: Path, precision: Precision, types: dict[str, torch.dtype], fault: str
) -> None:
    with pytest.raises(BackendBuildError, match=rf"^graph 'local' in {precision}: {fault}"):
        write_graph(Toy(**types), "local", tmp_path / "l.onnx", network=GLAM_CONCATENATION, precision=precision)
    assert not list(tmp_path.iterdir())
