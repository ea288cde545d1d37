"""What this processor reaches at best: large matrix products and a copy."""

from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from onnx import TensorProto, helper

from glam_bench.bench.schema import Peaks
from glam_deploy.engines.cpu_features import BF16, features

RUNS = 5


def measure(matrix_side: int, copy_bytes: int) -> Peaks:
    """The best of five each, after a warm-up. fp32 and bf16 by PyTorch, int8 by ONNX Runtime."""
    with torch.inference_mode():
        rates: dict[str, float | None] = {
            "fp32": _torch_rate(matrix_side, torch.float32),
            "bf16": _torch_rate(matrix_side, torch.bfloat16) if features() & {*BF16} else None,
            "int8": _int8_rate(matrix_side),
        }
        source, target = (torch.empty(copy_bytes, dtype=torch.uint8).fill_(i) for i in range(2))
        return Peaks(flop_per_s=rates, bytes_per_s=2 * copy_bytes / _best_s(lambda: target.copy_(source)))


def _torch_rate(side: int, dtype: torch.dtype) -> float:
    a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
    return 2 * side**3 / _best_s(lambda: a @ b)


def _int8_rate(side: int) -> float:
    """unsigned x signed, as activations and weights are."""
    rng = np.random.default_rng(0)
    weights = rng.integers(-63, 64, (side, side), np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
        "int8",
        [helper.make_tensor_value_info("a", TensorProto.UINT8, (side, side))],
        [helper.make_tensor_value_info("y", TensorProto.INT32, (side, side))],
        [helper.make_tensor("b", TensorProto.INT8, (side, side), weights.tobytes(), raw=True)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session: Any = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feed = {"a": rng.integers(0, 128, (side, side), np.uint8)}
    return 2 * side**3 / _best_s(lambda: session.run(None, feed))


def _best_s(call: Callable[[], object]) -> float:
    return min(_once_s(call) for _ in range(1 + RUNS))


def _once_s(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start
