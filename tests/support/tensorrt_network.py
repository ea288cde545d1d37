"""The half of a made-up `tensorrt` that parses networks; `support.tensorrt` builds engines of them."""

import json
from collections.abc import Mapping
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np

DataType = IntEnum("DataType", {"FLOAT": 0, "HALF": 1, "INT8": 2, "INT32": 3, "BOOL": 4, "INT64": 8, "BF16": 7})
KINDS = {"Float": DataType.FLOAT, "Half": DataType.HALF, "BFloat16": DataType.BF16}
NUMPY = {"FLOAT": "float32", "HALF": "float16", "INT32": "int32", "INT64": "int64", "INT8": "int8", "BOOL": "bool"}


def graph_file_of(said: Mapping[str, Any]) -> bytes:
    """An ONNX file with an empty graph, and `said` as JSON in its doc_string (field 6 of ModelProto)."""
    text = json.dumps(said).encode()
    sizes = [len(text) >> shift & 0x7F | 0x80 for shift in (0, 7, 14)]
    return b"\x08\x0a\x32" + bytes([*sizes, len(text) >> 21]) + text + b"\x3a\x00"


def described(graph: bytes) -> Any:
    """What `graph_file_of` was given."""
    return json.loads(graph[graph.find(b"{") : graph.rfind(b"}") + 1])


def nptype(dtype: DataType) -> Any:
    """tensorrt/__init__.py, `nptype`: what numpy has no type for is a TypeError."""
    if dtype.name not in NUMPY:
        raise TypeError("Could not resolve TensorRT datatype to an equivalent numpy datatype.")
    return np.dtype(NUMPY[dtype.name]).type


class Logger:
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    def log(self, severity: int, message: str) -> None:
        raise NotImplementedError


class Monitor:
    pass


class Layer:
    """The base class, which is all that a network hands out."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self.name = said["name"]
        self.type = 0
        self._said = said

    def get_input(self, index: int) -> Any:
        return self._tensor(index, 0)

    def get_output(self, index: int) -> Any:
        return self._tensor(index, 1)

    def _tensor(self, index: int, side: int) -> Any:
        if index:  # NvInfer.h, IConvolutionLayer::setInput: input 1 is a kernel that the network computes, else none
            return None
        kind = self._said.get(("input_type", "output_type")[side], self._said["type"])
        return SimpleNamespace(dtype=KINDS[kind], shape=(-1, self._said["channels"][side], *self._said["pixels"]))


class ConvolutionLayer(Layer):
    num_groups = 1

    @property
    def kernel(self) -> Any:
        """An array, or `Weights` where numpy has no such type: the binding's utils::weights_to_numpy."""
        kind = KINDS[self._said.get("kernel_type", self._said["type"])]
        shape = (*reversed(self._said["channels"]), *self._said["kernel"])
        return np.zeros(shape, NUMPY[kind.name]) if kind.name in NUMPY else SimpleNamespace(dtype=kind)

    @property
    def kernel_size_nd(self) -> tuple[int, ...]:
        return tuple(self._said["kernel"])

    @property
    def num_output_maps(self) -> int:
        return int(self._said["channels"][1])


class Network:
    def __init__(self, *, strongly_typed: bool) -> None:
        self.strongly_typed = strongly_typed
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.layers: list[Layer] = []
        self.said: Mapping[str, Any] = {}

    num_inputs = property(lambda self: len(self.inputs))
    num_outputs = property(lambda self: len(self.outputs))
    num_layers = property(lambda self: len(self.layers))

    def get_flag(self, flag: Any) -> bool:
        """True in release 11 too, where the flag is ignored: as TensorRT-RTX 1.7.1 has it."""
        return flag.name == "STRONGLY_TYPED" and self.strongly_typed

    def get_input(self, index: int) -> Any:
        return self.inputs[index]

    def get_output(self, index: int) -> Any:
        return self.outputs[index]

    def get_layer(self, index: int) -> Layer:
        return self.layers[index]

    def unmark_output(self, tensor: Any) -> None:
        self.outputs.remove(tensor)


class OnnxParser:
    def __init__(self, network: Network, log: Logger) -> None:
        self._network = network
        self._errors: list[str] = []

    num_errors = property(lambda self: len(self._errors))

    def get_error(self, index: int) -> Any:
        return SimpleNamespace(desc=lambda: self._errors[index])

    def parse(self, content: bytes) -> bool:
        try:
            said = described(content)
        except ValueError:
            self._errors = ["Failed to parse the ONNX model."]
            return False
        self._network.said = said
        self._network.layers = [Layer(convolution) for convolution in said["convolutions"]]
        for kind, tensors in (("inputs", self._network.inputs), ("outputs", self._network.outputs)):
            names = {numpy: name for name, numpy in NUMPY.items()}
            tensors += [
                SimpleNamespace(name=n, dtype=DataType[names[d]], shape=tuple(shape))
                for n, (d, shape) in said[kind].items()
            ]
        return True
