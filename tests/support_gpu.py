"""Engines for the GPU of this machine."""

import shutil
from pathlib import Path

import pytest

from glam_deploy.bundle import Bundle, graph_file, open_bundle
from glam_deploy.engines.registry import OWNERS
from glam_deploy.engines.tensorrt.identity import this_machine
from glam_deploy.engines.tensorrt.store import BuildRequest, build_engines, plan


def with_engines(name: str, folder: Path, temporary: pytest.TempPathFactory) -> Bundle:
    """The bundle as it is, or a copy with engines built for this machine where they are what the engine `name` runs."""
    precision = OWNERS[name].precision
    if precision is None:
        return open_bundle(folder)
    if graph_file("local", precision) not in open_bundle(folder).files:
        pytest.skip(f"{name}: the bundle was exported without graphs of that precision")
    copy = temporary.mktemp(name) / "bundle"
    shutil.copytree(folder, copy)
    return build_engines(copy, plan(BuildRequest(precision=precision), this_machine()), lambda *step: None).bundle
