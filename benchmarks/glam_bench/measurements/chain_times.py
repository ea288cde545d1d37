"""Times of one engine: its stages, the whole chain on the GPU, and from host to host."""

import gc
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import cycle, islice
from time import perf_counter
from typing import Any

import numpy as np

from glam_bench import smi
from glam_bench.clock import QUICK, Runs, host_ms, spread
from glam_bench.gpu.clock import Timer
from glam_bench.gpu.plan import GpuContext
from glam_bench.gpu.stage_runs import StageRuns
from glam_bench.images import phantoms
from glam_bench.opening import open_engine, pipeline_of
from glam_deploy.bundle import open_bundle
from glam_deploy.engines.base import OpenedEngines
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.engines.base import GpuEngines
from glam_deploy.json_records import to_json
from glam_deploy.networks import GLAM
from glam_deploy.preprocess import prepare
from glam_deploy.records import Mammogram
from glam_deploy.runtime.borrowed_slot import BorrowedSlot
from glam_deploy.runtime.pipeline import Pipeline

SHAPES = ((1, 1), (1, 3), (1, 6), (4, 1))
"""(images at once, patches of each)."""
RUNS = Runs(seconds=1.0)
THREADS = 8
OVERLAPPED = 64
"""Images of the throughput, as many in flight as the pipeline has slots."""


def run(context: GpuContext) -> None:
    """Time an engine with every shape of SHAPES, and write each part into the record when it is done."""
    start = perf_counter()
    opened = open_engine(context.argument, open_bundle(context.bundle), device=context.options.device)
    context.add(opened_s=perf_counter() - start, provenance=to_json(opened.identity))
    subject = Subject(opened, phantoms([1]), QUICK if context.options.quick else RUNS)
    for n, k in SHAPES[:1] if context.options.quick else SHAPES:
        row: dict[str, Any] = {}
        for part in subject.parts(n, k):
            row |= part
            context.add(**{f"n={n},k={k}": row})
        gc.collect()  # execution contexts and slots, which hold gigabytes


class Subject:
    """An engine to be timed; all times are milliseconds."""

    def __init__(self, opened: OpenedEngines, views: Sequence[Mammogram], runs: Runs) -> None:
        """`views`: four raw views."""
        assert isinstance(opened, GpuEngines)
        self.gpu, self._opened, self._views, self._runs = opened.gpu, opened, views, runs

    def parts(self, n: int, k: int) -> Iterator[dict[str, Any]]:
        """Of `n` images at once, 1 or 4, with `k` patches each: the stages, the chain on the GPU, from host to host."""
        stages = StageRuns(self._opened.engines, self.gpu, n, k)
        times = stages.times(self._runs)
        calls = stages.call_times(self._runs)
        yield {"stages": times, "capturable": stages.capturable, "not_recorded": stages.not_recorded}
        yield {"stages_call_returns": calls}
        pipeline = pipeline_of(self._opened, k)
        with pipeline.slot(n) as slot:
            resident = resident_times(self.gpu, slot, n, self._runs)
            whole, networks = resident["gpu"]["p50"], times["both networks"]["p50"]
            yield {"cuda_graph": slot.result().provenance["cuda_graph"]}
            yield {"resident": resident, "glue": {"ms": whole - networks, "share": (whole - networks) / whole}}
            yield {"watched": watched(self.gpu, slot, self._runs.at_least)}
            yield {"under_load": _under_load(self.gpu, slot, whole)}
        yield {"host_to_host": host_times(pipeline, self._views[:n], replace(self._runs, warm_up=3, warm_up_s=0))}
        yield {"memory_used_bytes": self.gpu.used_bytes}


def resident_times(gpu: Gpu, slot: BorrowedSlot, n: int, runs: Runs) -> dict[str, dict[str, float]]:
    """From an image on the GPU to its results there: on the GPU's clock, on the host's, and until the call returns."""
    fill(slot, n)
    timer = Timer(gpu, slot.stream)
    return {
        "gpu": spread(timer.on_gpu(slot.run, runs)),
        "host": spread(timer.on_host(slot.run, runs)),
        "call_returns": spread(timer.to_return(slot.run, runs)),
    }


def fill(slot: BorrowedSlot, n: int) -> None:
    """Standardized noise into the slot's image."""
    values = np.random.default_rng(6).standard_normal((n, 1, *GLAM.input_shape), np.float32)
    slot.stream.copy_in(slot.image.address, values.ctypes.data, values.nbytes)
    slot.stream.synchronize()


def watched(gpu: Gpu, slot: BorrowedSlot, runs: int) -> dict[str, int]:
    """Allocations and waits between upload and download, of which there must be none, over `runs` runs.

    `allocations` and `waits` are calls of this package. `memory_change_bytes` is by the driver, of all
    libraries. `calls_returned_early` counts the calls that returned before the GPU was done.
    """
    before, used = gpu.counts, gpu.used_bytes
    early = 0
    for _ in range(runs):
        slot.run()
        early += not slot.stream.is_idle
    after = gpu.counts
    slot.stream.synchronize()
    return {
        "runs": runs,
        "allocations": after.allocations - before.allocations,
        "waits": after.synchronisations - before.synchronisations,
        "memory_change_bytes": gpu.used_bytes - used,
        "calls_returned_early": early,
    }


def host_times(pipeline: Pipeline, views: Sequence[Mammogram], runs: Runs) -> dict[str, Any]:
    """From pixels on the host to a result there: of raw views with the search for the breast, of standardized ones,
    what the GPU alone took between upload and download, and images a second where calls overlap."""
    ready = [prepare(view) for view in views]
    last = pipeline.batch(views)[-1]
    overlapped = ready * max(1, min(OVERLAPPED, runs.at_most) // len(ready))
    start = perf_counter()
    done = sum(1 for _ in pipeline.map(overlapped))
    rate = done / (perf_counter() - start)
    return {
        "raw": spread(host_ms(lambda: pipeline.batch(views), runs)),
        "standardized": spread(host_ms(lambda: pipeline.batch(ready), runs)),
        "upload_to_download_gpu_ms": last.timings_ms.get("gpu"),
        "images_per_s_in_flight": rate,
        f"raw_images_per_s_{THREADS}_threads": rate_of_threads(pipeline, views, min(OVERLAPPED, runs.at_most)),
    }


def rate_of_threads(pipeline: Pipeline, views: Sequence[Mammogram], count: int) -> float:
    """Raw views a second, each of THREADS threads with one view after another, `count` in all."""
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(pipeline, islice(cycle(views), THREADS)))  # every slot has run
        start = perf_counter()
        list(threads.map(pipeline, islice(cycle(views), count)))
        return count / (perf_counter() - start)


def _under_load(gpu: Gpu, slot: BorrowedSlot, milliseconds: float) -> Any:
    """nvidia-smi asked while about a second of runs is under way."""
    for _ in range(max(1, min(1000, int(1000 / milliseconds)))):
        slot.run()
    snapshot = smi.snapshot(gpu.index)
    slot.stream.synchronize()
    return snapshot
