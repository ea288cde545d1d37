"""PyTorch on the card: the reference's network, its types, its clock."""

from collections.abc import Callable
from time import perf_counter

import torch

from glam_bench.gpu_check.context import Context
from glam_deploy.bundle import CHECKPOINT_FILE, open_bundle
from glam_export.checkpoint import load_weights
from glam_export.reference import GlamNetwork


def load_network(context: Context) -> GlamNetwork:
    """The bundle's own weights, on the CPU. Raises BundleError where it was exported without them."""
    bundle = open_bundle(context.options.bundle)
    return load_weights(bundle.read(CHECKPOINT_FILE), bundle.network)


def tf32(*, allowed: bool) -> None:
    """Whether FP32 convolutions and products may be computed with ten bits of mantissa."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def torch_ms(work: Callable[[], object], *, seconds: float = 1.0, at_most: int = 100) -> list[float]:
    """Milliseconds of PyTorch work by its events, runs queued one behind the other, after a warm-up."""
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    times: list[float] = []
    start = perf_counter()
    while len(times) < 10 or (len(times) < at_most and perf_counter() - start < seconds):
        pairs = [(_event(), _event()) for _ in range(5)]
        for before, after in pairs:
            before.record()
            work()
            after.record()
        torch.cuda.synchronize()
        times += [before.elapsed_time(after) for before, after in pairs]
    return times


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
