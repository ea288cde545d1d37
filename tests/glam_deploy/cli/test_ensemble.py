"""Ensembles: scores averaged over models, everything else from the first, and what may not be one ensemble."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support import tiny_bundle
from support.bundles import edit_manifest
from support.commands import Cli
from support.engines import small_view

from glam_deploy import load
from glam_deploy.bundle import open_bundle, open_members, staged_bundle, write_ensemble
from glam_deploy.errors import BundleError, CheckpointError, UsageError
from glam_deploy.records import Findings
from glam_deploy.runtime.host_chain import EnsembleChain
from glam_export import exporter
from glam_export.exporter import ExportOptions, ExportPlan, export_ensemble

Edit = Callable[[Path], object]


@pytest.fixture
def ensemble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models whose saliency of the brightest cell is sigmoid(5) and sigmoid(4); sigmoid(2) and sigmoid(1)."""
    folder = tmp_path / "ensemble"
    bundles = [tiny_bundle.write_tiny_bundle(folder / "1")]
    monkeypatch.setattr(tiny_bundle, "SLOPE", (7.0, 17.0))
    bundles.append(tiny_bundle.write_tiny_bundle(folder / "2"))
    for number, bundle in enumerate(bundles, start=1):
        edit_manifest(bundle, lambda manifest, n=number: manifest["checkpoint"].update(sha256=f"{n:02x}" * 32))
    write_ensemble(folder, [open_bundle(bundle) for bundle in bundles])
    return folder


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_scores_are_means_and_the_rest_is_of_the_first(ensemble: Path) -> None:
    view = small_view()
    with load(ensemble) as both, load(ensemble / "1") as first:
        found, alone = both(view), first(view)
    expected = [(sigmoid(5) + sigmoid(2)) / 2, (sigmoid(4) + sigmoid(1)) / 2]
    np.testing.assert_allclose(found.y_global, expected, atol=1e-6)
    assert found.y_global.dtype == np.float32
    assert found.y_scale is not None
    np.testing.assert_allclose(found.y_scale, [expected] * 3, atol=1e-6)
    np.testing.assert_array_equal(found.saliency(), alone.saliency())
    np.testing.assert_array_equal(found.patch_locations, alone.patch_locations)
    np.testing.assert_allclose(alone.y_global, [sigmoid(5), sigmoid(4)], atol=1e-6)


def test_provenance_names_every_model(ensemble: Path) -> None:
    with load(ensemble) as both, load(ensemble / "1") as first:
        provenance = both.provenance
        assert provenance["gate"] == "reference"
        assert [one["checkpoint"]["sha256"][:2] for one in provenance["ensemble"]] == ["01", "02"]
        assert provenance["bundle"]["folder"] == "ensemble"
        for name in ("bundle", "checkpoint"):
            assert provenance[name] != first.provenance[name]


def test_an_ensemble_has_no_gpu_slots(ensemble: Path) -> None:
    with load(ensemble) as both, pytest.raises(UsageError, match="an ensemble has no GPU slots"), both.slot():
        pass


def test_a_score_that_the_network_lacks_stays_missing() -> None:
    """The mean of [0.2, 0.4] and [0.6, 0.8] is [0.4, 0.6]."""

    class Fixed:
        largest_batch = in_flight = ahead = 1

        def __init__(self, *y_global: float) -> None:
            self.y_global = np.array([y_global], np.float32)

        def start(self, *_: object) -> Callable[[], Findings]:
            findings = object.__new__(Findings)
            for name in Findings.__dataclass_fields__:
                object.__setattr__(findings, name, None)
            return lambda: replace(findings, y_global=self.y_global)

    found = EnsembleChain([Fixed(0.2, 0.4), Fixed(0.6, 0.8)]).start([], _clock())()  # type: ignore[list-item]
    np.testing.assert_allclose(found.y_global, [[0.4, 0.6]], rtol=1e-6)
    assert found.y_fusion is None


def _clock() -> object:
    from glam_deploy.engines.base import Stopwatch

    return Stopwatch()


def test_a_run_that_was_made_with_another_model_is_not_kept(ensemble: Path, cli: Cli, tmp_path: Path) -> None:
    from PIL import Image

    images = tmp_path / "images"
    images.mkdir()
    Image.fromarray(small_view().pixels).save(images / "a_L-CC.png")
    run = ("run", images, "--bundle", ensemble, "--out", tmp_path / "out", "--view", "L-CC")
    assert cli(*run).code == 0
    assert "1 kept" in cli(*run, "--resume").out
    graph = next((ensemble / "2/graphs").glob("global.onnx"))
    graph.write_bytes((ensemble / "1/graphs/global.onnx").read_bytes())
    _list_again(ensemble / "2")
    assert "1 kept" not in cli(*run, "--resume").out


def _list_again(bundle: Path) -> None:
    from support.bundles import write_manifest

    manifest = json.loads((bundle / "manifest.json").read_text())
    write_manifest(bundle, {key: value for key, value in manifest.items() if key not in ("schema_version", "files")})


# commands


def test_inspect_shows_every_model(ensemble: Path, cli: Cli) -> None:
    said = cli("inspect", "--bundle", ensemble)
    assert "model 1 of 2" in said.out
    assert "model 2 of 2" in said.out
    content = json.loads(cli("inspect", "--bundle", ensemble, "--json").out)
    assert [one["checkpoint"]["sha256"][:2] for one in content["ensemble"]] == ["01", "02"]


def test_a_command_for_one_bundle_names_the_folders(ensemble: Path, cli: Cli) -> None:
    said = cli("bench", "--bundle", ensemble)
    assert said.code == 2
    assert (
        f"is an ensemble of several models, and this is for one bundle: give one of its folders, such as {ensemble}/1"
        in said.err
    )


# damage


def test_a_missing_model(ensemble: Path) -> None:
    (ensemble / "2").rename(ensemble / "away")
    with pytest.raises(BundleError, match=r"bundle 2 of the ensemble cannot be read.*Copy the whole ensemble again"):
        open_members(ensemble)


def test_an_exchanged_model(ensemble: Path) -> None:
    edit_manifest(ensemble / "2", lambda manifest: manifest["checkpoint"].update(sha256="ff" * 32))
    with pytest.raises(
        BundleError, match=f"bundle 2 was made from a checkpoint with SHA-256 {'ff' * 32}, the ensemble"
    ):
        load(ensemble)


def test_a_model_that_is_not_listed(ensemble: Path) -> None:
    """As of a published five of which ensemble.json was cut to two."""
    tiny_bundle.write_tiny_bundle(ensemble / "3")
    with pytest.raises(BundleError, match=r"the folder 3 is not in ensemble.json, which lists 1, 2"):
        load(ensemble)


def test_one_model_twice(ensemble: Path) -> None:
    edit_manifest(ensemble / "2", lambda manifest: manifest["checkpoint"].update(sha256="01" * 32))
    write_ensemble(ensemble, [open_bundle(ensemble / "1"), open_bundle(ensemble / "2")])
    with pytest.raises(BundleError, match="two of its members have the same checkpoint; a model counts once"):
        load(ensemble)


def test_models_with_other_patches(ensemble: Path) -> None:
    edit_manifest(ensemble / "2", lambda manifest: manifest["network"].update(patches=3))
    with pytest.raises(BundleError, match="bundle 2 is GLAM with 3 patches, the first is GLAM with 1"):
        load(ensemble)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[]", "does not describe an ensemble"),
        ("{", "does not describe an ensemble"),
        ('{"schema_version": 2, "members": []}', "schema version is 2, expected 1"),
        ('{"schema_version": 1, "members": []}', "its members are .*expected 2 to 32 different folders"),
        (
            (
                '{"schema_version": 1, "members": [{"folder": "../1", "checkpoint_sha256": "a"}, '
                '{"folder": "2", "checkpoint_sha256": "a"}]}'
            ),
            "expected 2 to 32 different folders",
        ),
        (
            (
                '{"schema_version": 1, "members": [{"folder": "1", "checkpoint_sha256": "a"}, '
                '{"folder": "1", "checkpoint_sha256": "a"}]}'
            ),
            "expected 2 to 32 different folders",
        ),
        (
            (
                '{"schema_version": 1, "members": [{"folder": "\u0661", "checkpoint_sha256": "a"}, '
                '{"folder": "2", "checkpoint_sha256": "b"}]}'
            ),
            "expected 2 to 32 different folders",
        ),
        ('{"schema_version": 1, "members": [], "x": 1}', "unknown"),
    ],
)
def test_a_file_that_describes_no_ensemble(ensemble: Path, content: str, told: str) -> None:
    (ensemble / "ensemble.json").write_text(content)
    with pytest.raises(BundleError, match=told):
        load(ensemble)


# export


def test_an_ensemble_is_replaced_as_a_whole_and_other_files_are_not_lost(ensemble: Path) -> None:
    with staged_bundle(ensemble) as folder:
        (folder / "new").write_text("new")
    assert [path.name for path in ensemble.iterdir()] == ["new"]


def test_a_file_beside_the_models_is_not_lost(ensemble: Path) -> None:
    (ensemble / "2/notes.txt").write_text("mine")
    with (
        pytest.raises(UsageError, match=r"has a file that belongs to no bundle \(2/notes.txt\)"),
        staged_bundle(ensemble),
    ):
        pass


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports cost nothing: a checkpoint's first byte is the network's patches and its content the hash."""

    def load_checkpoint(path: Path, **_: object) -> object:
        from types import SimpleNamespace

        spec = SimpleNamespace(title=path.read_text()[:4], aggregation="attention")
        network = SimpleNamespace(spec=spec)
        return SimpleNamespace(network=_one(network), sha256=path.read_text(), path=path, notes=())

    specs: dict[str, object] = {}

    def _one(network: object) -> object:
        network.spec = specs.setdefault(network.spec.title, network.spec)  # type: ignore[attr-defined]
        return network

    def run_plan(plan: ExportPlan, out: Path, report: object) -> object:
        folder = tiny_bundle.write_tiny_bundle(out)
        sha256 = plan.load.weights.read_text().encode().hex()
        edit_manifest(folder, lambda manifest: manifest["checkpoint"].update(sha256=sha256))
        return open_bundle(folder)

    monkeypatch.setattr("glam_export.steps.load.load_checkpoint", load_checkpoint)
    monkeypatch.setattr(exporter, "run_plan", run_plan)


def test_export_of_several_checkpoints(quick: None, tmp_path: Path, cli: Cli) -> None:
    for name in "abc":
        (tmp_path / f"{name}.p").write_text(f"GMIC {name}")
    paths = [tmp_path / f"{name}.p" for name in "abc"]
    said = cli("export", "--weights", *paths, "--out", tmp_path / "out")
    assert (said.code, f"{tmp_path}/out: ensemble of 3 models" in said.out) == (0, True), said.err
    found = [bytes.fromhex(one.manifest.checkpoint.sha256).decode() for one in open_members(tmp_path / "out")]
    assert found == ["GMIC a", "GMIC b", "GMIC c"]


@pytest.mark.parametrize(
    ("contents", "told"),
    [
        (
            ["GMIC a", "GLAM b"],
            "holds GLAM with attention aggregation, and .* holds GMIC .* an ensemble is of one network",
        ),
        (["GMIC a", "GMIC a"], "has the same content as .*0.p, and an ensemble is of different models"),
    ],
)
def test_checkpoints_that_are_no_ensemble(quick: None, tmp_path: Path, contents: list[str], told: str) -> None:
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.p").write_text(content)
    with pytest.raises(CheckpointError, match=told):
        export_ensemble([tmp_path / f"{n}.p" for n in range(len(contents))], tmp_path / "out", ExportOptions())
    assert not (tmp_path / "out").exists()
