"""The facts of a run: card, driver, packages, commit, bundle."""

from typing import Any

from glam_bench import machine, smi
from glam_bench.gpu.plan import GpuContext
from glam_deploy.bundle import Bundle, graph_file, open_bundle
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.json_records import to_json
from glam_deploy.networks import STAGES
from glam_deploy.precision import PRECISIONS


def run(context: GpuContext) -> None:
    """Raises BackendUnavailable where there is no GPU that this package can use."""
    gpu = Gpu(context.options.device)
    context.add(
        gpu=of_gpu(gpu), nvidia_smi=smi.snapshot(gpu.index), host=machine.facts(), packages=machine.relevant_packages()
    )
    context.add(commit=machine.commit(), bundle=of_bundle(open_bundle(context.options.bundle)))


def of_gpu(gpu: Gpu) -> dict[str, Any]:
    """Properties of a GPU by its driver; bandwidth in bytes a second, None where the driver has no memory clock."""
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
    """Bytes a second of memory that moves data at both edges of its clock, as that of all NVIDIA GPUs does."""
    return 2 * clock_khz * 1e3 * bus_bits / 8 or None


def of_bundle(bundle: Bundle) -> dict[str, Any]:
    """Id, network, and the precisions of which the bundle has graphs."""
    having = [p for p in PRECISIONS if all(graph_file(stage, p) in bundle.files for stage in STAGES)]
    return {"id": bundle.id, "network": to_json(bundle.manifest.network), "precisions": having}
