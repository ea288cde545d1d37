"""How an export makes int8 graphs: what is calibrated, searched and written; the parts have tests of their own."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.search import point

from glam_deploy.bundle import graph_file
from glam_deploy.errors import UsageError
from glam_deploy.networks import GLAM, GLAM_CONCATENATION, STAGES
from glam_export import exporter
from glam_export.calibration import JUDGED, SEEDS, calibration, images_in, phantoms
from glam_export.exporter import FRONTIER_FILE, GOLDEN_SEED, ExportOptions
from glam_export.search import Found

CHECKPOINT: Any = SimpleNamespace(network=SimpleNamespace(spec=GLAM_CONCATENATION))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """FP32 graphs; whatever is dear is made up."""
    (tmp_path / "graphs").mkdir()
    for stage in STAGES:
        (tmp_path / graph_file(stage)).write_bytes(stage.encode())
    monkeypatch.setattr(exporter, "network_engines", lambda network: {"global": None})
    monkeypatch.setattr(exporter, "phantoms", lambda seeds=SEEDS: list(seeds))
    monkeypatch.setattr(exporter, "images_in", lambda place: [place.name])
    monkeypatch.setattr(exporter, "calibration", lambda engine, images: dict.fromkeys(("global", "local"), images))
    monkeypatch.setattr(exporter, "quantized", lambda graph, samples: graph + repr(samples).encode())
    return tmp_path


def written(folder: Path) -> dict[str, bytes]:
    return {stage: (folder / graph_file(stage, "int8")).read_bytes() for stage in ("global", "local")}


@pytest.mark.parametrize(("place", "images"), [(None, [*SEEDS]), (Path("mine"), ["mine"])])
def test_calibrated_on_phantoms_or_on_the_folder(folder: Path, place: Path | None, images: list[object]) -> None:
    options = ExportOptions(calibration=place)
    assert exporter._write_narrow_graphs(CHECKPOINT, folder, options, lambda step: None) is None
    assert written(folder) == {stage: stage.encode() + repr(images).encode() for stage in ("global", "local")}
    assert not (folder / FRONTIER_FILE).exists()


def test_a_search_replaces_the_graphs_and_leaves_its_plot(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(exporter, "searches", lambda *positional, **named: asked.update(named, images=positional[2]))
    chosen = Found(mixture={"local": "int8"}, graphs={"local": b"chosen"}, frontier=(point(),))
    monkeypatch.setattr(exporter, "search", lambda tasks, report: chosen)
    options = ExportOptions(search=True, patches=3)
    assert exporter._write_narrow_graphs(CHECKPOINT, folder, options, lambda step: None) is chosen
    assert written(folder) == {"global": b"global" + repr([*SEEDS]).encode(), "local": b"chosen"}
    assert (asked["images"], asked["patches"], asked["network"]) == ([*JUDGED], 3, GLAM_CONCATENATION)
    assert "int8 90%" in (folder / FRONTIER_FILE).read_text()


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
