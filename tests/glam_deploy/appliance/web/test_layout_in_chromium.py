"""Every page at widths from a telephone to a desktop, in both colour schemes, with the longest records: all is seen."""

from pathlib import Path
from typing import Any

import pytest
from support.browser import seen_by
from support.long_web import Long

WIDTHS = (360, 390, 600, 768, 1024, 1366, 1920)
SCHEMES = ("light", "dark")
LEAST_CONTRAST = 4.5
"""WCAG 2.2, 1.4.3."""
LEAST_TEXT = 10
"""Smallest text in CSS pixels; that of the plots is scaled with them."""
MEASURE = (Path(__file__).parent / "measure.js").read_text("utf-8")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
def test_all_of_every_page_is_seen_in_chromium(chromium: Any, long: tuple[Long, str], width: int, scheme: str) -> None:
    """Each text, cell, field and picture is in the window, in its own card, and under nothing else."""
    records, address = long
    with seen_by(chromium, address, width=width, scheme=scheme) as seen:
        for name in records.pages(seen):
            seen.fit_height()
            found = seen.page.evaluate(MEASURE)
            assert found["needed"] <= found["width"], f"{name} is wider than its window"
            assert found["unseen"] == [], name
            assert found["smallest"] >= LEAST_TEXT, name
            assert {text: ratio for text, ratio in found["contrast"].items() if ratio < LEAST_CONTRAST} == {}, name
            assert found["checked"] >= 5, name
