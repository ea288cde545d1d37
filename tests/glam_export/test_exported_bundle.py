"""The bundle of a whole export with the real network, which the fixture `golden_bundle` makes once."""

import hashlib
import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import onnx
import pytest
import torch
from safetensors.torch import load_file
from support.bundles import snapshot
from support.export import CHAIN, graph_files

from glam_deploy.agreement.golden import GOLDEN_FILE
from glam_deploy.bundle import (
    CHECKPOINT_FILE,
    FUSION_WEIGHTS_FILE,
    MANIFEST,
    Bundle,
    open_bundle,
)
from glam_deploy.networks import GLAM_CONCATENATION, STAGES
from glam_deploy.precision import PRECISIONS

network = pytest.mark.network


@pytest.fixture(scope="module")
def exported(golden_bundle: Path) -> Bundle:
    return open_bundle(golden_bundle)


@network
def test_every_file_is_named_with_its_hash(exported: Bundle) -> None:
    content = snapshot(exported.folder)
    manifest = json.loads(content.pop(MANIFEST))
    assert manifest["files"] == {
        name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in content.items()
    }
    assert content.keys() == {*graph_files(*PRECISIONS), GOLDEN_FILE, CHECKPOINT_FILE, FUSION_WEIGHTS_FILE}


@network
def test_manifest(exported: Bundle, golden_checkpoint: Path) -> None:
    manifest = json.loads((exported.folder / MANIFEST).read_text())
    assert manifest["schema_version"] == 2
    assert manifest["network"] == {
        "name": "GLAM",
        "aggregation": "concatenation",
        "patches": 1,
        "precisions": ["fp32", "fp16", "bf16"],
    }
    assert manifest["checkpoint"] == {
        "name": "golden.pt",
        "sha256": hashlib.sha256(golden_checkpoint.read_bytes()).hexdigest(),
        "parameters": 24_086_140,
        "ignored_keys": [],
    }
    assert datetime.fromisoformat(manifest["created"]).tzinfo == UTC
    assert "carries their licence" in manifest["licence"]
    assert str(golden_checkpoint.parent) not in json.dumps(manifest)


@network
def test_versions_are_those_installed(exported: Bundle) -> None:
    versions = exported.manifest.versions
    assert versions.keys() == {"glam_deploy", "python", "torch", "onnx", "onnxruntime"}
    for package in ("torch", "onnx", "onnxruntime"):
        assert versions[package] == version(package)


@network
def test_interface_in_the_manifest_is_that_of_the_files(exported: Bundle) -> None:
    for stage in STAGES:
        entry = exported.manifest.graphs[stage]
        graphs = [onnx.load(exported.path(file)).graph for file in entry.files.values()]
        for kind, values in ((kind, getattr(graph, kind[:-1])) for graph in graphs for kind in ("inputs", "outputs")):
            tensors = getattr(entry, kind)
            assert list(tensors) == [value.name for value in values]
            for value in values:
                axes = value.type.tensor_type.shape.dim
                assert list(tensors[value.name].shape) == [d.dim_param or d.dim_value for d in axes]


@network
def test_parity_table_has_every_output(exported: Bundle) -> None:
    table = {row.output: row for row in exported.manifest.parity if row.precision == "fp32"}
    graphs = [f"{stage}.{out}" for stage in STAGES for out in GLAM_CONCATENATION.contract(stage).outputs]
    assert set(table) == {*graphs, *(f"chain.{name}" for name in CHAIN)}
    for name, row in table.items():
        assert row.passed is True
        assert 0 <= row.max_abs <= row.limit
        exact = name == "chain.patch_locations"
        assert row.limit == 0 if exact else row.limit >= 1e-4


@network
def test_parity_table_of_half_graphs(exported: Bundle) -> None:
    for precision, rounding in (("fp16", 2**-11), ("bf16", 2**-8)):
        table = {row.output: row for row in exported.manifest.parity if row.precision == precision}
        graphs = [f"{stage}.{out}" for stage in STAGES[:2] for out in GLAM_CONCATENATION.contract(stage).outputs]
        assert list(table) == graphs
        for row in table.values():
            assert row.passed is True
            assert row.mean_abs <= row.limit
            assert row.mean_abs < row.max_abs
        # a half graph that was never rounded would be a hundred times closer
        assert table["global.saliency_global"].mean_abs > rounding / 4


@network
def test_weights_in_the_bundle_are_those_of_the_file(exported: Bundle, golden_state: dict[str, torch.Tensor]) -> None:
    kept = load_file(exported.path(CHECKPOINT_FILE))
    assert kept.keys() == {key for key in golden_state if not key.endswith("num_batches_tracked")}
    assert all(torch.equal(values, golden_state[key]) for key, values in kept.items())
