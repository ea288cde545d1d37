"""Skips that a machine can forbid: what GLAM_EXPECT names (comma separated) must be there, or its tests fail."""

import os

import pytest

from glam_deploy.engines import cpu
from glam_deploy.engines.registry import OWNERS
from glam_deploy.errors import BackendUnavailable
from glam_deploy.gpu.device.gpu import Gpu


def need(name: str, missing: object) -> None:
    """Skip the test where `missing` says what this machine lacks of `name`; fail it where `name` is expected."""
    if not missing:
        return
    expected = name in os.environ.get("GLAM_EXPECT", "").split(",")
    (pytest.fail if expected else pytest.skip)(f"{name}: this machine lacks {missing}")


def need_engine(name: str) -> None:
    """As `need`, for an engine of the registry: its packages decide, and its GPU, never an error while it opens."""
    lacking = ", ".join(OWNERS[name].missing) or _without_provider(name) or (OWNERS[name].gpu and _without_gpu())
    need(name, lacking or (name == "openvino-bf16" and _without_bf16()))


def _without_provider(name: str) -> str:
    if not name.startswith("onnx-cuda"):
        return ""
    import onnxruntime

    return "" if "CUDAExecutionProvider" in onnxruntime.get_available_providers() else "onnxruntime-gpu"


def _without_bf16() -> str:
    return "bf16 in its CPU" if cpu.features().isdisjoint(cpu.BF16) else ""


def _without_gpu() -> str:
    try:
        Gpu()
    except BackendUnavailable as error:
        return f"a GPU: {error}"
    return ""
