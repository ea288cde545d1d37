"""What `load` hands on, and what an engine of the host refuses."""

from pathlib import Path

import pytest
import support_engines
from support_bundles import fill

import glam_deploy
from glam_deploy.engines.registry import OWNERS
from glam_deploy.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle whose engine "onnx" costs nothing and honours threads alone."""
    monkeypatch.setitem(OWNERS, "onnx", OWNERS["onnx"])
    support_engines.install()
    fill(tmp_path)
    return tmp_path


def test_the_bundles_own_number_of_patches(folder: Path) -> None:
    assert glam_deploy.load(folder).patches == 1
    assert glam_deploy.load(folder, patches=5).patches == 5


@pytest.mark.parametrize("option", [{"device": 0}, {"flavour": "tensorrt"}, {"slots": 2}], ids=lambda o: next(iter(o)))
def test_options_of_a_gpu_are_refused_on_a_cpu(folder: Path, option: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(option))} = "):
        glam_deploy.load(folder, engine="onnx", **option)
