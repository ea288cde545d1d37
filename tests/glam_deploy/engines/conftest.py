"""A bundle of made-up graphs, and the real one's graphs."""

from pathlib import Path

import pytest
import support_tensorrt
from support_bundles import facts

from glam_deploy.bundle import Bundle, open_bundle, write_manifest
from glam_deploy.engines.tensorrt import store


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    """Graphs in fp32 and fp16 that the made-up library builds."""
    folder = tmp_path / "bundle"
    (folder / "graphs").mkdir(parents=True)
    for name, content in support_tensorrt.graphs("fp32", "fp16").items():
        (folder / name).write_bytes(content)
    write_manifest(folder, facts())
    return open_bundle(folder)


@pytest.fixture
def quick_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are compiled in no time."""
    monkeypatch.setattr(store, "compile_cubin", lambda source, *, architecture, name: architecture.encode())
