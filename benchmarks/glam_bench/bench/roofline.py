"""How near each network comes to what the machine could do."""

from collections.abc import Iterator, Mapping, Sequence

from glam_bench.bench.schema import Peaks, Roofline, RooflineStage, Rung

Arithmetic = Mapping[str, Mapping[str, float]]
NARROW = ("int8", "bf16", "fp16")


def roofline(ladder: Sequence[Rung], arithmetic: Arithmetic, peaks: Peaks, patches: int) -> Roofline:
    """Every rung that ran on the CPU, whose peaks these are. `arithmetic`: see `arithmetic.of_bundle`."""
    return Roofline(peaks=peaks, stages=[s for rung in ladder for s in _stages(rung, arithmetic, peaks, patches)])


def _stages(rung: Rung, arithmetic: Arithmetic, peaks: Peaks, patches: int) -> Iterator[RooflineStage]:
    times, engine = rung["stages_ms"], rung["engine"]
    if times is None or engine is None or engine.get("device") != "cpu":
        return
    precision = roof_precision(str(engine.get("precision", "fp32")), peaks)
    for stage, runs in (("global", 1), ("local", patches)):
        flop, moved, ms = arithmetic[stage]["flop"], arithmetic[stage]["bytes"], times[stage] / runs
        yield RooflineStage(
            stage=stage,
            engine=rung["key"],
            precision=precision,
            flop=flop,
            bytes=moved,
            ms=ms,
            share_of_peak=flop / (ms * 1e-3) / roof(peaks, precision, flop, moved),
        )


def roof(peaks: Peaks, precision: str, flop: float, moved: float) -> float:
    """Operations a second that can be reached at best: by arithmetic, or by what memory brings."""
    return min(peaks["flop_per_s"][precision] or float("inf"), peaks["bytes_per_s"] * flop / moved)


def roof_precision(precision: str, peaks: Peaks) -> str:
    """The narrowest type that an engine names and whose peak is known; "fp32" else."""
    return next((p for p in NARROW if p in precision and peaks["flop_per_s"].get(p)), "fp32")
