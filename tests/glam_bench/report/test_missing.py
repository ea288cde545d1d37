"""What was not measured is not drawn, and nothing breaks."""

from collections.abc import Callable
from math import nan
from pathlib import Path
from typing import Any

import pytest
from support.report import written

from glam_bench.report import write
from glam_deploy.errors import UsageError

Results = dict[str, Any]


def no_rung_ran(results: Results) -> None:
    for rung in results["ladder"]:
        kept = {"key": rung["key"], "name": rung["name"], "unavailable": "not installed"}
        rung.update(dict.fromkeys(rung) | kept)


def no_rungs(results: Results) -> None:
    results["ladder"] = []


def no_roofline(results: Results) -> None:
    results["roofline"] = None


def no_points(results: Results) -> None:
    results["roofline"]["stages"] = []


def no_peaks(results: Results) -> None:
    results["roofline"]["peaks"] = {"flop_per_s": {"fp32": None, "bf16": None}, "bytes_per_s": 0.0}


def no_time_on_the_roof(results: Results) -> None:
    results["roofline"]["stages"][0]["ms"] = 0.0


def no_files(results: Results) -> None:
    results["files"] = None


def no_frontier(results: Results) -> None:
    results["frontier"] = None


def of_an_earlier_release(results: Results) -> None:
    del results["frontier"]
    for rung in results["ladder"]:
        del rung["gate"]


def no_time_in_the_search(results: Results) -> None:
    for point in results["frontier"]:
        point["latency_ms"] = 0.0


def no_jobs(results: Results) -> None:
    results["files"] = {}


def no_parity(results: Results) -> None:
    for rung in results["ladder"]:
        rung["parity"] = None


def no_dice(results: Results) -> None:
    for rung in ran(results):
        rung["parity"] |= {"dice": {}, "worst_dice": {}, "max_difference": {}, "per_case": [], "cases": 0}


def no_lesions(results: Results) -> None:
    nothing = {"benign": {"0.5": None}, "malignant": {"0.5": None}}
    for rung in ran(results):
        rung["parity"] |= {"dice": nothing, "worst_dice": nothing}


def no_details(results: Results) -> None:
    keys = ("stages_ms", "ratio_to", "peak_memory_mb", "clock_mhz", "cold_start_ms", "first_start_ms")
    for rung in ran(results):
        rung.update(dict.fromkeys(keys))


def published_way_did_not_run(results: Results) -> None:
    results["ladder"][0] |= dict.fromkeys(results["ladder"][0], None) | {"name": "published", "key": "published"}
    for rung in ran(results):
        del rung["ratio_to"]["published"]


def empty_windows(results: Results) -> None:
    for rung in ran(results):
        rung["latency_ms"]["windows"] = [[], []]


def nothing_takes_time(results: Results) -> None:
    for rung in ran(results):
        rung["latency_ms"] |= {"p50": 0.0, "windows": [[0.0]]}
        rung["stages_ms"] = dict.fromkeys(rung["stages_ms"], 0.0)
    for job in results["files"].values():
        job.update(dict.fromkeys(job, 0.0))


def one_rung(results: Results) -> None:
    results["ladder"] = results["ladder"][:1]
    results["roofline"]["stages"] = results["roofline"]["stages"][:1]


def no_words(results: Results) -> None:
    results |= {"machine": {}, "bundle": {}, "settings": {}, "notices": []}


def ran(results: Results) -> list[Results]:
    return [rung for rung in results["ladder"] if rung["latency_ms"]]


CASES = (
    no_rung_ran, no_rungs, no_roofline, no_points, no_peaks, no_time_on_the_roof, no_files, no_jobs, no_parity, no_dice,
    no_lesions, no_details, published_way_did_not_run, empty_windows, nothing_takes_time, one_rung, no_words,
    no_frontier, no_time_in_the_search, of_an_earlier_release,
)  # fmt: skip


@pytest.mark.parametrize("spoil", CASES, ids=lambda case: case.__name__)
def test_a_page_all_the_same(spoil: Callable[[Results], None], results: Results, tmp_path: Path) -> None:
    spoil(results)
    page = written(results, tmp_path)
    assert "ladder" in {section.attributes["id"] for section in page.all("section")}
    words = page.one("body").text.lower().split()
    assert not {"none", "nan", "inf", "-inf", "none,", "nan,"} & set(words)
    for table in page.all("table"):
        assert table.one("tbody").children, table.one("caption").text


def test_what_is_not_there_has_no_section(results: Results, tmp_path: Path) -> None:
    for spoil in (no_rung_ran, no_roofline, no_files, no_frontier):
        spoil(results)
    page = written(results, tmp_path)
    assert [section.attributes["id"] for section in page.all("section")] == ["ladder", "noise", "machine"]
    assert "no rung of the ladder ran" in page.section("ladder").text
    assert page.of_class("lead") == []
    assert [text.text for text in page.section("ladder").plot().all("text")].count("Not run: not installed") == 9


def test_a_machine_with_a_gpu(results: Results, tmp_path: Path) -> None:
    rung = ran(results)[-1]
    rung |= {"name": "TensorRT fp16", "stages_ms": {"preprocess": 60.0, "copy": 2.0, "gpu": 9.0, "fusion": 20.0}}
    rung["peak_memory_mb"]["device"] = 812.0
    page = written(results, tmp_path)
    steps = [column.text for column in page.section("stages").one("thead").all("th")]
    assert steps == ["rung", "preprocess", "copy", "global", "patches", "local", "gpu", "fusion"]
    assert "812\u00a0MiB" in page.section("ladder").text


def test_a_figure_that_is_not_finite_is_refused(results: Results, tmp_path: Path) -> None:
    ran(results)[0]["parity"]["dice"]["benign"]["0.5"] = nan
    with pytest.raises(UsageError, match=r"ladder\.0\.parity\.dice\.benign\.0\.5 is nan"):
        write(results, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
