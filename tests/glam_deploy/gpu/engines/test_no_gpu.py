"""GPU engines on a machine without a GPU, or without their library: a sentence, an exit code, and never a crash."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from expected import need
from support.bundles import fill

from glam_deploy.bundle import Bundle, open_bundle
from glam_deploy.engines.base import EngineOptions
from glam_deploy.engines.registry import OWNERS, open_engines
from glam_deploy.errors import BackendBuildError, BackendUnavailable
from glam_deploy.gpu.device.gpu import Gpu
from glam_deploy.gpu.engines.tensorrt import flavours
from glam_deploy.gpu.engines.tensorrt.engine import TensorRtEngine
from glam_deploy.gpu.engines.tensorrt.flavours import FLAVOURS, Library
from glam_deploy.networks import GLAM_CONCATENATION
from glam_deploy.precision import PRECISIONS, Precision


@pytest.fixture
def no_gpu() -> None:
    try:
        name = Gpu().name
    except BackendUnavailable:
        return
    pytest.skip(f"this machine has a GPU: {name}")


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    fill(tmp_path)
    return open_bundle(tmp_path)


@pytest.fixture
def rtx() -> Library:
    """The real library, which needs a driver for everything but building."""
    need("tensorrt-rtx", "" if FLAVOURS["tensorrt-rtx"].installed else "tensorrt_rtx")
    return flavours.load(FLAVOURS["tensorrt-rtx"])


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_driver(bundle: Bundle, precision: Precision) -> None:
    need(precision, ", ".join(OWNERS[precision].missing))
    with pytest.raises(BackendUnavailable, match=r"libcuda\.so\.1, NVIDIA's driver, is missing|GPU 0") as caught:
        open_engines(precision, bundle, EngineOptions())
    assert caught.value.exit_code == 3


def test_onnxruntime_without_the_cuda_provider(bundle: Bundle) -> None:
    import onnxruntime

    need("onnx-cuda", ", ".join(OWNERS["onnx-cuda"].missing))
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("onnxruntime-gpu is installed")
    with pytest.raises(BackendUnavailable) as caught:
        open_engines("onnx-cuda", bundle, EngineOptions())
    message = str(caught.value)
    assert f"the installed package onnxruntime {onnxruntime.__version__} lacks" in message
    assert "onnxruntime and onnxruntime-gpu cannot be installed together" in message
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in message
    assert caught.value.exit_code == 3


@pytest.mark.usefixtures("no_gpu")
def test_the_real_library_refuses_engines_in_words(rtx: Library) -> None:
    for plan, words in ((smallest_engine(rtx), "cudaError"), (b"no engine" * 99, "magicTag")):
        with pytest.raises(BackendBuildError, match=rf"local engine: TensorRT-RTX [\d.]+ cannot load it: .*{words}"):
            TensorRtEngine(rtx, plan, "local", network=GLAM_CONCATENATION, gpu=without_context())


def smallest_engine(library: Library) -> bytes:
    """One layer, built ahead of time."""
    trt = library.trt
    builder = trt.Builder(trt.Logger(trt.Logger.ERROR))
    network = builder.create_network(0)
    x = network.add_input("x", trt.float32, (1, 4))
    network.mark_output(network.add_unary(x, trt.UnaryOperation.EXP).get_output(0))
    return bytes(builder.build_serialized_network(network, builder.create_builder_config()))


def without_context() -> Gpu:
    return cast(Gpu, SimpleNamespace(current=nullcontext))
