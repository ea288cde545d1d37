"""The report as a browser lays it out: nothing cut, nothing on top of another, nothing fetched, light and dark."""

from pathlib import Path
from typing import Any

import pytest
from support.chromium import SCHEMES, measure
from support.evaluation import write_page
from support.report import gate_folder, with_strings

from glam_bench.report import write

WIDTHS = ("400", "800", "1280")
LONG = " and a name that goes on for longer than anybody would have thought"


@pytest.fixture(params=SCHEMES)
def seen(request: pytest.FixtureRequest, results: dict[str, Any], tmp_path: Path) -> dict[str, dict[str, Any]]:
    """By report and width: what measure.html found."""
    write(results, tmp_path / "plain.html", gates=[gate_folder(tmp_path / "gate", {"01_L-CC": (1968, 200)})])
    write(_long(results), tmp_path / "long.html")
    found = measure(tmp_path, ["plain.html", "long.html"], WIDTHS, request.param)
    assert {page["dark"] for page in found.values()} == {request.param == "dark"}
    return found


def test_what_a_reader_sees(seen: dict[str, dict[str, Any]]) -> None:
    assert len(seen) == 2 * len(WIDTHS)
    for name, page in seen.items():
        assert page["style"] == 1, f"{name}: its policy forbids its own style"
        assert page["fetched"] == [], name
        assert page["needed"] <= page["width"], f"{name} is wider than its window"
        assert page["plots"] == (8 if name.startswith("plain") else 7), f"{name} shows each plot once"
        assert page["smallest"] >= 9, f"{name}: text too small to read"
        assert page["cut"] == [], name
        assert page["touching"] == [], name
        assert page["pictures"] == ([1400] if name.startswith("plain") else []), name
        ground, ink = (sum(map(int, page[kind].strip("rgb()").split(","))) for kind in ("ground", "ink"))
        assert (ground < 100 and ink > 600) if page["dark"] else (ground > 600 and ink < 100), name


@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_a_reader_of_an_evaluation_sees(scheme: str, tmp_path: Path) -> None:
    """On a phone and on a laptop, with short names and with long ones."""
    write_page(tmp_path / "plain.html")
    write_page(tmp_path / "long.html", suffix=LONG)
    seen = measure(tmp_path, ["plain.html", "long.html"], ("390", "1366"), scheme)
    assert len(seen) == 4
    for name, page in seen.items():
        assert page["style"] == 1, f"{name}: its policy forbids its own style"
        assert page["fetched"] == [], name
        assert page["needed"] <= page["width"], f"{name} is wider than its window"
        assert page["plots"] == 6, f"{name} shows each plot once"
        assert page["smallest"] >= 9, f"{name}: text too small to read"
        assert page["cut"] == [], name
        assert page["touching"] == [], name
        assert page["pictures"] == [480] * 8, name
        assert page["dark"] == (scheme == "dark")


def _long(results: dict[str, Any]) -> Any:
    """Long names everywhere, times from microseconds to minutes, twelve rungs with points close together."""
    long = with_strings(results, lambda text: text + LONG)
    times = [rung for rung in long["ladder"] if rung["latency_ms"]]
    for rung, factor in zip(times, (30, 1, 0.2, 0.01, 1e-4, 1e-6), strict=True):
        latency = rung["latency_ms"]
        latency |= {"p50": latency["p50"] * factor, "stable": False}
        latency["windows"] = [[time * factor for time in window] for window in latency["windows"]]
    stages = long["roofline"]["stages"]
    stages += [stage | {"ms": stage["ms"] * (1 + i / 100)} for i in range(5) for stage in stages[:2]]
    long["roofline"]["peaks"]["flop_per_s"] |= {"bf16": 165e9, "fp8": 299e9}
    return long
