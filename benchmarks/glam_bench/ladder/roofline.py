"""How near each network comes to what the machine could do."""

from collections.abc import Iterator, Mapping, Sequence

from glam_bench.schema import Peaks, Roofline, RooflineStage, Rung
from glam_deploy.engines.base import EngineIdentity
from glam_deploy.json_records import from_json
from glam_deploy.networks import Stage

Arithmetic = Mapping[str, Mapping[str, float]]
DIRECT, WINOGRAD = "direct", "winograd"
"""Values of `EngineIdentity.form`."""


def roofline(ladder: Sequence[Rung], arithmetic: Arithmetic, peaks: Peaks, patches: int) -> Roofline:
    """Every rung that ran on the CPU, whose peaks these are. `arithmetic`: see `arithmetic.of_bundle`.

    A direct convolution that is faster than a peak proves the peak wrong, and takes its place.
    """
    stages = [stage for rung in ladder for stage in _stages(rung, arithmetic, peaks, patches)]
    reached = dict(peaks["flop_per_s"])
    for stage in stages:
        if stage.get("algorithm") == DIRECT:
            reached[stage["precision"]] = max(reached[stage["precision"]] or 0.0, _rate(stage))
    raised = Peaks(flop_per_s=reached, bytes_per_s=peaks["bytes_per_s"])
    return Roofline(peaks=raised, stages=[{**stage, "share_of_peak": _share(stage, raised)} for stage in stages])


def _stages(rung: Rung, arithmetic: Arithmetic, peaks: Peaks, patches: int) -> Iterator[RooflineStage]:
    times, engine = rung["stages_ms"], rung["engine"]
    if times is None or engine is None or engine.get("device") != "cpu":
        return
    identity = from_json(EngineIdentity, engine)
    networks: tuple[tuple[Stage, int], ...] = (("global", 1), ("local", patches))
    for stage, runs in networks:
        if stage not in arithmetic:
            continue
        computed = identity.precision[stage].weights
        yield RooflineStage(
            stage=stage,
            engine=rung["key"],
            precision=computed if peaks["flop_per_s"].get(computed) else "fp32",
            flop=arithmetic[stage]["flop"],
            bytes=arithmetic[stage]["bytes"],
            ms=times[stage] / runs,
            share_of_peak=0.0,  # known when all rates are
            algorithm=identity.form(stage),
        )


def _rate(stage: RooflineStage) -> float:
    return stage["flop"] / (stage["ms"] * 1e-3)


def _share(stage: RooflineStage, peaks: Peaks) -> float:
    rate, peak = _rate(stage), peaks["flop_per_s"][stage["precision"]] or float("inf")
    by_memory = peaks["bytes_per_s"] * stage["flop"] / stage["bytes"]
    return rate / (min(peak, by_memory) if rate <= by_memory else peak)
