"""The tutorials, typed: every shell command and every piece of Python in them, in order, in one folder.

A block after a comment `<!-- not typed: REASON -->` is left out.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.commands import ROOT

pytestmark = pytest.mark.slow

BLOCK = re.compile(r"^(<!-- not typed: .+ -->\n)?```(sh|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FIRST = "first-lesion"
TUTORIALS = ("embed", "gate-an-engine", "evaluate")
OUTPUT = {
    FIRST: ("y_global", "looked at rows"),
    "embed": ("L-CC.dcm 0.", "(2, 600, 400)"),
    "gate-an-engine": ("has no gate", "PASSED"),
    "evaluate": ("evaluation.html",),
    "archive": ("L-CC done 0.",),
}
"""Texts that the tutorial prints."""


def blocks(name: str) -> Iterator[tuple[str, str]]:
    """Language and text of what is typed."""
    text = (ROOT / f"docs/tutorials/{name}.md").read_text("utf-8")
    yield from ((language, code) for untyped, language, code in BLOCK.findall(text) if not untyped)


def type_out(name: str, folder: Path) -> str:
    """What the tutorial prints; AssertionError for a command that fails. The Python of a page is one program."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    said = ""
    program = ""
    for language, code in blocks(name):
        program += code if language == "python" else ""
        command = [sys.executable, "-c", program] if language == "python" else ["bash", "-euc", code]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        said += done.stdout + done.stderr
    return said


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


@pytest.mark.parametrize("name", TUTORIALS)
def test_the_others(folder: Path, name: str) -> None:
    said = type_out(name, folder)
    assert all(text in said for text in OUTPUT[name]), said


def test_every_tutorial_is_typed() -> None:
    pages = {page.stem for page in (ROOT / "docs/tutorials").glob("*.md")}
    assert pages == {FIRST, *TUTORIALS, "archive"} == set(OUTPUT)
