"""Torch module -> ONNX file with the names and shapes of the graph contract, which are checked before it is written."""

import logging
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import onnx
import torch
from onnx import TensorProto
from torch import nn

from glam_deploy.errors import BackendBuildError
from glam_deploy.networks import GraphContract, NetworkSpec, Stage
from glam_deploy.precision import Precision

OPSETS: Mapping[Precision, int] = MappingProxyType({"fp32": 21, "fp16": 21, "bf16": 22})
"""21 is read by ONNX Runtime from 1.20, OpenVINO from 2025 and TensorRT from 10.13; bf16 convolutions need 22."""

TYPES: Mapping[Precision, int] = MappingProxyType(
    {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
)
FLOATING = frozenset({*TYPES.values(), TensorProto.DOUBLE})
HALF_OPERATORS = frozenset({"Conv", "Relu", "MaxPool", "Add", "Cast"})
"""Operators that may compute in half in a half graph: convolutions and the operators between them."""


def write_graph(
    module: nn.Module, stage: Stage, path: Path, *, network: NetworkSpec, precision: Precision = "fp32"
) -> None:
    """Export one stage with a dynamic batch; check its shapes and types against the contract and the precision.

    `module` is already of that precision (`layers.in_precision`). Raises BackendBuildError if the graph violates the
    contract or the ONNX rules, or has a type that the precision does not allow.
    """
    contract = network.contract(stage)
    # a batch of 2, because the exporter takes an axis of 1 for a constant
    examples = tuple(torch.zeros((2, *t.shape), dtype=getattr(torch, t.dtype)) for t in contract.inputs.values())
    batch = torch.export.Dim("batch", min=1, max=1024)
    with _quiet_exporter():
        program = torch.onnx.export(
            module,
            examples,
            dynamo=True,
            opset_version=OPSETS[precision],
            input_names=list(contract.inputs),
            output_names=list(contract.outputs),
            dynamic_shapes=tuple({0: batch} for _ in examples),
            verbose=False,
        )
    if program is None:
        raise BackendBuildError(f"graph {stage!r}: the ONNX exporter returned nothing")
    model = program.model_proto
    _clean(model, stage)
    _check(model, stage, contract, precision)
    onnx.save(model, path)


def _clean(model: onnx.ModelProto, stage: Stage) -> None:
    """Remove metadata of the exporting machine, so that equal weights give equal bytes."""
    model.graph.name = f"glam_{stage}"
    model.doc_string = ""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for item in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        item.doc_string = ""
        del item.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]


def _check(model: onnx.ModelProto, stage: Stage, contract: GraphContract, precision: Precision) -> None:
    try:
        onnx.checker.check_model(model, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BackendBuildError(f"graph {stage!r}: not valid ONNX: {error}") from error
    for kind, values, tensors in (
        ("input", inferred.graph.input, contract.inputs),
        ("output", inferred.graph.output, contract.outputs),
    ):
        found = {v.name: _tensor(v) for v in values}
        expected = {name: (t.dtype, "batch", *t.shape) for name, t in tensors.items()}
        if found != expected:
            raise BackendBuildError(f"graph {stage!r}: {kind}s are {found}, expected {expected}")
    if wrong := list(_wrong_types(inferred.graph, precision)):
        raise BackendBuildError(f"graph {stage!r} in {precision}: {wrong[0]} (and {len(wrong) - 1} more)")


def _wrong_types(graph: onnx.GraphProto, precision: Precision) -> Iterator[str]:
    """In words, which nodes compute in another type than they should.

    Convolutions in the precision's own, all that follows a sigmoid in FP32, and FP32 wherever half is not allowed.
    """
    types = tensor_types(graph)
    late: set[str] = set()
    for node in graph.node:
        if node.op_type == "Sigmoid" or late.intersection(node.input):
            late.update(node.output)
        allowed = {TYPES["fp32"]}
        if node.op_type == "Conv":
            allowed = {TYPES[precision]}
        elif node.op_type in HALF_OPERATORS and not late.intersection(node.output):
            allowed |= {TYPES[precision]}
        found = FLOATING & {types[name] for name in (*node.input, *node.output) if name}
        if not found <= allowed:
            names = (" and ".join(sorted(map(TensorProto.DataType.Name, kinds))) for kinds in (found, allowed))
            yield "{} {} computes in {}, expected {}".format(node.op_type, node.name, *names)


def tensor_types(graph: onnx.GraphProto) -> dict[str, int]:
    """Type (a TensorProto.DataType) of every tensor of a graph with inferred shapes."""
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info, *graph.output)}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def tensor_shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor but the weights of a graph whose shapes have been inferred; a dynamic axis is 0."""
    values = (*graph.input, *graph.value_info, *graph.output)
    return {value.name: tuple(axis.dim_value for axis in value.type.tensor_type.shape.dim) for value in values}


def _tensor(value: onnx.ValueInfoProto) -> tuple[str | int, ...]:
    """Dtype and axes, a dynamic axis by its name."""
    tensor = value.type.tensor_type
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return (dtype, *(d.dim_param or d.dim_value for d in tensor.shape.dim))


class _quiet_exporter(warnings.catch_warnings):
    """Suppresses the exporter's warnings about its own internals; its errors still raise."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
