"""What is drawn lies where the figures say."""

from math import log10
from pathlib import Path
from typing import Any

import pytest
from support.report import Node, written

Results = dict[str, Any]


def ran(results: Results) -> list[Results]:
    return [rung for rung in results["ladder"] if rung["latency_ms"]]


@pytest.mark.parametrize("width", ["880", "344"])
def test_bars_of_the_ladder_are_as_long_as_the_times(page: Node, results: Results, width: str) -> None:
    bars = [bar.number("width") for bar in page.section("ladder").plot(width).all("rect")]
    times = [rung["latency_ms"]["p50"] for rung in ran(results)]
    assert [bar / bars[0] for bar in bars] == pytest.approx([time / times[0] for time in times], abs=1e-3)


def test_the_published_way_is_the_grey_bar(page: Node) -> None:
    classes = [bar.attributes["class"] for bar in page.section("ladder").plot().all("rect")]
    assert classes == ["base", *["mark"] * 5]


def test_a_low_dice_is_marked_and_no_other(page: Node) -> None:
    assert [node.text for node in page.section("ladder").plot().of_class("low")] == ["0.930 \u25be"]


def test_every_run_is_a_dot_at_its_distance_from_the_median(page: Node, results: Results) -> None:
    paths = [path.attributes["d"] or "" for path in page.section("latency").plot().of_class("dots")]
    windows = [(window, rung["latency_ms"]["p50"]) for rung in ran(results) for window in rung["latency_ms"]["windows"]]
    assert len(paths) == len(windows)
    for path, (window, median) in zip(paths, windows, strict=True):
        x = [float(point.partition(",")[0]) for point in path.split("M")[1:]]
        assert x == pytest.approx([440 + (time / median - 1) / 0.3 * 432 for time in window], abs=0.06)


def test_windows_that_do_not_count_are_pale(results: Results, tmp_path: Path) -> None:
    ran(results)[0]["latency_ms"]["windows"].insert(0, [5300.0])
    plot = written(results, tmp_path).section("latency").plot()
    assert [path.attributes["class"] for path in plot.of_class("dots")] == ["dots early", *["dots"] * 18]


def test_a_run_far_off_lies_on_the_edge(results: Results, tmp_path: Path) -> None:
    ran(results)[0]["latency_ms"]["windows"][0][0] *= 100
    path = written(results, tmp_path).section("latency").plot().of_class("dots")[0].attributes["d"] or ""
    assert path.startswith("M872.0,")


def test_parts_of_a_bar_are_shares_of_the_steps(page: Node, results: Results) -> None:
    plot = page.section("stages").plot()
    local = [bar.number("width") + 2 for bar in plot.of_class("s-local") if bar.all("title")]
    shares = [rung["stages_ms"]["local"] / sum(rung["stages_ms"].values()) for rung in ran(results)]
    assert local == pytest.approx([880 * share for share in shares], abs=0.01)


def test_points_under_the_roof(page: Node, results: Results) -> None:
    """On logarithmic axes: distances between points are ratios, and a peak lies where points of its rate would."""
    plot, stages = page.section("roofline").plot(), results["roofline"]["stages"]
    drawn = {
        kind: sorted((node.number(x) + half, node.number(y) + half) for node in plot.all(kind))
        for kind, x, y, half in (("circle", "cx", "cy", 0), ("rect", "x", "y", 5))
    }
    rates = {s: sorted(r["flop"] / r["ms"] for r in stages if r["stage"] == s) for s in ("global", "local")}
    found = [point for kind in ("circle", "rect") for point in sorted(drawn[kind], key=lambda point: -point[1])]
    known = [log10(rate) for stage in ("global", "local") for rate in rates[stage]]
    scale = (found[0][1] - found[-1][1]) / (known[-1] - known[0])
    assert [found[0][1] - y for _, y in found] == pytest.approx([scale * (v - known[0]) for v in known], abs=0.05)
    peak = min(float((path.attributes["d"] or "").rpartition(",")[2]) for path in plot.of_class("roof"))
    assert found[0][1] - peak == pytest.approx(scale * (log10(290e9 / 1e3) - known[0]), abs=0.1)


def test_marks_of_a_small_plot_are_the_medians(page: Node, results: Results) -> None:
    plot = page.section("parity").plot()
    squares = [node.number("y") + 2.6 for node in plot.of_class("c-1") if node.name == "rect"][-9:]
    curve = list(ran(results)[-1]["parity"]["dice"]["malignant"].values())
    lowest, highest = min(curve), max(curve)
    scale = (max(squares) - min(squares)) / (highest - lowest)
    assert squares == pytest.approx([min(squares) + (highest - value) * scale for value in curve], abs=0.02)
    assert scale == pytest.approx((170 - 30 - 26) / 0.15, rel=1e-3)


def test_a_dice_that_nobody_has_is_no_mark(results: Results, tmp_path: Path) -> None:
    for rung in ran(results):
        rung["parity"]["dice"]["malignant"]["0.9"] = None
    plot = written(results, tmp_path).section("parity").plot()
    assert len([node for node in plot.of_class("c-1") if node.name == "rect"]) == 6 * 8 + 1  # and the legend's


def test_points_of_the_search_lie_at_their_time_and_dice(page: Node, results: Results) -> None:
    plot, points = page.section("frontier").plot(), results["frontier"]
    circles = plot.all("circle")
    assert len(circles) == len(points)
    for stage, left in (("global", 42.0), ("local", 42.0 + 904 / 2)):
        of_stage = [point for point in points if point["stage"] == stage]
        slowest = max(point["latency_ms"] for point in of_stage)
        room = (904 / 2 - 24 - 42) * 0.55
        for point in of_stage:
            x, y = left + point["latency_ms"] / slowest * room, 260 - 216 * point["dice_worst"]
            (mark,) = (c for c in circles if abs(c.number("cx") - x) < 0.1 and abs(c.number("cy") - y) < 0.1)
            assert (mark.attributes["class"] == "missed") == (not point["passed"])
    bold = [node.text for node in plot.of_class("strong") if "small" in (node.attributes["class"] or "")]
    assert bold == ["fp32", "winograd"]


def test_steps_of_files_and_the_whole_job_share_a_scale(page: Node, results: Results) -> None:
    plot, exam = page.section("files").plot(), results["files"]["exam"]
    job = [bar for bar in plot.of_class("base") if bar.number("height") == 15][1]
    (network,) = (bar for bar in plot.of_class("f-network")[2:3])
    assert (network.number("width") + 2) / job.number("width") == pytest.approx(
        exam["network_ms"] / exam["total_ms"], abs=1e-3
    )
    stroke = plot.of_class("tick")[1]
    assert stroke.number("x1") / job.number("width") == pytest.approx(exam["slowest_ms"] / exam["total_ms"], abs=1e-3)
