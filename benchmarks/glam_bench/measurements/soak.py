"""Many threads on one pipeline for many images: every result against the first, and memory of host and GPU."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import combinations, count
from os import sysconf
from pathlib import Path
from threading import Lock
from time import perf_counter
from typing import Any

import numpy as np

from glam_bench.clock import growth
from glam_bench.gpu.plan import GpuContext
from glam_bench.images import phantoms
from glam_bench.opening import open_engine, pipeline_of
from glam_deploy.agreement.answers import Answer, answer, largest_differences
from glam_deploy.bundle import open_bundle
from glam_deploy.errors import GlamError, InternalError
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.engines.base import GpuEngines
from glam_deploy.preprocess import prepare
from glam_deploy.records import Mammogram, NetworkInput
from glam_deploy.runtime.pipeline import Pipeline

SMALL = (832, 640)
"""Rows and columns of raw views whose breast is found in a few milliseconds."""
RESERVE_S = 10.0
"""Left at the end of the time limit to stop and to record."""
READINGS = 100
TOLERANCE = 1e-3
"""A value that is further from the first result is wrong; one that is nearer but not equal is counted apart."""
QUICK_IMAGES = 500

View = Mammogram | NetworkInput


@dataclass(kw_only=True)
class Tally:
    """What was counted so far."""

    done: int = 0
    wrong: int = 0
    other_bits: int = 0
    """Equal within rounding, but not bit for bit."""
    errors: list[str] = field(default_factory=list)
    readings: list[tuple[int, int, int]] = field(default_factory=list)
    """(images done, bytes held by this process, bytes held on the GPU by everyone)."""


def run(context: GpuContext) -> None:
    """The soak, for as long as the time limit allows."""
    opened = open_engine(context.argument, open_bundle(context.bundle), device=context.options.device)
    assert isinstance(opened, GpuEngines)
    options = context.options
    images = min(options.images, QUICK_IMAGES) if options.quick else options.images
    pipeline, views, start = pipeline_of(opened, 1), inputs(), perf_counter()
    tally = soak(
        pipeline,
        opened.gpu,
        views,
        images=images,
        threads=options.threads,
        goes_on=lambda: context.seconds_left > RESERVE_S,
    )
    context.add(asked=images, threads=options.threads, **report(tally, perf_counter() - start))


def inputs() -> list[View]:
    """Raw views of both types and standardized ones, all different, so that every kind of input is used at once."""
    raw, ready = phantoms([0], shape=SMALL), phantoms([1], shape=SMALL)
    as_float = replace(raw[0], pixels=raw[0].pixels.astype(np.float32) / 3)
    return [as_float, *raw[1:], *map(prepare, ready)]


def soak(
    pipeline: Pipeline,
    gpu: Gpu,
    views: Sequence[View],
    *,
    images: int,
    threads: int,
    goes_on: Callable[[], bool],
) -> Tally:
    """`views` in turn, `images` in all, from `threads` at once. Raises InternalError where no mix-up could show."""
    expected = [answer(pipeline(view)) for view in views]
    _require_different(expected)
    tally, lock, numbers = Tally(), Lock(), count()

    def work() -> None:
        while goes_on() and (number := next(numbers)) < images:
            which = number % len(views)
            distance, error = _distance(pipeline, views[which], expected[which])
            with lock:
                _count(tally, distance, error)
                if tally.done % max(1, images // READINGS) == 0:
                    tally.readings.append((tally.done, host_bytes(), gpu.used_bytes))

    with ThreadPoolExecutor(threads) as pool:
        for worker in [pool.submit(work) for _ in range(threads)]:
            worker.result()
    return tally


def distance(found: Answer, expected: Answer) -> float:
    """Largest difference of any value, 0 where all bits agree; infinite where a patch lies elsewhere."""
    if found.keys() != expected.keys() or (found["patch_locations"] != expected["patch_locations"]).any():
        return np.inf
    # unlike `max`, `np.max` returns NaN where there is one
    return float(np.max(list(largest_differences(found, expected).values())))


def report(tally: Tally, seconds: float) -> dict[str, Any]:
    """JSON-ready. Growth is in bytes over the whole run, after the allocations of the beginning."""
    done, host, device = zip(*tally.readings, strict=True) if tally.readings else ((), (), ())
    return {
        "done": tally.done,
        "wrong": tally.wrong,
        "other_bits": tally.other_bits,
        "errors": tally.errors[:5],
        "seconds": seconds,
        "images_per_s": tally.done / seconds,
        "host_growth_bytes": _whole(growth(done, host)),
        "device_growth_bytes": _whole(growth(done, device)),
        "readings": tally.readings,
    }


def _whole(grown: float | None) -> int | None:
    """A line through equal readings has a slope of some 1e-14."""
    return None if grown is None else round(grown)


def host_bytes() -> int:
    """Memory that this process holds, resident."""
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * sysconf("SC_PAGE_SIZE")


def _distance(pipeline: Pipeline, view: View, expected: Answer) -> tuple[float, str | None]:
    try:
        return distance(answer(pipeline(view)), expected), None
    except GlamError as error:
        return np.inf, f"{type(error).__name__}: {error}"


def _count(tally: Tally, off: float, error: str | None) -> None:
    tally.done += 1
    tally.wrong += not off <= TOLERANCE  # NaN is wrong too
    tally.other_bits += 0 < off <= TOLERANCE
    if error:
        tally.errors.append(error)


def _require_different(expected: Sequence[Answer]) -> None:
    for first, second in combinations(expected, 2):
        if distance(first, second) <= TOLERANCE:
            raise InternalError("two views of the soak have the same answer, so a mix-up would not show")
