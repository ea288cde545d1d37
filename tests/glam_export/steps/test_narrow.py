"""How an export makes int8 graphs: what is calibrated, searched and written; the parts have tests of their own."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.export import WEIGHTS, load_stub
from support.search import point

from glam_deploy.agreement.limits import Limits
from glam_deploy.bundle import graph_file
from glam_deploy.errors import UsageError
from glam_deploy.networks import GLAM, GLAM_CONCATENATION, STAGES
from glam_export.precision.calibration import JUDGED, SEEDS, calibration, images_in, phantoms
from glam_export.precision.search import SearchResult
from glam_export.steps import narrow
from glam_export.steps.base import Draft
from glam_export.steps.compare import GOLDEN_SEED
from glam_export.steps.load import first_manifest
from glam_export.steps.narrow import FRONTIER_FILE, PrepareImages, Quantize, SearchMixture


@pytest.fixture
def draft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Draft:
    """FP32 graphs; what takes long is made up."""
    (tmp_path / "graphs").mkdir()
    for stage in STAGES:
        (tmp_path / graph_file(stage)).write_bytes(stage.encode())
    monkeypatch.setattr(narrow, "network_engines", lambda network: {"global": None})
    monkeypatch.setattr(narrow, "phantoms", lambda seeds=SEEDS: list(seeds))
    monkeypatch.setattr(narrow, "images_in", lambda place: [place.name])
    monkeypatch.setattr(narrow, "calibration", lambda engine, images: dict.fromkeys(("global", "local"), images))
    monkeypatch.setattr(narrow, "quantized", lambda graph, samples: graph + repr(samples).encode())
    checkpoint = load_stub(WEIGHTS, key=None, ignore=())
    manifest = first_manifest(checkpoint, patches=3, precisions=("fp32", "int8"))
    return Draft(folder=tmp_path, checkpoint=checkpoint, manifest=manifest)


def quantize(draft: Draft, images: Path | None = None) -> Draft:
    for step in (PrepareImages(images=images), Quantize()):
        draft = step.run(draft, lambda line: None)
    return draft


def written(folder: Path) -> dict[str, bytes]:
    return {stage: (folder / graph_file(stage, "int8")).read_bytes() for stage in ("global", "local")}


@pytest.mark.parametrize(("place", "images"), [(None, [*SEEDS]), (Path("mine"), ["mine"])])
def test_calibrated_on_phantoms_or_on_the_folder(draft: Draft, place: Path | None, images: list[object]) -> None:
    quantized = quantize(draft, place)
    assert quantized.manifest.mixture is None
    assert written(draft.folder) == {stage: stage.encode() + repr(images).encode() for stage in ("global", "local")}
    assert not (draft.folder / FRONTIER_FILE).exists()


def test_a_search_replaces_the_graphs_and_leaves_its_plot(draft: Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def record(wide: object, narrow: object, images: object, **named: object) -> None:
        asked.update(named, images=images)

    monkeypatch.setattr(narrow, "stage_searches", record)
    chosen = SearchResult(mixture={"local": "int8"}, graphs={"local": b"chosen"}, frontier=(point(),))
    monkeypatch.setattr(narrow, "search", lambda tasks, report: chosen)
    step = SearchMixture(limits=Limits(), own_images=False)
    searched = step.run(quantize(draft), lambda line: None)
    assert (searched.manifest.mixture, searched.manifest.frontier) == (chosen.mixture, chosen.frontier)
    assert written(draft.folder) == {"global": b"global" + repr([*SEEDS]).encode(), "local": b"chosen"}
    assert (asked["images"], asked["patches"], asked["network"]) == ([*JUDGED], 3, GLAM_CONCATENATION)
    assert "int8 90%" in (draft.folder / FRONTIER_FILE).read_text()


def test_phantoms_that_judge_were_not_calibrated_on() -> None:
    assert not {*SEEDS} & {*JUDGED}
    assert GOLDEN_SEED not in {*SEEDS, *JUDGED}


def test_samples_are_real_images_and_the_patches_that_the_reference_chooses() -> None:
    """The global stage made up here sees a lesion of each class at one cell; the patches must hold it."""
    (image,) = phantoms(SEEDS[:1])
    saliency = np.zeros((1, 2, 184, 120), np.float32)
    saliency[0, 0, 60, 30] = saliency[0, 1, 120, 80] = 1
    found = {
        "saliency_global": saliency,
        "y_scale": np.zeros((1, 3, 2), np.float32),
        "z_g": np.zeros((1, 256), np.float32),
    }
    samples = calibration(SimpleNamespace(run=lambda inputs: found, network=GLAM), [image])  # type: ignore[arg-type]
    np.testing.assert_array_equal(samples["global"][0]["image"], image[None, None])
    assert image.std() == pytest.approx(1, abs=0.01)
    first, second = (sample["patches"] for sample in samples["local"])
    assert first.shape == second.shape == (1, 1, 512, 512)
    for patch in (first, second):
        rows, columns = 2944 - 512, 1920 - 512
        places = [(r, c) for r in range(0, rows + 1, 16) for c in range(0, columns + 1, 16)]
        assert any(np.array_equal(patch[0, 0, 0], image[r, c : c + 512]) for r, c in places)


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=str(tmp_path)):
        images_in(tmp_path)
