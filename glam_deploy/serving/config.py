"""Text of config.pbtxt, the configuration of a model in a Triton repository.

Source: message ModelConfig of model_config.proto (triton-inference-server/common), in protobuf's text format.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from glam_deploy.networks import Tensor

CONFIG = "config.pbtxt"
MARK = "# Written by glam-deploy triton; docs/serving.md describes what may be changed."
"""First line, by which a model folder of glam-deploy is recognized."""
TYPES: Mapping[str, str] = {"float32": "TYPE_FP32", "int64": "TYPE_INT64", "uint8": "TYPE_UINT8"}
QUEUE, LONGEST_WAIT_S = 64, 300
"""Most requests that wait for the pipeline, and how long in seconds; the server refuses others with UNAVAILABLE."""
_BATCHING = (
    f"dynamic_batching {{ default_queue_policy {{ timeout_action: REJECT max_queue_size: {QUEUE} "
    f"default_timeout_microseconds: {LONGEST_WAIT_S * 1_000_000} }} }}"
)


@dataclass(frozen=True, kw_only=True)
class Instances:
    """Processes or execution contexts of a model."""

    count: int = 1
    """On the CPU, or on each GPU."""
    gpus: tuple[int, ...] = ()
    """Indices of GPUs; empty for the CPU."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Configuration of one model."""

    name: str
    runs_on: tuple[str, str]
    """Field and value: ("backend", "python"), ("platform", "onnxruntime_onnx") or ("platform", "tensorrt_plan")."""
    version: int
    """The only version that is served."""
    largest_batch: int
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    alternative_inputs: bool = False
    """Whether a request has one of the inputs, whose sizes may differ between the requests of a batch."""
    dynamic_batching: bool
    instances: Instances
    parameters: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """The configuration as protobuf text."""
        (platform, value) = self.runs_on
        alternative = " optional: true allow_ragged_batch: true" if self.alternative_inputs else ""
        lines = [
            MARK,
            f"name: {_quoted(self.name)}",
            f"{platform}: {_quoted(value)}",
            f"max_batch_size: {self.largest_batch}",
            f"version_policy {{ specific {{ versions: {self.version} }} }}",
            *_tensors("input", self.inputs, alternative),
            *_tensors("output", self.outputs),
            _group(self.instances),
            *([_BATCHING] if self.dynamic_batching else []),
            *(
                f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(text)} }} }}"
                for key, text in self.parameters.items()
            ),
        ]
        return "\n".join(lines) + "\n"


def _tensors(kind: str, tensors: Mapping[str, Tensor], more: str = "") -> Iterable[str]:
    for name, tensor in tensors.items():
        yield f"{kind} {{ name: {_quoted(name)} data_type: {TYPES[tensor.dtype]} dims: {_list(tensor.shape)}{more} }}"


def _group(instances: Instances) -> str:
    gpus = f" gpus: {_list(instances.gpus)}" if instances.gpus else ""
    return f"instance_group {{ count: {instances.count} kind: KIND_{'GPU' if gpus else 'CPU'}{gpus} }}"


def _list(numbers: Sequence[int]) -> str:
    return f"[{', '.join(map(str, numbers))}]"


def _quoted(text: str) -> str:
    """A string literal; those of JSON in ASCII are valid in protobuf's text format, except for lone surrogates."""
    return json.dumps(text)
