"""The tables of `glam-deploy bench`, for terminals of 80 columns or more."""

from collections.abc import Iterator, Sequence

from glam_bench.ladder import verdicts
from glam_bench.ladder.roofline import WINOGRAD
from glam_bench.ladder.rungs import PUBLISHED
from glam_bench.schema import Files, Latency, Results, RooflineStage, Rung
from glam_bench.tables import in_ms, show_table
from glam_deploy.cli import console
from glam_deploy.errors import counted

THRESHOLD = "0.5"
VERDICTS = {"passed": "ok", "failed": "FAIL", "none": "none", "reference": "ref."}
"""Verdicts of gates, short enough for 80 columns."""


def show(results: Results) -> None:
    """Print the ladder, the roofline, the times from files to results, and the notices."""
    machine, settings = results["machine"], results["settings"]
    images = counted(len(settings["images"]), "image")
    console.out.print(
        f"{machine['processor']}, {machine['cores']} cores; K = {settings['patches']}, {images}", soft_wrap=True
    )
    for line in _headline(results["ladder"]):
        console.out.print(line)
    _ladder(results["ladder"])
    for rung in results["ladder"]:
        if rung["unavailable"]:
            console.out.print(f"{rung['name']}: not here. {rung['unavailable']}")
    for rung in results["ladder"]:
        if said := _gate(rung):
            console.out.print(said)
    _roofline(results)
    _files(results)
    for notice in results["notices"]:
        console.out.print(f"! {notice}")


def _headline(ladder: Sequence[Rung]) -> Iterator[str]:
    first = verdicts.fastest(ladder)
    if first and (ms := verdicts.p50(first)) is not None:
        yield f"The fastest engine that may give results: {first['name']}, {in_ms(ms)} ms."
    elif any(rung["latency_ms"] for rung in ladder):
        yield "No engine that ran has passed its gate."
    for rung in verdicts.faster_without_gate(ladder, first):
        faster = "Faster" if first else "It ran"
        yield f"{faster}, but {verdicts.why_not(rung)}: {rung['name']}, {in_ms(verdicts.p50(rung) or 0.0)} ms."


def _ladder(ladder: Sequence[Rung]) -> None:
    show_table(
        "One standardized image to predictions and fused map",
        ("", "p50", "p99", "faster", "Dice", "same", "start", "MiB", "gate"),
        [tuple(_rung(rung, rung["latency_ms"])) for rung in ladder if rung["latency_ms"]],
        caption="p50, p99, start (first result of a new process): milliseconds; * unstable. Faster: than as published. "
        f"Dice: worst of both classes at {THRESHOLD} against as published; same: images with the same patches. "
        "Gate: whether `run` takes the engine; ref. needs none.",
    )


def _rung(rung: Rung, latency: Latency) -> Iterator[str]:
    yield rung["name"]
    yield in_ms(latency["p50"]) + ("" if latency["stable"] else "*")
    yield in_ms(latency["p99"])
    yield f"{rung['ratio_to'][PUBLISHED]:.2f}x" if rung["ratio_to"] and PUBLISHED in rung["ratio_to"] else "-"
    yield _dice(rung)
    yield f"{rung['parity']['same_patches']}/{rung['parity']['cases']}" if rung["parity"] else "-"
    start = rung["cold_start_ms"] or rung["first_start_ms"]
    yield in_ms(start) if start else "-"
    yield f"{rung['peak_memory_mb']['rss']:.0f}" if rung["peak_memory_mb"] else "-"
    gate = rung.get("gate")
    yield VERDICTS.get(gate["verdict"], gate["verdict"]) if gate else "-"


def _gate(rung: Rung) -> str | None:
    """A line about the gate of an engine: its id and the limits that were not kept."""
    gate = rung.get("gate")
    if not gate or gate["verdict"] == "reference":
        return None
    if gate["verdict"] == "none":
        return f"{rung['name']}: no gate. `glam-deploy gate --engine {rung['key'].partition('@')[0]}` makes one."
    return f"{rung['name']}: gate {gate['id']} {gate['verdict']}" + "".join(f"; {f}" for f in gate["failures"])


def _dice(rung: Rung) -> str:
    curves = rung["parity"]["worst_dice"].values() if rung["parity"] else []
    found = [value for curve in curves if (value := curve[THRESHOLD]) is not None]
    # never rounded up to perfect
    return f"{int(min(found) * 1e4) / 1e4:.4f}" if found else "-"


def _roofline(results: Results) -> None:
    roof = results["roofline"]
    if not roof:
        return
    peaks = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in roof["peaks"]["flop_per_s"].items() if rate)
    show_table(
        "Share of the roof",
        ("", "stage", "ms", "GFLOP/s", "share", "of"),
        [_stage(stage) for stage in roof["stages"]],
        caption=f"Peaks: {peaks} GFLOP/s, copy {roof['peaks']['bytes_per_s'] / 1e9:.1f} GB/s. Operations are those of "
        "direct convolutions; Winograd's form multiplies less and has no share.",
    )


def _stage(stage: RooflineStage) -> tuple[str, ...]:
    rate = stage["flop"] / stage["ms"] / 1e6
    name, share = stage["precision"], f"{100 * stage['share_of_peak']:.0f} %"
    if stage.get("algorithm") == WINOGRAD:
        name, share = f"{name}, Winograd", "-"
    return stage["engine"], stage["stage"], in_ms(stage["ms"]), f"{rate:.0f}", share, name


def _files(results: Results) -> None:
    files = results["files"]
    if not files:
        return
    name = results["settings"]["engines"][0]
    show_table(
        f"From files to results with {name}, ms",
        ("", "decode", "prepare", "network", "output", "run", "ratio"),
        [(f"{what} ({row['views']})", *_times(row)) for what, row in files.items()],
        caption="Steps one after another; `run` does them all. Ratio: run over the larger of decode and network.",
    )


def _times(row: Files) -> Iterator[str]:
    for ms in (row["decode_ms"], row["preprocess_ms"], row["network_ms"], row["output_ms"], row["total_ms"]):
        yield f"{ms:.0f}"
    yield f"{row['ratio']:.2f}"
