"""Engines that run Winograd's form of the local graph, of bundles that have it and that have it not."""

from pathlib import Path

import pytest
from support.bundles import facts, fill, write_manifest

from glam_deploy.bundle import WINOGRAD_FILE, open_bundle
from glam_deploy.bundle.folder import winograd_files
from glam_deploy.engines.base import EngineOptions
from glam_deploy.engines.registry import open_engines
from glam_deploy.errors import BundleError


def test_only_the_local_graph_is_another(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / WINOGRAD_FILE).write_bytes(b"local graph")
    write_manifest(tmp_path, facts())
    files = {"global": "graphs/global.onnx", "local": "graphs/local.winograd.onnx", "fusion": "graphs/fusion.onnx"}
    assert winograd_files(open_bundle(tmp_path)) == files


@pytest.mark.parametrize("engine", ["onnx-winograd", "openvino-winograd"])
def test_a_bundle_without_is_refused_with_what_to_do(tmp_path: Path, engine: str) -> None:
    fill(tmp_path)
    with pytest.raises(BundleError) as caught:
        open_engines(engine, open_bundle(tmp_path), EngineOptions())
    assert str(caught.value) == (
        f"{tmp_path}: has no graphs/local.winograd.onnx. Export the checkpoint again with --winograd, or choose an "
        f"engine without Winograd convolutions: onnx or openvino."
    )
