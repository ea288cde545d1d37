"""The example of a service answers as `glam-deploy run` does, and is as short as it says."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from support.commands import ROOT
from support.engines import small_view
from support.tiny_bundle import write_tiny_bundle

import glam_deploy
from glam_deploy.dicom.mammography import write_view
from glam_deploy.records import View

EXAMPLE = ROOT / "examples/embed_runtime.py"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "bundle")


@pytest.fixture
def service(bundle: Path) -> Iterator[str]:
    """Address of the example, running."""
    command = [sys.executable, EXAMPLE, bundle, "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stderr
        ready = process.stderr.readline()
        assert ready.startswith("ready at http://127.0.0.1:"), ready + process.stderr.read()
        yield ready.split()[-1]
        process.terminate()


def test_answers_with_scores_and_places(service: str, bundle: Path, tmp_path: Path) -> None:
    write_view(tmp_path / "view.dcm", small_view().pixels, view=View.L_CC)
    expected = glam_deploy.load(bundle)(small_view())
    with urlopen(service, (tmp_path / "view.dcm").read_bytes()) as answer:
        said = json.load(answer)
    assert said["scores"] == expected.predictions
    assert said["patches"] == [list(box) if box else None for box in expected.patch_boxes_in_source]


def test_says_what_is_wrong_with_an_image(service: str) -> None:
    with pytest.raises(HTTPError) as refused:
        urlopen(service, b"no image")
    with refused.value as answer:
        assert answer.code == 422
        assert "DICOM" in json.load(answer)["error"]


def test_is_under_forty_lines() -> None:
    """Of code: what is left without docstrings and blank lines, statements on a line each."""
    module = ast.parse(EXAMPLE.read_text("utf-8"))
    for node in ast.walk(module):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            del node.body[0]
    assert len([line for line in ast.unparse(module).splitlines() if line]) < 40
