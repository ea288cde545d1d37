"""What `load` hands on, and what an engine of the host refuses."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support import engines as support_engines
from support.bundles import fill

import glam_deploy
from glam_deploy.bundle import Bundle
from glam_deploy.engines.base import EngineOptions, OpenedEngines
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


@pytest.mark.parametrize("option", [{"streams": 2}, {"cache": "compiled"}], ids=lambda o: next(iter(o)))
def test_options_of_openvino_are_refused_by_others(folder: Path, option: dict[str, object]) -> None:
    with pytest.raises(
        UsageError, match=f"{next(iter(option))} = .* Remove it; these engines support it: openvino, openvino-winograd"
    ):
        glam_deploy.load(folder, engine="onnx", **option)


def test_streams_and_cache_reach_the_engine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    able = replace(OWNERS["onnx"], options=("threads", "streams", "cache"))
    monkeypatch.setitem(OWNERS, "onnx", able)
    seen: list[EngineOptions] = []
    monkeypatch.setattr(support_engines, "open_engines", recording(seen))
    glam_deploy.load(folder, engine="onnx", streams=3, cache="compiled", threads=6, ungated=True)
    assert seen == [EngineOptions(streams=3, cache=Path("compiled"), threads=6)]


def recording(seen: list[EngineOptions]) -> Callable[[Bundle, EngineOptions], OpenedEngines]:
    def open_engines(bundle: Bundle, options: EngineOptions) -> OpenedEngines:
        seen.append(options)
        return support_engines.opened_fakes()

    return open_engines


@pytest.mark.parametrize("option", [{"device": 0}, {"flavour": "tensorrt"}, {"slots": 2}], ids=lambda o: next(iter(o)))
def test_options_of_a_gpu_are_refused_on_a_cpu(folder: Path, option: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(option))} = "):
        glam_deploy.load(folder, engine="onnx", **option)
