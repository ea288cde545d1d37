"""The tutorials, typed: every shell command and every piece of Python in them, in order, in one folder.

A block after a comment `<!-- not typed: REASON -->` is left out.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from support.commands import ROOT

BLOCK = re.compile(r"^(<!-- not typed: .+ -->\n)?```(sh|python)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
ENVIRONMENT = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def blocks(name: str) -> Iterator[tuple[str, str]]:
    """Language and text of what is typed."""
    text = (ROOT / f"docs/tutorials/{name}.md").read_text("utf-8")
    yield from ((language, code) for untyped, language, code in BLOCK.findall(text) if not untyped)


def type_out(name: str, folder: Path) -> str:
    """What the tutorial prints; AssertionError for a command that fails. The Python of a page is one program."""
    said = ""
    program = ""
    for language, code in blocks(name):
        program += code if language == "python" else ""
        command = [sys.executable, "-c", program] if language == "python" else ["bash", "-euc", code]
        done = subprocess.run(
            command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        said += done.stdout + done.stderr
    return said


def type_in_one_shell(name: str, folder: Path, replaced: Mapping[str, str]) -> str:
    """As `type_out` for a page of shell commands that leaves programs running, with texts of it replaced.

    Whatever the page started ends with it.
    """
    script = "".join(code for _, code in blocks(name))
    for text, other in replaced.items():
        assert text in script, text
        script = script.replace(text, other)
    with (folder / "said.txt").open("w+") as said:
        shell = subprocess.run(
            ["bash", "-euxc", f"trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}"],
            cwd=folder, env=ENVIRONMENT, stdout=said, stderr=said, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        said.seek(0)
        text = said.read()
    assert shell.returncode == 0, text[-3000:]
    return text
