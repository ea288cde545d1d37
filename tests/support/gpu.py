"""Engines for the GPU of this machine."""

import shutil
from pathlib import Path

import pytest

from glam_deploy.bundle import WINOGRAD_FILE, Bundle, graph_file, open_bundle
from glam_deploy.engines.registry import OWNERS
from glam_deploy.gpu.engines.tensorrt.identity import this_machine
from glam_deploy.gpu.engines.tensorrt.store import BuildRequest, build_engines, plan


def with_engines(name: str, folder: Path, temporary: pytest.TempPathFactory) -> Bundle:
    """The bundle as it is, or a copy with engines built for this machine where they are what the engine `name` runs."""
    precision = OWNERS[name].precision
    if "flavour" not in OWNERS[name].options or precision is None:
        return _with_graphs(name, open_bundle(folder))
    if graph_file("local", precision) not in open_bundle(folder).files:
        pytest.skip(f"{name}: the bundle was exported without graphs of that precision")
    copy = temporary.mktemp(name) / "bundle"
    shutil.copytree(folder, copy)
    return build_engines(copy, plan(BuildRequest(precision=precision), this_machine()), lambda *step: None).bundle


def _with_graphs(name: str, bundle: Bundle) -> Bundle:
    """The bundle, if it has what the engine runs; 8 bits take minutes to calibrate, and have tests of their own."""
    lacks = {
        "onnx-cuda-fp16": graph_file("local", "fp16") not in bundle.files,
        "openvino-int8": graph_file("local", "int8") not in bundle.files,
        "onnx-winograd": WINOGRAD_FILE not in bundle.files,
        "openvino-winograd": WINOGRAD_FILE not in bundle.files,
        "openvino-mixed": bundle.manifest.mixture is None,
    }
    if lacks.get(name):
        pytest.skip(f"{name}: the bundle was exported without what it runs")
    return bundle
