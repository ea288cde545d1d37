"""What is measured, and on what: card, driver, packages, commit, bundle."""

import subprocess
from importlib.metadata import distributions
from typing import Any

from glam_bench import machine
from glam_bench.gpu_check import smi
from glam_bench.gpu_check.context import Context
from glam_deploy.bundle import Bundle, graph_file, open_bundle
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.installation import IN_CHECKOUT, TREE
from glam_deploy.json_records import to_json
from glam_deploy.networks import STAGES
from glam_deploy.precision import PRECISIONS

RELEVANT = ("cuda", "cupy", "glam", "numba", "numpy", "nvidia", "onnx", "opencv", "pycuda", "tensorrt", "torch")
"""Beginnings of the names of packages that can change a figure."""


def run(context: Context) -> None:
    """Raises BackendUnavailable where there is no GPU to be had."""
    gpu = Gpu(context.options.device)
    context.add(gpu=of_gpu(gpu), nvidia_smi=smi.snapshot(gpu.index), host=machine.facts(), packages=packages())
    context.add(commit=commit(), bundle=of_bundle(open_bundle(context.options.bundle)))


def of_gpu(gpu: Gpu) -> dict[str, Any]:
    """What the driver tells; bandwidth in bytes a second, None where it tells no memory clock."""
    return {
        "name": gpu.name,
        "compute_capability": gpu.compute_capability,
        "architecture": gpu.architecture,
        "driver": gpu.driver,
        "cuda": gpu.cuda,
        "memory_bytes": gpu.memory_bytes,
        "memory_used_bytes": gpu.used_bytes,
        "multiprocessors": gpu.multiprocessors,
        "clock_khz": gpu.clock_khz,
        "memory_clock_khz": gpu.memory_clock_khz,
        "memory_bus_bits": gpu.memory_bus_bits,
        "memory_bandwidth": bandwidth(gpu.memory_clock_khz, gpu.memory_bus_bits),
    }


def bandwidth(clock_khz: int, bus_bits: int) -> float | None:
    """Of memory that moves data at both edges of its clock, as all of NVIDIA's does; bytes a second."""
    return 2 * clock_khz * 1e3 * bus_bits / 8 or None


def packages() -> dict[str, str]:
    """Versions of what is installed and relevant."""
    found = {d.metadata["Name"].lower(): d.version for d in distributions()}
    return {name: found[name] for name in sorted(found) if name.startswith(RELEVANT)}


def commit() -> str | None:
    """Of the checkout that this copy runs from, with "+" where it was changed since; None where there is none."""
    if not IN_CHECKOUT:  # a repository around an installed copy is not its own
        return None
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def of_bundle(bundle: Bundle) -> dict[str, Any]:
    """Its identity and the precisions that it has graphs of."""
    having = [p for p in PRECISIONS if all(graph_file(stage, p) in bundle.files for stage in STAGES)]
    return {"id": bundle.id, "network": to_json(bundle.manifest.network), "precisions": having}


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(TREE), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
