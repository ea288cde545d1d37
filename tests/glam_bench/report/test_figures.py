"""The figures of docs/performance.md, which are drawn from the committed results."""

import json
import re
import runpy
from xml.etree import ElementTree

import pytest
from support.commands import ROOT

SVG = "{http://www.w3.org/2000/svg}"
FIGURES = runpy.run_path(str(ROOT / "packaging/figures.py"))["figures"]()
RECORD = json.loads((ROOT / "benchmarks/results/nvidia-h200-2026-11-28.json").read_bytes())
PAGE = (ROOT / "docs/performance.md").read_text("utf-8")


@pytest.mark.parametrize("name", FIGURES)
def test_they_are_those_of_the_results(name: str) -> None:
    assert (ROOT / "docs/images" / name).read_text("utf-8") == FIGURES[name], "run: python packaging/figures.py"


@pytest.mark.parametrize("name", FIGURES)
def test_the_page_shows_them_and_a_telephone_has_room_for_the_narrow_ones(name: str) -> None:
    assert f'"images/{name}"' in PAGE
    assert float(ElementTree.fromstring(FIGURES[name]).get("width") or 0) <= (370 if "narrow" in name else 800)


def chains() -> list[tuple[float, float, float]]:
    """Global network, local network and the whole chain in ms, row by row of the table in the page."""
    found = []
    for engine in ("fp16@onnx-cuda", "fp16@torch"):
        for case in ("n=1,k=1", "n=1,k=3", "n=1,k=6", "n=4,k=1"):
            one = RECORD["steps"][f"chain_times:{engine}"]["results"][case]
            found.append((one["stages"]["global"]["p50"], one["stages"]["local"]["p50"], one["resident"]["gpu"]["p50"]))
    return found


@pytest.mark.parametrize(("name", "width"), [("gpu-chain.svg", 760), ("gpu-chain-narrow.svg", 330)])
def test_bars_of_the_chain_are_as_long_as_their_times(name: str, width: float) -> None:
    rows = [
        group
        for group in ElementTree.fromstring(FIGURES[name]).iter(f"{SVG}g")
        if group.find(f"{SVG}rect/*") is not None
    ]
    longest = max(whole for *_, whole in chains())
    for row, (first, second, whole) in zip(rows, chains(), strict=True):
        bars = [float(bar.get("width") or 0) + 2 for bar in row.iter(f"{SVG}rect")]
        assert bars == pytest.approx([ms / longest * width for ms in (first, second, whole - first - second)], abs=0.01)


def test_the_table_of_the_page_has_the_same_times() -> None:
    rows = re.findall(
        r"^\| (?:`fp16@[\w-]+`)? ?\| \d, \d \| ([\d.]+) \| ([\d.]+) \| [\d.]+ \| ([\d.]+) \|", PAGE, re.MULTILINE
    )
    assert [tuple(map(float, row)) for row in rows] == [pytest.approx(row, abs=0.0051) for row in chains()]
