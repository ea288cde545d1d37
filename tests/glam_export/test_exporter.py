"""What an export leaves on disk, and that a failed one leaves nothing.

The whole export with the real network runs once, in the fixture `golden_bundle`. The steps around it are tested with
engines that cost nothing, in place of the network and of what runs its graphs.
"""

import hashlib
import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file
from support.bundles import fill, snapshot
from support.engines import fake_engines, fake_identity, small_view

from glam_deploy.agreement.golden import GOLDEN_FILE
from glam_deploy.agreement.metrics import Comparison
from glam_deploy.bundle import (
    CHECKPOINT_FILE,
    MANIFEST,
    WINOGRAD_FILE,
    Bundle,
    CheckpointEntry,
    graph_file,
    open_bundle,
)
from glam_deploy.engines.base import Engine, OpenedEngines
from glam_deploy.errors import BackendBuildError, BackendRunError, GlamError, ParityError, UsageError
from glam_deploy.networks import GLAM_CONCATENATION, STAGES, Stage
from glam_deploy.precision import PRECISIONS, Precision
from glam_export import exporter
from glam_export.checkpoint import Checkpoint
from glam_export.exporter import ExportOptions, export_bundle

network = pytest.mark.network
WEIGHTS = Path("weights.pt")
CHAIN = ("patch_locations", "y_global", "y_scale", "y_local", "saliency_global", "saliency_patches")

Half = Literal["fp16", "bf16"]
Form = Precision | Literal["winograd"]


class Wrong:
    """What is added to outputs of the exported graphs, by precision or form and name."""

    def __init__(self) -> None:
        self.offsets: dict[Form, dict[str, float]] = {form: {} for form in (*PRECISIONS, "winograd")}

    def __call__(self, output: str, offset: float, form: Form = "fp32") -> None:
        self.offsets[form][output] = offset

    def engines(self, form: Form) -> dict[Stage, Engine]:
        return fake_engines(wrong=self.offsets[form])

    def open_engines(self, name: str, *ignored: object) -> OpenedEngines:
        return OpenedEngines(
            engines=self.engines("winograd" if name == "onnx-winograd" else "fp32"), identity=fake_identity(name)
        )

    def half_engines(self, precision: Half) -> dict[Stage, Engine]:
        return {stage: engine for stage, engine in self.engines(precision).items() if stage != "fusion"}


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> Wrong:
    """The exporter on engines that cost nothing; called, it makes one output of the exported graphs wrong."""
    faults = Wrong()

    def write(path: Path, content: bytes) -> None:
        path.write_bytes(content)

    def load_checkpoint(path: Path, *, key: str | None, ignore: tuple[str, ...]) -> Checkpoint:
        stub: Any = SimpleNamespace(spec=GLAM_CONCATENATION)
        return Checkpoint(
            network=stub, path=path, sha256="ab" * 32, parameters=7, ignored=ignore, key=key or "", notes=()
        )

    replaced: dict[str, Any] = {
        "load_checkpoint": load_checkpoint,
        "graph_modules": lambda net: dict.fromkeys(STAGES),
        "in_precision": lambda module, precision: precision,
        "write_graph": lambda module, stage, path, **options: write(path, f"{stage} {module}".encode()),
        "save_weights": lambda net, path: write(path, b"weights"),
        "network_engines": lambda net: fake_engines(),
        "open_engines": faults.open_engines,
        "winograd": lambda graph: b"fast " + graph,
        "rounded_engines": lambda bundle, precision: faults.half_engines(precision),
        "phantom_view": lambda seed, view: SimpleNamespace(pixels=small_view().pixels[:, ::-1]),
    }
    for name, substitute in replaced.items():
        monkeypatch.setattr(exporter, name, substitute)
    return faults


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
    assert bundle.patches == bundle.manifest.golden.patches == 3
    assert bundle.manifest.checkpoint == CheckpointEntry(
        name="weights.pt", sha256="ab" * 32, parameters=7, ignored_keys=("teacher.*",)
    )
    with np.load(place / GOLDEN_FILE) as case:
        assert case["saliency_patches"].shape == (3, 2, 128, 128)
        np.testing.assert_array_equal(case["pixels"], small_view().pixels[:, ::-1])
    assert steps == [
        "reading weights.pt",
        *(f"writing the {stage} graph in fp32" for stage in STAGES),
        "writing the global graph in fp16",
        "writing the local graph in fp16",
        "running the reference on the golden case",
        "comparing every graph with the reference",
    ]


@pytest.mark.usefixtures("wrong")
@pytest.mark.parametrize("keep", [True, False])
def test_weights_are_kept_only_if_asked(place: Path, keep: bool) -> None:
    export_bundle(WEIGHTS, place, ExportOptions(keep_checkpoint=keep))
    files = {*graph_files("fp32", "fp16"), GOLDEN_FILE, *([CHECKPOINT_FILE] if keep else [])}
    assert snapshot(place).keys() == {MANIFEST, *files}
    assert open_bundle(place).files.keys() == files


def graph_files(*precisions: Precision) -> set[str]:
    return {graph_file(stage, precision) for stage in STAGES for precision in precisions}


@pytest.mark.usefixtures("wrong")
@pytest.mark.parametrize(
    ("asked", "made"),
    [
        ((), ["fp32"]),
        (("fp32",), ["fp32"]),
        (("bf16",), ["fp32", "bf16"]),
        (("bf16", "fp16", "bf16", "fp32"), ["fp32", "fp16", "bf16"]),
    ],
)
def test_precisions(tmp_path: Path, asked: tuple[Precision, ...], made: list[Precision]) -> None:
    bundle = export_bundle(WEIGHTS, tmp_path / "bundle", ExportOptions(precisions=asked, keep_checkpoint=False))
    assert list(bundle.manifest.network.precisions) == made
    assert bundle.files.keys() == {*graph_files(*made), GOLDEN_FILE}
    for stage, entry in bundle.manifest.graphs.items():
        assert list(entry.files) == made
        for precision, file in entry.files.items():
            typed = "fp32" if stage == "fusion" else precision
            assert bundle.read(file).decode() == f"{stage} {typed}"
    rows = [(row.precision, row.output) for row in bundle.manifest.parity]
    half = ["global.saliency_global", "global.y_scale", "global.z_g", "local.saliency_patches", "local.z_k"]
    assert [row for row in rows if row[0] != "fp32"] == [(p, name) for p in made[1:] for name in half]


def test_unknown_precision(place: Path) -> None:
    message = assert_fails(place, UsageError, ExportOptions(precisions=("fp8",)))  # type: ignore[arg-type]
    assert message == "precision fp8: expected one of fp32, fp16, bf16, int8"


BOTH = ExportOptions(precisions=("fp16", "bf16"))


@pytest.mark.parametrize(
    ("missed", "options", "remedy"),
    [
        (["fp16"], ExportOptions(), "--precision fp32"),
        (["fp16"], BOTH, "--precision bf16"),
        (["bf16"], BOTH, "--precision fp16"),
        (["fp16", "bf16"], BOTH, "--precision fp32"),
    ],
)
def test_a_half_graph_that_is_wrong_is_named_and_how_to_do_without(
    place: Path, wrong: Wrong, missed: list[Half], options: ExportOptions, remedy: str
) -> None:
    for precision in missed:
        wrong("z_k", 0.5, precision)
    message = assert_fails(place, ParityError, options)
    for precision in missed:
        assert f"\n  local.z_k in {precision}: differs by 0.5 on average, limit 0." in message
    assert message.endswith(f"lose too much in {' and '.join(missed)}: export without it, with {remedy}.")


def test_winograd_form_is_made_of_the_local_graph_and_compared(tmp_path: Path, wrong: Wrong) -> None:
    bundle = export_bundle(WEIGHTS, tmp_path / "bundle", ExportOptions(precisions=(), winograd=True))
    assert bundle.read(WINOGRAD_FILE) == b"fast local fp32"
    rows = [row.output for row in bundle.manifest.parity]
    assert [name for name in rows if "winograd" in name] == ["winograd.local.saliency_patches", "winograd.local.z_k"]
    plain = export_bundle(WEIGHTS, tmp_path / "plain", ExportOptions(precisions=()))
    assert WINOGRAD_FILE not in plain.files
    assert [row.output for row in plain.manifest.parity] == [name for name in rows if "winograd" not in name]


def test_winograd_form_that_is_wrong_is_named_and_how_to_do_without(place: Path, wrong: Wrong) -> None:
    wrong("z_k", 1e-3, "winograd")
    message = assert_fails(place, ParityError, ExportOptions(winograd=True))
    assert "\n  winograd.local.z_k: differs by 0.001, limit 0.0001\n" in message
    assert message.endswith(
        " lose too much in Winograd's form: export without --winograd, and without --precision auto."
    )


def test_rounding_of_half_graphs_is_no_fault(tmp_path: Path, wrong: Wrong) -> None:
    wrong("z_k", 1e-3, "fp16")
    bundle = export_bundle(WEIGHTS, tmp_path / "bundle", ExportOptions())
    row = next(r for r in bundle.manifest.parity if (r.precision, r.output) == ("fp16", "local.z_k"))
    assert row.passed
    assert row.mean_abs == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("output", ["global.z_g", "local.z_k", "fusion.saliency"])
def test_a_wrong_graph_makes_no_bundle(place: Path, wrong: Wrong, output: str) -> None:
    wrong(output.split(".")[1], 1e-3)
    message = assert_fails(place, ParityError)
    # the chain compares none of the three, so that one row stands alone
    assert message.startswith("1 of 19 outputs disagree with the PyTorch reference; no bundle was written:\n")
    assert f"\n  {output}: differs by 0.001, limit 0.0001\n" in message


def test_a_wrong_graph_is_wrong_in_the_chain_too(place: Path, wrong: Wrong) -> None:
    wrong("y_local", 1e-3)
    message = assert_fails(place, ParityError)
    assert "  fusion.y_local: differs by 0.001, " in message
    assert "  chain.y_local: differs by 0.001, " in message


def test_a_chain_that_differs_where_no_graph_does(place: Path, wrong: Wrong, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong("y_local", 1e-3)
    monkeypatch.setattr(exporter, "compare_graphs", lambda *ignored, **precision: [])
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
        Comparison(name="global.z_g", max_abs=0.01234, mean_abs=0.001, limit=0.0005),
        Comparison(name="fusion.y_local", max_abs=1e-6, mean_abs=1e-7, limit=1e-4),
        Comparison(name="chain.patch_locations", max_abs=np.inf, mean_abs=np.inf, limit=0.0),
        Comparison(name="local.z_k", precision="fp16", max_abs=np.inf, mean_abs=np.inf, limit=0.01),
    ]
    with pytest.raises(ParityError) as caught:
        exporter._require(table)
    lines = str(caught.value).splitlines()
    assert lines[0] == "3 of 4 outputs disagree with the PyTorch reference; no bundle was written:"
    assert lines[1] == "  global.z_g: differs by 0.0123, limit 0.0005"
    assert lines[2] == "  chain.patch_locations: differs by inf, limit 0"
    assert lines[3] == "  local.z_k in fp16: differs by inf on average, limit 0.01"
    assert "report" in lines[4]
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
    assert content.keys() == {*graph_files(*PRECISIONS), GOLDEN_FILE, CHECKPOINT_FILE}


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
