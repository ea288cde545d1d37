"""Upper bounds of this card: rates of a copy and of matrix products; and the operations of the networks."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from glam_bench import smi
from glam_bench.arithmetic import of_bundle
from glam_bench.clock import Runs, spread
from glam_bench.gpu.clock import Timer
from glam_bench.gpu.plan import GpuContext
from glam_bench.gpu.torch_engine import tf32, torch_ms
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.precision import Precision

COPY_BYTES = 2 * 1024**3
DTYPES: Mapping[Precision, torch.dtype] = MappingProxyType(
    {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
)
SIDES = (4096, 8192, 16384)
"""Of the square matrices; the best of them counts."""


def run(context: GpuContext) -> None:
    """Arithmetic of the graphs, bandwidth, then the matrix rate and the clocks under that load."""
    context.add(flop=arithmetic(context))
    gpu = Gpu(context.options.device)
    context.add(copy_bytes_per_s=copy_rate(gpu, 256 * 1024**2 if context.options.quick else COPY_BYTES))
    context.add(**matrix_rates(context))


def arithmetic(context: GpuContext) -> dict[str, float]:
    """Floating-point operations of the convolutions for one image ("global") and for one patch ("local")."""
    return {stage: counted["flop"] for stage, counted in of_bundle(context.options.bundle).items()}


def copy_rate(gpu: Gpu, nbytes: int) -> float:
    """Bytes read and written a second by a copy on the card of `nbytes`, the best of twenty."""
    stream, source, target = gpu.stream(), gpu.allocate(nbytes), gpu.allocate(nbytes)
    stream.fill(source.address, nbytes, 0x5A)
    times = Timer(gpu, stream).on_gpu(lambda: stream.copy(target.address, source.address, nbytes), Runs(at_most=20))
    return 2 * nbytes / (min(times) * 1e-3)


def matrix_rates(context: GpuContext) -> dict[str, Any]:
    """PyTorch's matrix products of random numbers, in operations a second, and the clocks while they run."""
    device = torch.device("cuda", context.options.device)
    tf32(allowed=False)
    rates: dict[str, dict[str, float]] = {}
    sides = SIDES[:1] if context.options.quick else SIDES
    for name, dtype in DTYPES.items():
        for side in sides:
            a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
            milliseconds = torch_ms(lambda a=a, b=b: a @ b)  # type: ignore[misc]
            rates.setdefault(name, {})[str(side)] = 2 * side**3 / (spread(milliseconds)["p50"] * 1e-3)
    best = {name: max(by_side.values()) for name, by_side in rates.items()}
    return {"matrix_flop_per_s": best, "matrix_flop_per_s_by_side": rates, "under_load": _under_load(context, a, b)}


def _under_load(context: GpuContext, a: Any, b: Any) -> Any:
    """nvidia-smi asked while a second or two of matrix products is under way."""
    flop = 2 * a.shape[0] ** 3
    for _ in range(max(1, int(1e15 // flop))):
        a @ b
    snapshot = smi.snapshot(context.options.device)
    torch.cuda.synchronize()
    return snapshot
