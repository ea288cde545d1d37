"""The pictures in docs/appliance.md: the script that makes them runs, and what they show is the layout of today."""

import json
import re
from itertools import product
from pathlib import Path

from expected import need
from PIL import Image
from support.browser import CHROMIUM
from support.commands import ROOT
from support.screenshots import LAYOUT, PICTURES, SCHEMES, TALLEST, demonstration, fill, write
from support.web import appliance

MOST_BYTES = 600_000
SMALL = (832, 640)
"""Rows and columns of phantoms, in place of those of a mammogram."""


def test_pictures_show_the_pages_of_today_in_chromium(tmp_path: Path) -> None:
    need("chromium", "" if CHROMIUM else "chromium (Debian's package; `make web-test` installs it)")
    with appliance(demonstration(tmp_path)) as made:
        write(made, fill(made, SMALL), tmp_path / "pictures")
    today, shown = (json.loads((folder / LAYOUT).read_text()) for folder in (tmp_path / "pictures", PICTURES))
    assert shown == today, "run: make pictures"
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {path.name for path in PICTURES.iterdir()}


def test_pictures_are_small_and_all_in_the_manual() -> None:
    pages = json.loads((PICTURES / LAYOUT).read_text())
    names = {f"{page}-{width}-{scheme}.webp" for page, width, scheme in product(pages, TALLEST, SCHEMES)}
    manual = (ROOT / "docs/appliance.md").read_text("utf-8")
    assert set(re.findall(r'(?:src|srcset)="images/appliance/([^"]+)"', manual)) == names
    assert sum((PICTURES / name).stat().st_size for name in names) < MOST_BYTES
    for name in names:
        with Image.open(PICTURES / name) as picture:
            assert picture.width == int(name.split("-")[1])
            assert picture.height <= TALLEST[picture.width]
