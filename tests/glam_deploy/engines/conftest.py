"""A bundle of made-up graphs, and kernels that cost nothing."""

from pathlib import Path

import pytest
import support_tensorrt

from glam_deploy.bundle import Bundle, open_bundle
from glam_deploy.engines.tensorrt import store


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Graphs in fp32 and fp16 that the made-up library builds."""
    support_tensorrt.fill(tmp_path / "bundle")
    return open_bundle(tmp_path / "bundle")


@pytest.fixture
def quick_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are compiled in no time."""
    monkeypatch.setattr(store, "compile_cubin", lambda source, *, architecture, name: architecture.encode())
