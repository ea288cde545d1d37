"""A bundle of made-up graphs, and kernels that cost nothing."""

import tempfile
from pathlib import Path

import pytest
from support import tensorrt as support_tensorrt

from glam_deploy.bundle import Bundle, open_bundle
from glam_deploy.gpu.engines.tensorrt import store


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Graphs in fp32 and fp16 that the made-up library builds."""
    support_tensorrt.fill(tmp_path / "bundle")
    return open_bundle(tmp_path / "bundle")


@pytest.fixture
def quick_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are compiled in no time."""
    monkeypatch.setattr(store, "compile_cubin", lambda source, *, architecture, name: architecture.encode())


@pytest.fixture(autouse=True)
def kept_reports(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the layer reports of refused engines go, instead of the system's folder for temporary files."""
    folder = tmp_path_factory.mktemp("kept-reports")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder
