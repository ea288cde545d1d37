"""The peaks of this processor, by matrix products of several libraries and by its instructions, and of its memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from onnx import TensorProto, helper

from glam_bench.arithmetic import of_bundle
from glam_bench.clock import Runs, host_ms
from glam_bench.ladder import isa
from glam_bench.ladder.settings import BenchContext
from glam_bench.schema import Peaks
from glam_deploy.engines.cpu import BF16, features

RUNS = Runs.exactly(5)


def run(context: BenchContext) -> None:
    """The peaks, and the operations of the bundle's graphs."""
    pace = context.options.pace
    context.add(peaks=measure(pace.matrix_side, pace.copy_bytes))
    context.add(arithmetic=of_bundle(context.options.bundle))


def measure(matrix_side: int, copy_bytes: int) -> Peaks:
    """For each type the highest of: products by PyTorch, numpy and ONNX Runtime, the best of five after a warm-up, and
    what the instruction set allows at the measured clock (`isa`), which no program can pass.
    """
    with torch.inference_mode():
        measured = {
            "fp32": (_torch_rate(matrix_side, torch.float32), _numpy_rate(matrix_side)),
            "bf16": (_torch_rate(matrix_side, torch.bfloat16),) if features() & {*BF16} else (),
            "int8": (_int8_rate(matrix_side), _torch_int8_rate(matrix_side)),
        }
        limits = isa.peaks()
        rates = {name: max([*found, limits[name] or 0.0]) or None for name, found in measured.items()}
        source, target = (torch.empty(copy_bytes, dtype=torch.uint8).fill_(i) for i in range(2))
        return Peaks(flop_per_s=rates, bytes_per_s=2 * copy_bytes / _best_s(lambda: target.copy_(source)))


def _torch_rate(side: int, dtype: torch.dtype) -> float:
    a, b = (torch.randn(side, side).to(dtype) for _ in range(2))
    return 2 * side**3 / _best_s(lambda: a @ b)


def _numpy_rate(side: int) -> float:
    a, b = (np.random.default_rng(seed).standard_normal((side, side), np.float32) for seed in range(2))
    return 2 * side**3 / _best_s(lambda: a @ b)


def _torch_int8_rate(side: int) -> float:
    a, b = (torch.randint(-63, 64, (side, side), dtype=torch.int8) for _ in range(2))
    return 2 * side**3 / _best_s(lambda: torch._int_mm(a, b))


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
    return min(host_ms(call, RUNS)) / 1e3
