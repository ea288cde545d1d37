"""What the report tells, one function a section. A section without data says so or is left out."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from glam_bench.report import tables, words
from glam_bench.report.gates import gate_section
from glam_bench.report.html import Section, facts, figure, paragraph
from glam_bench.report.markup import Child, Markup, join, tag
from glam_bench.report.plots import files, frontier, ladder, latency, parity, roofline, stages
from glam_bench.report.rungs import LEAST_DICE, baseline_name, timed
from glam_bench.schema import Results

NOTHING = "Nothing was measured: no rung of the ladder ran on this machine."


def sections(results: Results, gates: Sequence[Path]) -> list[Section]:
    """All there is to tell, in the order of the page."""
    found = [
        _ladder(results),
        _latency(results),
        _stages(results),
        _roofline(results),
        _parity(results),
        _frontier(results),
        *(gate_section(folder, i) for i, folder in enumerate(gates, start=1)),
        _files(results),
        _noise(results),
        _machine(results),
    ]
    return [section for section in found if section is not None]


def _ladder(results: Results) -> Section:
    caption = (
        f"Shorter is faster; bars start at 0. Speed: how many times as fast as {baseline_name(results)} (the grey "
        "bar), the median of the ratios of each round. Dice: of the fused map at 0.5 against its maps, the worst "
        f"class and image; a triangle where that is below {LEAST_DICE:g}, the gate's limit."
    )
    parts: list[Child] = [figure(lambda width: ladder.draw(results, width), caption)]
    parts += (
        [tables.ladder(results), tables.costs(results), tables.gates(results)]
        if timed(results)
        else [paragraph(NOTHING)]
    )
    return Section("ladder", "The ladder", parts)


def _latency(results: Results) -> Section | None:
    if not timed(results):
        return None
    caption = (
        "Every dot is one run, every line of dots one window, in the order of the rounds; the small grey ones are from "
        "windows before the last three, which do not count. Upright strokes are medians of windows. The shaded band is "
        "the rung's noise: how far the median of another such run may be off."
    )
    return Section(
        "latency",
        "How runs scatter",
        [figure(lambda width: latency.draw(results, width), caption), tables.latency(results)],
    )


def _stages(results: Results) -> Section | None:
    if not stages.steps(results):
        return None
    caption = "Each bar is one image, from its standardized pixels to predictions and fused map; at its right the sum."
    return Section(
        "stages",
        "Where the time goes",
        [figure(lambda width: stages.draw(results, width), caption), tables.steps(results)],
    )


def _roofline(results: Results) -> Section | None:
    if not (found := results["roofline"]):
        return None
    caption = (
        "Both axes are logarithmic. Lines: what memory (the slope) reached in a large copy, and what arithmetic (the "
        "level parts) can do: the highest of matrix products by several libraries, of the instruction set at the "
        "measured clock, and of the rungs. Circles: the global network; squares: the local one. Operations are those "
        "of direct convolutions: Winograd's form needs fewer and can lie above its line. Points above the slope had "
        "their data in caches."
    )
    peaks = [(name, words.rate(value, "OP/s")) for name, value in found["peaks"]["flop_per_s"].items()]
    peaks.append(("memory", words.rate(found["peaks"]["bytes_per_s"], "B/s")))
    drawn = figure(lambda width: roofline.draw(found, width), caption)
    return Section("roofline", "Under the roof", [drawn, facts(peaks), tables.roof(results)])


def _parity(results: Results) -> Section | None:
    if not parity.rungs(results):
        return None
    caption = (
        "Dice of each rung's fused map against the published way's, over the threshold of both. Full lines with "
        "marks: median over the images. Dashed lines: the worst image. A mark is missing where no image has a "
        "cell above the threshold."
    )
    return Section(
        "parity",
        "What speed costs",
        [
            figure(lambda width: parity.draw(parity.rungs(results), width), caption),
            tables.worst(results),
            tables.differences(results),
        ],
    )


def _frontier(results: Results) -> Section | None:
    if not (found := results.get("frontier")):
        return None
    caption = (
        "What the export of this bundle tried, on its machine at that time; each stage with the other one in FP32. "
        "Discs kept the gate's limits on the images of the search, rings did not; the name of what was taken is bold. "
        "Further left is faster, further up is truer."
    )
    drawn = figure(lambda width: frontier.draw(found, width), caption)
    return Section("frontier", "The precision search", [drawn, tables.frontier(found)])


def _files(results: Results) -> Section | None:
    if not (found := results["files"]):
        return None
    caption = (
        "Upper bar: the steps one after another. Lower bar: the whole job, whose steps overlap. The upright "
        "stroke is the slowest step (decoding or network), which no overlap can beat. Each job has a scale of its"
        " own."
    )
    return Section(
        "files", "From files to results", [figure(lambda width: files.draw(found, width), caption), tables.jobs(found)]
    )


def _noise(results: Results) -> Section:
    noise, load = results["noise"], results["load"]
    unstable = [row.rung["name"] for row in timed(results) if not row.latency["stable"]]
    parts: list[Child] = [
        paragraph(f"Two runs of this bench may differ by {words.percent(noise['relative'])}: {noise['how']}."),
        paragraph(f"Unstable, so not to be compared: {', '.join(unstable)}.") if unstable else None,
        facts(
            [
                ("load before", words.plain(load["before"])),
                ("load after", words.plain(load["after"])),
                ("stolen time", words.percent(load["stolen"])),
            ]
        ),
    ]
    return Section("noise", "How sure this is", parts)


def _machine(results: Results) -> Section:
    machine = {**results["machine"]}
    packages = machine.pop("packages", None) or {}
    if "memory" in machine:
        machine["memory"] = words.memory(machine["memory"])
    groups = {"Machine": machine, "Versions": packages, "Bundle": results["bundle"], "Settings": results["settings"]}
    return Section(
        "machine", "Machine, versions, settings", [tables.engines(results), *(_group(*item) for item in groups.items())]
    )


def _group(title: str, pairs: Mapping[str, object]) -> Markup:
    shown = facts((name.replace("_", " "), words.plain(value)) for name, value in pairs.items())
    return join((tag("h3", title), shown))
