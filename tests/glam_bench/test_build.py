"""The step that builds engines, with a made-up TensorRT."""

from pathlib import Path
from typing import Any

import pytest
from support import tensorrt as support_tensorrt

from glam_bench.gpu.plan import GpuContext, GpuOptions
from glam_bench.measurements import build
from glam_bench.record import Record
from glam_deploy.bundle import open_bundle
from glam_deploy.errors import BackendBuildError, BackendUnavailable

STEP = "build:fp16@tensorrt"


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GpuContext:
    support_tensorrt.install(monkeypatch)
    support_tensorrt.fill(tmp_path / "given")
    monkeypatch.setattr(build, "Gpu", lambda index: support_tensorrt.GPU)
    (tmp_path / "work").mkdir()
    options = GpuOptions(bundle=tmp_path / "given", work=tmp_path / "work")
    record = Record.create(tmp_path / "gpu.json", options=options.as_json())
    return GpuContext(options=options, record=record, name=STEP, argument="fp16@tensorrt")


def test_one_precision_in_a_copy_of_the_bundle(context: GpuContext) -> None:
    build.run(context)
    found = context.record.results(STEP)
    assert found["library"].startswith("TensorRT 11")
    assert found["confirmed_share"]["local"] == 1.0
    assert [entry.precision for entry in open_bundle(context.bundle).engines] == ["fp16"]
    assert not open_bundle(context.options.bundle).engines


def test_reports_that_a_refused_build_has_kept_come_beside_the_record(
    context: GpuContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path, *_: Any) -> Any:
        kept = folder / "engines/tensorrt-fp16-0123456789ab"
        kept.mkdir(parents=True)
        (kept / "local.layers.txt").write_text("Layers: all of it\n" * 1000)
        raise BackendBuildError("local graph: not half")

    monkeypatch.setattr(build.store, "build_engines", refuse)
    with pytest.raises(BackendBuildError):
        build.run(context)
    (name,) = context.record.results(STEP)["reports"]
    assert name == "gpu-fp16@tensorrt-local.layers.txt"
    assert context.record.path.with_name(name).read_text() == "Layers: all of it\n" * 1000


def test_the_copy_is_whole_or_not_there(context: GpuContext) -> None:
    """The process that made it may have been stopped at its limit."""
    half = context.options.work / "bundle.draft"
    half.mkdir()
    (half / "rubbish").touch()
    assert not (context.bundle / "rubbish").exists()
    open_bundle(context.bundle)


def test_a_flavour_that_is_not_installed(context: GpuContext) -> None:
    other = GpuContext(options=context.options, record=context.record, name="x", argument="fp16@tensorrt-rtx")
    with pytest.raises(BackendUnavailable, match="TensorRT-RTX is not installed"):
        build.run(other)
