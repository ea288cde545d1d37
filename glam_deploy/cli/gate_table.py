"""Verdicts of gates as tables and lines of text."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from glam_deploy.bundle import Bundle, GateEntry
from glam_deploy.cli import console
from glam_deploy.engines.admission import AFTER_FAILURE
from glam_deploy.errors import counted

Metrics = Mapping[str, Any]
"""A part of `GateEntry.figures`."""


def show(bundle: Bundle, gate: GateEntry, out: Path | None, *, stored: bool) -> None:
    """Print the metrics, whether the engine passed, and what to do if it did not.

    `stored`: False if images could not be read and an earlier passed verdict stays valid.
    """
    if gate.figures:
        console.out.print(_dice_table(gate))
        for line in _lines(gate.figures, gate.images):
            console.out.print(line, soft_wrap=True)
    for failure in gate.failures:
        console.out.print(f"not kept: {failure}", soft_wrap=True)
    if gate.failures:
        console.out.print(_advice(gate, out), soft_wrap=True)
    place = f"in the manifest of {bundle.folder}" if stored else "not stored, the earlier passed verdict stands"
    text = f" gate {gate.id}: engine {gate.engine}, {counted(gate.images, 'image')}; {place}"
    console.out.print(Text.assemble(_passed_text(gate), text, f", and in {out}" if out else ""), soft_wrap=True)


def _advice(gate: GateEntry, out: Path | None) -> str:
    if all("could not be read" in failure for failure in gate.failures):
        return "The images that were compared keep the limits. Repair or remove the others, and run the gate again."
    if gate.figures and not gate.figures["judged"] and not gate.figures["lost_or_new"]:
        return "Run the gate again with --images that show lesions."
    pictures = f"Look at {out / 'worst'}. " if out else "Pictures of the worst images: add --out DIR. "
    return f"{pictures}{AFTER_FAILURE} or set other --limits where these are stricter than what is needed."


def gates_table(gates: Sequence[GateEntry]) -> Table:
    """Table of the verdicts in a bundle, the newest last."""
    table = Table(title="Gates", title_justify="left")
    for name in ("id", "engine", "verdict", "images", "ms", "made"):
        table.add_column(name, no_wrap=True)
    table.add_column("on", overflow="fold")
    for gate in gates:
        machine = f"{gate.machine.processor}, {gate.machine.cores} cores, {gate.machine.device}"
        cells = (str(gate.images), f"{gate.latency_ms:.0f}", gate.when[:10], machine)
        table.add_row(gate.id, gate.engine, _passed_text(gate), *cells)
    return table


def _passed_text(gate: GateEntry) -> Text:
    return Text("PASSED", style="bold green") if gate.passed else Text("FAILED", style="bold red")


def _dice_table(gate: GateEntry) -> Table:
    title = f"Dice of engine {gate.engine} against {gate.reference}, thresholds 0.1 to 0.9"
    table = Table(title=title, title_justify="left")
    for name in ("map", "class", "images", "lowest median", "95 % interval", "worst"):
        table.add_column(name, justify="left" if name in ("map", "class") else "right")
    for name, labels in gate.figures["dice"].items():
        for label, curve in labels.items():
            table.add_row(name, label, *_cells(curve))
    return table


def _cells(curve: list[Metrics]) -> tuple[str, ...]:
    judged = [point for point in curve if point["images"]]
    if not judged:
        return "0", "-", "-", "-"
    low, worst = (min(judged, key=lambda point: float(point[key])) for key in ("median", "worst"))
    images = max(point["images"] for point in judged)
    return (
        str(images),
        f"{low['median']:.4f} at {low['threshold']}",
        _interval(low["interval"]),
        f"{worst['worst']:.4f} at {worst['threshold']}",
    )


def _interval(bounds: list[float] | None, digits: int = 4) -> str:
    return "-" if bounds is None else f"{bounds[0]:.{digits}f} to {bounds[1]:.{digits}f}"


def _lines(found: Metrics, images: int) -> Iterator[str]:
    states = found["states"]
    if patches := found["patches"]:
        yield (
            f"patches: {patches['same']} of {patches['patches']} at the reference's place, {patches['tied']} at one it "
            f"rates as high; worst IoU {patches['worst_iou']:.3f}, moved by at most {patches['most_moved_px']:.0f} px"
        )
    yield f"lesions: {states['lost']} lost, {states['new']} new, {states['almost empty']} maps almost empty, not judged"
    for name, labels in found["scores"].items():
        for label, score in labels.items():
            yield _score_line(name, label, score)
    flat = found["flat"]
    yield f"decisions flipped: {found['flips']}"
    yield f"images with a map without contrast: {flat['candidate']}, reference {flat['reference']}"
    for label, ground_truth in found["truth"].items():
        yield _ground_truth_line(label, ground_truth)
    if found["reasons"]:
        yield "reasons: " + ", ".join(f"{reason} in {count}" for reason, count in found["reasons"].items())
    yield f"latency: median {found['latency_ms']:.0f} ms an image, from standardized image to maps"
    if beside := found.get("beside_onnx"):
        yield (
            f"beside onnx, in turns on {beside['images']} of the {images} images, without the first: "
            f"{beside['times']:.2f} times its time ({beside['latency_ms']:.0f} and {beside['onnx_ms']:.0f} ms)"
        )


def _score_line(name: str, label: str, score: Metrics) -> str:
    line = f"{name} {label}: largest difference {score['largest_difference']:.1e}"
    if score["rank_agreement"] is not None:
        line += f", rank agreement {score['rank_agreement']:.4f}"
    if area := score["auroc"]:
        line += f", AUROC {area['candidate']:.4f}, reference {area['reference']:.4f}"
        line += f" (difference {_interval(area['interval'])})"
    return line


def _ground_truth_line(label: str, dice: Metrics) -> str:
    return (
        f"against the outlines, {label}: Dice {dice['candidate']:.4f}, reference {dice['reference']:.4f}, both at "
        f"{dice['threshold']}; difference {dice['difference']:+.4f}, 95 % interval {_interval(dice['interval'])}, "
        f"{counted(dice['images'], 'image')}"
    )
