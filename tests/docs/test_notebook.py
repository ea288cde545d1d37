"""The notebook docs/tutorials/first-lesion.ipynb: stored without outputs, and executed as a reader would.

`make site` installs what executes it.
"""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from expected import need
from PIL import Image
from support.commands import ROOT

NOTEBOOK = ROOT / "docs/tutorials/first-lesion.ipynb"
PYTHON = ROOT / ".venv-site/bin/python"
EXECUTE = """
import nbclient, nbformat
notebook = nbformat.read("first-lesion.ipynb", as_version=4)
nbformat.validate(notebook)
nbclient.NotebookClient(notebook, timeout=None, kernel_name="python3").execute()
nbformat.write(notebook, "executed.ipynb")
"""
FIGURES = 3


def cells(notebook: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(notebook.read_text("utf-8"))["cells"] if cell["cell_type"] == kind]


def test_it_is_stored_without_outputs() -> None:
    assert [cell["id"] for cell in cells(NOTEBOOK, "code") if cell["outputs"] or cell["execution_count"]] == []


def test_its_links_lead_somewhere() -> None:
    text = "".join(line for cell in cells(NOTEBOOK, "markdown") for line in cell["source"])
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", text) if ":" not in target]
    assert len(targets) > 4
    assert [target for target in targets if not (NOTEBOOK.parent / target.partition("#")[0]).exists()] == []


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The notebook with its outputs, in a folder with nothing but itself at the start."""
    need("site", "" if PYTHON.exists() else ".venv-site (`make site` makes it)")
    folder = tmp_path_factory.mktemp("notebook")
    shutil.copy(NOTEBOOK, folder)
    places = {name: str(folder / "jupyter") for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, **places, "JUPYTER_RUNTIME_DIR": str(folder / "jupyter/runtime"), "PATH": path}
    done = subprocess.run(
        [PYTHON, "-c", EXECUTE], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "executed.ipynb"


@pytest.mark.site
@pytest.mark.timeout(1800)
def test_every_cell_runs_and_the_lesion_is_found(executed: Path) -> None:
    """The outline that comes with the phantom is the truth."""
    outputs = [output for cell in cells(executed, "code") for output in cell["outputs"]]
    printed = "".join(line for output in outputs if output["output_type"] == "stream" for line in output["text"])
    (dice,) = re.findall(r"^Dice (\d\.\d+)$", printed, re.MULTILINE)
    assert float(dice) > 0.8, printed
    assert "complete exam" in printed
    assert {path.suffix for path in (executed.parent / "results").iterdir()} == {".json", ".npz", ".png"}


@pytest.mark.site
def test_the_maps_are_figures(executed: Path) -> None:
    outputs = [output for cell in cells(executed, "code") for output in cell["outputs"]]
    figures = [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    pictures = [Image.open(BytesIO(base64.b64decode(figure))).convert("RGB") for figure in figures]
    assert len(pictures) == FIGURES
    assert all(len(picture.getcolors(1 << 24) or []) > 100 for picture in pictures), "maps have many values"
