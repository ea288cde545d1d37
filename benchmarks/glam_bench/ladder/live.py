"""What is measured of a rung, and its entry in bench.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, median
from typing import Any

from glam_bench.ladder import windows
from glam_bench.ladder.rungs import BASELINES, PUBLISHED, RungPlan
from glam_bench.parity import parity
from glam_bench.schema import Clocks, Memory, Parity, Rung
from glam_bench.worker import Worker
from glam_deploy.agreement.answers import Answer
from glam_deploy.networks import NetworkSpec

REFERENCES = (PUBLISHED, "onnx")
"""Keys of the rungs that the others are compared with: the first of these that ran."""


@dataclass(kw_only=True)
class Live:
    """A rung that runs, and everything measured of it so far."""

    plan: RungPlan
    worker: Worker
    opened: Mapping[str, Any]
    """"engine" and "build_s" of the reply of its child."""
    first_start_ms: float
    cold_start_ms: float | None
    run_ms: float = 0.0
    """Milliseconds of a run outside of a window, roughly."""
    answers: list[Answer] = field(default_factory=list)
    windows: list[list[float]] = field(default_factory=list)
    stages: list[list[dict[str, float]]] = field(default_factory=list)
    """Of every run, window by window."""
    joules: dict[str, list[float]] = field(default_factory=lambda: {"packages": [], "gpu": []})
    """For one image, window by window; of processor packages and GPU, in this order."""
    clocks: list[tuple[float, float]] = field(default_factory=list)
    """Before and after each window."""
    memory: Memory | None = None


def measured(live: Live, all_live: Mapping[str, Live], images: Sequence[str], network: NetworkSpec) -> Rung:
    """The figures of one rung, compared with the others."""
    runs = [ms for window in windows.counted(live.windows) for ms in window]
    return Rung(
        name=live.plan.name,
        key=live.plan.key,
        engine=live.opened["engine"],
        unavailable=None,
        latency_ms=windows.latency(live.windows),
        throughput_per_s=1e3 / mean(runs),
        stages_ms=_medians([row for window in live.stages[-windows.COUNTED :] for row in window]),
        cold_start_ms=live.cold_start_ms,
        first_start_ms=live.first_start_ms,
        build_s=live.opened["build_s"],
        peak_memory_mb=live.memory,
        energy_j=_median(live.joules["packages"]),
        gpu_energy_j=_median(live.joules["gpu"]),
        ratio_to={
            key: windows.times_as_fast(live.windows, all_live[key].windows) for key in BASELINES if key in all_live
        },
        parity=_parity(live, all_live, images, network),
        clock_mhz=_clocks(live.clocks),
    )


def unavailable(plan: RungPlan, why: str) -> Rung:
    """A rung without figures."""
    nothing: Any = dict.fromkeys(key for key in Rung.__annotations__ if key != "gate")
    return {**nothing, "name": plan.name, "key": plan.key, "unavailable": why}  # type: ignore[typeddict-item]


def _medians(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {step: median(row[step] for row in rows) for step in rows[0]}


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _parity(live: Live, all_live: Mapping[str, Live], images: Sequence[str], network: NetworkSpec) -> Parity | None:
    reference = next((key for key in REFERENCES if key in all_live), None)
    return parity(images, live.answers, all_live[reference].answers, network) if reference else None


def _clocks(seen: Sequence[tuple[float, float]]) -> Clocks | None:
    if not seen:
        return None
    return Clocks(before=mean(before for before, _ in seen), after=mean(after for _, after in seen))
