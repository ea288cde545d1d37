"""The tutorials that need nothing but this installation, typed one after the other in one folder."""

from pathlib import Path

import numpy as np
import pytest
from support.commands import ROOT
from support.tutorials import type_out

pytestmark = pytest.mark.slow

FIRST = "first-lesion"
OUTPUT = {
    FIRST: ("y_global", "looked at rows"),
    "embed": ("L-CC.dcm 0.", "(2, 600, 400)"),
    "gate-an-engine": ("has no gate", "PASSED"),
    "evaluate": ("evaluation.html",),
}
"""Texts that the tutorial prints."""
ELSEWHERE = {"archive": "glam_deploy/archive/test_tutorial.py", "pacs": "pacs/test_tutorial.py"}
"""Tutorials typed where what they need is: Ray, and a PACS."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder after the first tutorial."""
    folder = tmp_path_factory.mktemp("tutorials")
    (folder / "said.txt").write_text(type_out(FIRST, folder))
    pixels = np.zeros((600, 400), np.uint16)
    pixels[100:500, :300] = 2000
    np.save(folder / "pixels.npy", pixels)
    return folder


def test_the_first(folder: Path) -> None:
    said = (folder / "said.txt").read_text()
    assert all(text in said for text in OUTPUT[FIRST]), said
    assert len(list((folder / "results").glob("*.png"))) == 4


@pytest.mark.parametrize("name", [name for name in OUTPUT if name != FIRST])
def test_the_others(folder: Path, name: str) -> None:
    said = type_out(name, folder)
    assert all(text in said for text in OUTPUT[name]), said


def test_every_tutorial_is_typed() -> None:
    pages = {page.stem for page in (ROOT / "docs/tutorials").glob("*.md")}
    assert pages == {*OUTPUT, *ELSEWHERE}
    assert all((ROOT / "tests" / test).exists() for test in ELSEWHERE.values())
