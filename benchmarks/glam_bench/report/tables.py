"""The figures behind the plots, as tables."""

from collections.abc import Sequence

from glam_bench.ladder.rungs import BASELINES, PUBLISHED
from glam_bench.report import words
from glam_bench.report.html import table
from glam_bench.report.markup import Markup
from glam_bench.report.plots import files, roofline, stages
from glam_bench.report.rungs import median_dice, timed, worst_dice
from glam_bench.report.words import MISSING, dice, duration, percent, times
from glam_bench.schema import Case, Files, Mixture, Results, Rung

VERDICTS = {"passed": "passed", "failed": "failed", "none": "nobody has held it yet", "reference": "needs no gate"}
"""Of a gate, in words."""


def ladder(results: Results) -> Markup | None:
    """Speed and its price."""
    names = {rung["key"]: rung["name"] for rung in results["ladder"]}
    baselines = [key for key in BASELINES if any(key in (rung["ratio_to"] or {}) for rung in results["ladder"])]
    columns = ["rung", "p50", "images a second", *(f"speed against {names.get(key, key)}" for key in baselines)]
    columns += ["Dice, median", "Dice, worst", "same patches"]
    rows = [[*_speed(rung, baselines), *_price(rung)] for rung in results["ladder"]]
    return table("Each rung, its speed and what it costs (fused maps at threshold 0.5)", columns, rows)


def _speed(rung: Rung, baselines: list[str]) -> list[str]:
    latency, ratios = rung["latency_ms"], rung["ratio_to"] or {}
    p50 = duration(latency["p50"]) if latency else "not run"
    return [rung["name"], p50, words.significant(rung["throughput_per_s"]), *(times(ratios.get(k)) for k in baselines)]


def _price(rung: Rung) -> list[str]:
    parity = rung["parity"]
    same = f"{parity['same_patches']} of {parity['cases']}" if parity else MISSING
    return [dice(median_dice(rung)), dice(worst_dice(rung)), same]


def gates(results: Results) -> Markup | None:
    """Whether `run` takes the engines that were measured."""
    told = [(rung["name"], gate) for rung in results["ladder"] if (gate := rung.get("gate"))]
    rows = [
        [
            name,
            VERDICTS.get(gate["verdict"], gate["verdict"]),
            gate["id"] or MISSING,
            "; ".join(gate["failures"]) or MISSING,
        ]
        for name, gate in told
    ]
    return table("Gates of the engines, from the bundle's manifest", ("rung", "verdict", "gate", "not kept"), rows)


def frontier(found: Sequence[Mixture]) -> Markup | None:
    columns = ("stage", "made of", "in 8 bits", "time", "Dice, median", "Dice, worst", "", "blocks that are wide")
    rows = [
        [
            point["stage"],
            point["kind"],
            percent(point["narrow_share"]),
            duration(point["latency_ms"]),
            dice(point["dice_median"]),
            dice(point["dice_worst"]),
            "taken" if point["taken"] else "passed" if point["passed"] else "missed",
            ", ".join(point["wide"]) or MISSING,
        ]
        for point in found
    ]
    return table("What the precision search tried", columns, rows)


def costs(results: Results) -> Markup | None:
    """What a rung takes besides time."""
    columns = (
        "rung",
        "first start",
        "cold start",
        "build",
        "memory",
        "on the GPU",
        "energy, processor",
        "energy, GPU",
        "clock before",
        "clock after",
    )
    return table("What starting and running takes", columns, [_costs(row.rung) for row in timed(results)])


def _costs(rung: Rung) -> list[str]:
    memory, clock, build, joules = rung["peak_memory_mb"], rung["clock_mhz"], rung["build_s"], rung["energy_j"]
    return [
        rung["name"],
        duration(rung["first_start_ms"]),
        duration(rung["cold_start_ms"]),
        words.measure(build, "s"),
        words.measure(memory["rss"], "MiB") if memory else MISSING,
        words.measure(memory["device"], "MiB") if memory else MISSING,
        words.measure(joules, "J"),
        words.measure(rung.get("gpu_energy_j"), "J"),
        words.measure(clock["before"], "MHz") if clock else MISSING,
        words.measure(clock["after"], "MHz") if clock else MISSING,
    ]


def latency(results: Results) -> Markup | None:
    columns = ("rung", "p50", "p90", "p95", "p99", "runs", "windows", "noise", "stable")
    rows = [
        [
            rung["name"],
            *(duration(found[name]) for name in ("p50", "p90", "p95", "p99")),
            str(found["n"]),
            str(len(found["windows"])),
            percent(found["noise"]),
            "yes" if found["stable"] else "no",
        ]
        for rung, found in timed(results)
    ]
    return table("Time of one image", columns, rows)


def steps(results: Results) -> Markup | None:
    names = stages.steps(results)
    rows = [
        [rung["name"], *(duration(parts.get(name)) for name in names)]
        for rung in results["ladder"]
        if (parts := rung["stages_ms"])
    ]
    return table("Median time of each step", ("rung", *names), rows)


def roof(results: Results) -> Markup | None:
    if not (found := results["roofline"]):
        return None
    columns = ("rung", "network", "roof", "operations", "memory", "time", "rate", "of its roof")
    rows = [
        [
            p.stage["engine"],
            p.stage["stage"],
            p.stage["precision"],
            words.rate(p.stage["flop"], "OP"),
            words.rate(p.stage["bytes"], "B"),
            duration(p.stage["ms"]),
            words.rate(p.rate, "OP/s"),
            roofline.share(p.stage),
        ]
        for p in roofline.points(found)
    ]
    return table("The networks under the roof", columns, rows)


def worst(results: Results) -> Markup | None:
    """The worst image of each rung."""
    rows = [[rung["name"], *_worst(parity["per_case"])] for rung in results["ladder"] if (parity := rung["parity"])]
    return table("The worst image of each rung", ("rung", "image", "Dice at 0.5", "patches moved by"), rows)


def differences(results: Results) -> Markup | None:
    """By output."""
    found = [(rung["name"], parity["max_difference"]) for rung in results["ladder"] if (parity := rung["parity"])]
    outputs = list(dict.fromkeys(output for _, row in found for output in row))
    rows = [[name, *(_difference(row.get(output)) for output in outputs)] for name, row in found]
    return table(f"The largest differences from {PUBLISHED} in any image", ("rung", *outputs), rows)


def _worst(cases: list[Case]) -> list[str]:
    """The image with the lowest Dice of any class at the operating point; how far a patch moved in any."""
    lowest = [(min(found), case["case"]) for case in cases if (found := words.known(case["dice"].values()))]
    value, name = min(lowest, default=(None, MISSING))
    moved = max((case["moved_pixels"] for case in cases), default=None)
    return [name if value is not None and value < 1 else MISSING, dice(value), words.measure(moved, "px", 1)]


def _difference(value: float | None) -> str:
    return MISSING if value is None else "0" if value == 0 else f"{value:.1e}"


def jobs(found: dict[str, Files]) -> Markup | None:
    columns = ("job", "views", *files.STEPS, "steps in all", "whole job", "slowest step", "ratio")
    return table("From files to results", columns, [_job(name, job) for name, job in found.items()])


def _job(name: str, job: Files) -> list[str]:
    parts = files.times(job)
    durations = [*parts.values(), sum(parts.values()), job["total_ms"], job["slowest_ms"]]
    return [name, str(job["views"]), *(duration(ms) for ms in durations), times(job["ratio"])]


def engines(results: Results) -> Markup | None:
    """What ran, in the engines' own words."""
    told = [(rung["name"], rung["engine"]) for rung in results["ladder"] if rung["engine"]]
    rows = [
        [name, *(words.plain(engine.get(key)) for key in ("library", "device", "precision"))] for name, engine in told
    ]
    return table("What ran", ("rung", "library", "device", "precision"), rows)
