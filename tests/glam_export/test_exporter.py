"""What an export leaves on disk, and that a failed one leaves nothing.

The whole export with the real network runs once, in the fixture `golden_bundle`. The steps around it are tested with
engines that cost nothing, in place of the network and of what runs its graphs.
"""

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file
from support_bundles import fill, snapshot
from support_engines import fake_engines, small_view

from glam_deploy import spec
from glam_deploy.bundle import CHECKPOINT_FILE, MANIFEST, Bundle, graph_file, open_bundle
from glam_deploy.engines.base import OpenedEngines
from glam_deploy.errors import BackendBuildError, BackendRunError, GlamError, ParityError, UsageError
from glam_deploy.metrics import Comparison
from glam_deploy.runtime.golden import GOLDEN_FILE
from glam_export import exporter
from glam_export.checkpoint import Checkpoint
from glam_export.exporter import ExportOptions, export_bundle

network = pytest.mark.network
WEIGHTS = Path("weights.pt")
CHAIN = ("patch_locations", "y_global", "y_scale", "y_local", "saliency_global", "saliency_patches")

Wrong = Callable[[str, float], None]


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> Wrong:
    """The exporter on engines that cost nothing; called, it makes one output of the exported graphs wrong."""
    offsets: dict[str, float] = {}

    def write(path: Path, content: bytes) -> None:
        path.write_bytes(content)

    def load_checkpoint(path: Path, *, ignore: tuple[str, ...]) -> Checkpoint:
        stub: Any = SimpleNamespace(fusion_head=False)
        return Checkpoint(network=stub, path=path, sha256="ab" * 32, parameters=7, ignored=ignore)

    replaced: dict[str, Any] = {
        "load_checkpoint": load_checkpoint,
        "graph_modules": lambda net: dict.fromkeys(spec.STAGES),
        "write_graph": lambda module, stage, path, **options: write(path, stage.encode()),
        "save_weights": lambda net, path: write(path, b"weights"),
        "network_engines": lambda net: fake_engines(),
        "open_engines": lambda *ignored: OpenedEngines(engines=fake_engines(wrong=offsets), provenance={}),
        "phantom_view": lambda seed, view: SimpleNamespace(pixels=small_view().pixels[:, ::-1]),
    }
    for name, substitute in replaced.items():
        monkeypatch.setattr(exporter, name, substitute)
    return offsets.__setitem__


@pytest.fixture(params=[False, True], ids=["new place", "over a bundle"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where to export to, alone in its folder: nothing is there, or a bundle."""
    folder = tmp_path / "bundle"
    if request.param:
        folder.mkdir()
        fill(folder)
    return folder


def assert_fails(place: Path, error: type[GlamError], options: ExportOptions | None = None) -> str:
    """The message of a failed export, which left the folder around `place` as it was."""
    before = snapshot(place.parent), sorted(place.parent.rglob("*"))
    with pytest.raises(error) as caught:
        export_bundle(WEIGHTS, place, options or ExportOptions())
    assert (snapshot(place.parent), sorted(place.parent.rglob("*"))) == before
    return str(caught.value)


@pytest.mark.usefixtures("wrong")
def test_options_and_steps(place: Path) -> None:
    steps: list[str] = []
    options = ExportOptions(patches=3, ignore_keys=("teacher.*",))
    bundle = export_bundle(WEIGHTS, place, options, steps.append)
    assert bundle == open_bundle(place)
    bundle.check()
    assert bundle.patches == bundle.manifest["golden"]["patches"] == 3
    assert bundle.manifest["checkpoint"] == {
        "name": "weights.pt",
        "sha256": "ab" * 32,
        "parameters": 7,
        "ignored_keys": ["teacher.*"],
    }
    with np.load(place / GOLDEN_FILE) as case:
        assert case["saliency_patches"].shape == (3, 2, 128, 128)
        np.testing.assert_array_equal(case["pixels"], small_view().pixels[:, ::-1])
    assert steps == [
        "reading weights.pt",
        *(f"writing the {stage} graph" for stage in spec.STAGES),
        "running the reference on the golden case",
        "comparing every graph with the reference",
    ]


@pytest.mark.usefixtures("wrong")
@pytest.mark.parametrize("keep", [True, False])
def test_weights_are_kept_only_if_asked(place: Path, keep: bool) -> None:
    export_bundle(WEIGHTS, place, ExportOptions(keep_checkpoint=keep))
    files = {*map(graph_file, spec.STAGES), GOLDEN_FILE, *([CHECKPOINT_FILE] if keep else [])}
    assert snapshot(place).keys() == {MANIFEST, *files}
    assert open_bundle(place).files.keys() == files


@pytest.mark.parametrize("output", ["global.z_g", "local.z_k", "fusion.saliency"])
def test_a_wrong_graph_makes_no_bundle(place: Path, wrong: Wrong, output: str) -> None:
    wrong(output.split(".")[1], 1e-3)
    message = assert_fails(place, ParityError)
    # the chain compares none of the three, so that one row stands alone
    assert message.startswith("1 of 14 outputs disagree with the PyTorch reference; no bundle was written:\n")
    assert f"\n  {output}: differs by 0.001, limit 0.0001\n" in message


def test_a_wrong_graph_is_wrong_in_the_chain_too(place: Path, wrong: Wrong) -> None:
    wrong("y_local", 1e-3)
    message = assert_fails(place, ParityError)
    assert "  fusion.y_local: differs by 0.001, " in message
    assert "  chain.y_local: differs by 0.001, " in message


def test_a_chain_that_differs_where_no_graph_does(place: Path, wrong: Wrong, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong("y_local", 1e-3)
    monkeypatch.setattr(exporter, "compare_graphs", lambda *engines_and_image: [])
    message = assert_fails(place, ParityError)
    assert message.splitlines()[0].startswith(f"1 of {len(CHAIN)} outputs ")
    assert "  chain.y_local: differs by 0.001, " in message


def test_a_graph_that_computes_nan(place: Path, wrong: Wrong) -> None:
    wrong("saliency_patches", np.nan)
    assert "'saliency_patches' are NaN" in assert_fails(place, BackendRunError)


@pytest.mark.usefixtures("wrong")
@pytest.mark.parametrize(
    "step", ["graph_modules", "write_graph", "save_weights", "write_golden", "open_engines", "check_golden"]
)
def test_nothing_is_left_wherever_it_fails(place: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise BackendBuildError("made up")

    monkeypatch.setattr(exporter, step, fail)
    assert assert_fails(place, BackendBuildError) == "made up"


@pytest.mark.parametrize("patches", [0, 7, -1])
def test_number_of_patches(place: Path, patches: int) -> None:
    # before anything is read: there are no weights
    message = assert_fails(place, UsageError, ExportOptions(patches=patches))
    assert message == f"patches = {patches}: expected a whole number from 1 to 6"


def test_no_weights(place: Path) -> None:
    assert "cannot be read" in assert_fails(place, UsageError)


@pytest.mark.usefixtures("wrong")
def test_files_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/notes.txt").write_text("mine")
    assert "notes.txt" in assert_fails(tmp_path / "bundle", UsageError)


def test_message_of_missed_outputs() -> None:
    table = [
        Comparison(name="global.z_g", max_abs=0.01234, limit=0.0005),
        Comparison(name="fusion.y_local", max_abs=1e-6, limit=1e-4),
        Comparison(name="chain.patch_locations", max_abs=np.inf, limit=0.0),
    ]
    with pytest.raises(ParityError) as caught:
        exporter._require(table)
    lines = str(caught.value).splitlines()
    assert lines[0] == "2 of 3 outputs disagree with the PyTorch reference; no bundle was written:"
    assert lines[1] == "  global.z_g: differs by 0.0123, limit 0.0005"
    assert lines[2] == "  chain.patch_locations: differs by inf, limit 0"
    assert "report" in lines[3]
    exporter._require(table[1:2])


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
    assert content.keys() == {*map(graph_file, spec.STAGES), GOLDEN_FILE, CHECKPOINT_FILE}


@network
def test_manifest(exported: Bundle, golden_checkpoint: Path) -> None:
    manifest = exported.manifest
    assert manifest["schema_version"] == 1
    assert manifest["network"] == {
        "name": "GLAM",
        "classes": ["benign", "malignant"],
        "input_shape": [2944, 1920],
        "fusion_head": False,
        "aggregation": "concatenation",
        "patches": 1,
        "max_patches": 6,
        "precision": "fp32",
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
    versions = exported.manifest["versions"]
    assert versions.keys() == {"glam_deploy", "python", "torch", "onnx", "onnxruntime"}
    for package in ("torch", "onnx", "onnxruntime"):
        assert versions[package] == version(package)


@network
def test_interface_in_the_manifest_is_that_of_the_files(exported: Bundle) -> None:
    for stage in spec.STAGES:
        entry = exported.manifest["graphs"][stage]
        graph = onnx.load(exported.path(entry["file"])).graph
        assert entry["opset"] == 21
        for kind, values in (("inputs", graph.input), ("outputs", graph.output)):
            assert list(entry[kind]) == [value.name for value in values]
            for value in values:
                axes = value.type.tensor_type.shape.dim
                assert entry[kind][value.name]["shape"] == [d.dim_param or d.dim_value for d in axes]


@network
def test_parity_table_has_every_output(exported: Bundle) -> None:
    table = {row["output"]: row for row in exported.manifest["parity"]}
    graphs = [
        f"{stage}.{out}" for stage in spec.STAGES for out in spec.graph_contract(stage, fusion_head=False).outputs
    ]
    assert set(table) == {*graphs, *(f"chain.{name}" for name in CHAIN)}
    for name, row in table.items():
        assert row["passed"] is True
        assert 0 <= row["max_abs"] <= row["limit"]
        exact = name == "chain.patch_locations"
        assert row["limit"] == 0 if exact else row["limit"] >= 1e-4


@network
def test_weights_in_the_bundle_are_those_of_the_file(exported: Bundle, golden_state: dict[str, torch.Tensor]) -> None:
    kept = load_file(exported.path(CHECKPOINT_FILE))
    assert kept.keys() == {key for key in golden_state if not key.endswith("num_batches_tracked")}
    assert all(torch.equal(values, golden_state[key]) for key, values in kept.items())
