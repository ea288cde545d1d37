"""What an export leaves on disk, and that a failed one leaves nothing; engines cost nothing."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from support.bundles import snapshot
from support.engines import small_view
from support.export import WEIGHTS, assert_fails, graph_files

from glam_deploy.agreement.golden import GOLDEN_FILE
from glam_deploy.bundle import (
    CHECKPOINT_FILE,
    FUSION_WEIGHTS_FILE,
    MANIFEST,
    CheckpointEntry,
    open_bundle,
)
from glam_deploy.errors import BackendBuildError, UsageError
from glam_deploy.networks import STAGES
from glam_deploy.precision import Precision
from glam_export.exporter import ExportOptions, export_bundle
from glam_export.steps import compare, write


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
        "running the reference on the golden case",
        "writing the graphs in fp32",
        *(f"writing the graphs in fp32: {stage}" for stage in STAGES),
        "writing the graphs in fp16",
        "writing the graphs in fp16: global",
        "writing the graphs in fp16: local",
        "writing the weights",
        "writing the manifest",
        "comparing every graph with the reference",
    ]


@pytest.mark.usefixtures("wrong")
@pytest.mark.parametrize("keep", [True, False])
def test_weights_are_kept_only_if_asked(place: Path, keep: bool) -> None:
    export_bundle(WEIGHTS, place, ExportOptions(keep_checkpoint=keep))
    files = {*graph_files("fp32", "fp16"), FUSION_WEIGHTS_FILE, GOLDEN_FILE, *([CHECKPOINT_FILE] if keep else [])}
    assert snapshot(place).keys() == {MANIFEST, *files}
    assert open_bundle(place).files.keys() == files


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
    assert bundle.files.keys() == {*graph_files(*made), FUSION_WEIGHTS_FILE, GOLDEN_FILE}
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


@pytest.mark.usefixtures("wrong")
@pytest.mark.parametrize(
    ("module", "part"),
    [
        (write, "graph_modules"),
        (write, "write_graph"),
        (write, "save_weights"),
        (compare, "write_golden"),
        (compare, "open_engines"),
        (compare, "check_golden"),
    ],
)
def test_nothing_is_left_wherever_it_fails(
    place: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType, part: str
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise BackendBuildError("made up")

    monkeypatch.setattr(module, part, fail)
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
