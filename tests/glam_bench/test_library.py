"""The small convolution: its numbers against ONNX Runtime, and its build with the real TensorRT-RTX."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnxruntime as ort
import pytest
from expected import need
from fake_cuda.outside import run_inside

from glam_bench.gpu.plan import GpuContext, GpuOptions
from glam_bench.measurements import library
from glam_bench.measurements.library import TOLERANCE, TYPES, Trial, example, graph
from glam_bench.record import Record
from glam_deploy.errors import BackendUnavailable
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.engines.tensorrt import flavours
from glam_deploy.gpu.engines.tensorrt.flavours import FLAVOURS
from glam_deploy.precision import Precision

HERE = Path(__file__).parent
PRECISIONS = cast(tuple[Precision, ...], tuple(TYPES))


@pytest.fixture
def context(tmp_path: Path) -> GpuContext:
    options = GpuOptions(bundle=tmp_path, work=tmp_path)
    record = Record.create(tmp_path / "gpu.json", options=options.as_json())
    return GpuContext(options=options, record=record, name="library:tensorrt-rtx", argument="tensorrt-rtx")


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_expected_is_what_onnx_runtime_computes(precision: Precision) -> None:
    image, expected = example(precision, 2)
    (found,) = ort.InferenceSession(graph(precision), providers=["CPUExecutionProvider"]).run(None, {"x": image})
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=0, atol=TOLERANCE[precision])


def test_tf32_would_be_seen() -> None:
    """Ten bits of mantissa: the tolerance of fp32 lies between their error and that of FP32."""
    image, expected = example("fp32", 2)
    kernel = library.weights("fp32")
    short = [(values.view(np.uint32) & 0xFFFFE000).view(np.float32) for values in (image, kernel)]
    padded = np.pad(short[0].astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    off = np.abs(np.einsum("nchwij,kcij->nkhw", windows, short[1].astype(np.float64)) - expected).max()
    assert off > TOLERANCE["fp32"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_real_tensorrt_rtx_builds_it_and_its_words_are_kept(context: GpuContext, precision: Precision) -> None:
    """It needs no GPU to build. What it logs at VERBOSE is a report that names the type."""
    need("tensorrt-rtx", "" if FLAVOURS["tensorrt-rtx"].installed else "tensorrt_rtx")
    rtx = flavours.load(FLAVOURS["tensorrt-rtx"])
    gpu = cast(Gpu, SimpleNamespace(current=nullcontext, compute_capability="8.9", name="none"))
    trial = Trial(library=rtx, gpu=gpu, precision=precision)
    trial.built()
    trial._read_log()
    names = trial.save(context)
    assert names == [f"gpu-tensorrt-rtx-{precision}.{ending}" for ending in ("log.txt", "layers.txt")]
    log, layers = ((context.options.work / name).read_text() for name in names)
    assert "[VERBOSE]" in log
    assert layers.startswith("Layers:")
    assert set(trial.found["types_told"]["layers.txt"]) & set(TYPES[precision][2])
    assert trial.differs == []


def test_what_bindings_lack_stays_named(context: GpuContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the trials go."""
    made_up = SimpleNamespace(trt=SimpleNamespace(ILogger=object))
    monkeypatch.setattr(library.flavours, "find", lambda name: None)
    monkeypatch.setattr(library.flavours, "load", lambda _: made_up)
    monkeypatch.setattr(library.contract, "differences", lambda trt, rtx: ["a: not there"])
    monkeypatch.setattr(library, "Gpu", lambda index: None)
    monkeypatch.setattr(Trial, "run", lambda self: self.differs.append("odd"))
    library.run(context)
    differs = context.record.results("library:tensorrt-rtx")["differs"]
    assert differs == ["bindings: a: not there", "fp16: odd", "fp32: odd"]


def test_a_library_that_is_not_installed(context: GpuContext, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise BackendUnavailable("TensorRT is not installed.")

    monkeypatch.setattr(library.flavours, "find", missing)
    with pytest.raises(BackendUnavailable):
        library.run(context)


@pytest.mark.slow
def test_on_the_fake_gpu() -> None:
    run_inside(HERE / "gpu_library.py")
