"""The command line in this process and in others, with an engine that costs nothing."""

from pathlib import Path

import pytest
from PIL import Image
from support import engines as support_engines
from support.bundles import fill
from support.commands import Cli, Said, Start, start_process

import glam_deploy.cli.options  # noqa: F401 (it makes its help of the engines when imported: before tests change them)
from glam_deploy.bundle import open_bundle
from glam_deploy.cli.main import exit_code
from glam_deploy.engines.registry import OWNERS


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def run(*arguments: object) -> Said:
        code = exit_code([str(a) for a in arguments])
        said = capsys.readouterr()
        return Said(code=code, out=said.out, err=said.err)

    return run


@pytest.fixture
def start() -> Start:
    return start_process


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A made-up bundle that the fake engine, from now on "onnx", verifies."""
    monkeypatch.setitem(OWNERS, "onnx", OWNERS["onnx"])
    support_engines.install()
    folder = tmp_path / "bundle"
    folder.mkdir()
    fill(folder)
    support_engines.fill_with_golden(open_bundle(folder), support_engines.small_view())
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """`small_view` as a 16-bit PNG whose name tells its view."""
    path = tmp_path / "in" / "1_L-CC.png"
    path.parent.mkdir()
    Image.fromarray(support_engines.small_view().pixels).save(path)
    return path
