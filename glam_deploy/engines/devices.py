"""Selection of GPUs: one, several, or all of this machine."""

from collections.abc import Sequence
from typing import Literal

from glam_deploy.engines.base import require_whole_number
from glam_deploy.engines.registry import OWNERS, count_gpus
from glam_deploy.errors import UsageError

Devices = int | Sequence[int] | Literal["all"] | None
"""Index of a GPU, several of them, or all of this machine; None leaves the choice to the engine."""


def gpu_indices(engine: str, devices: Devices) -> tuple[int, ...]:
    """The indices of the GPUs on which an engine shall run, in the given order; empty for None.

    Raises UsageError for a selection that is empty, names a GPU twice, or asks for several or all with a CPU engine;
    BackendUnavailable if "all" finds none.
    """
    if devices is None:
        return ()
    is_cpu = engine in OWNERS and not OWNERS[engine].gpu
    if devices == "all":
        if is_cpu:
            raise UsageError(f"device = 'all': engine {engine!r} runs on the CPU; remove the option")
        return tuple(range(count_gpus()))
    if isinstance(devices, int):
        indices: tuple[int, ...] = (devices,)
    elif isinstance(devices, Sequence) and not isinstance(devices, str):
        indices = tuple(devices)
    else:
        raise UsageError(f"device = {devices!r}: expected the index of a GPU, several indices, or 'all'")
    for index in indices:
        require_whole_number("device", index, 0)
    if not indices or None in indices or len(set(indices)) < len(indices):
        raise UsageError(f"device = {list(indices)}: expected at least one index, and each once")
    if is_cpu and len(indices) > 1:
        raise UsageError(f"device = {list(indices)}: engine {engine!r} runs on the CPU; remove the option")
    return indices
