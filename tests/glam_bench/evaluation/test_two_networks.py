"""`glam-deploy evaluate` with GLAM and GMIC on phantoms: scores and Dice are those of the pipelines themselves."""

import csv
import json
from pathlib import Path

import cv2
import pytest
from golden import network
from support.evaluation import write_list

from glam_deploy import load
from glam_deploy.cli.main import exit_code
from glam_deploy.preprocess import map_to_network

torch = pytest.importorskip("torch")

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles glam (demo weights) and gmic (weights of its golden cases), a demo exam with its masks, and its list."""
    from glam_export.demo.material import write_checkpoint, write_exam
    from glam_export.exporter import ExportOptions, export_bundle

    place = tmp_path_factory.mktemp("two")
    write_checkpoint(place / "glam.safetensors", "GLAM")
    torch.save(network.state_dict(network.GMIC), place / "gmic.p")
    for name in ("glam.safetensors", "gmic.p"):
        export_bundle(place / name, place / Path(name).stem, ExportOptions(precisions=("fp32",)))
    write_exam(place / "exam", place / "masks", 0)
    write_list(place, ["exam/L-CC.dcm,,e,1,0", "exam/R-CC.dcm,,e,0,1"])
    return place


def test_two_networks_on_phantoms(folder: Path) -> None:
    bundles = [argument for name in ("glam", "gmic") for argument in ("--bundle", str(folder / name))]
    options = ["--labels", str(folder / "list.csv"), "--masks", str(folder / "masks"), "--out", str(folder / "out")]
    assert exit_code(["evaluate", *options, *bundles, "--engine", "onnx"]) == 0
    with (folder / "out/images.csv").open(newline="") as file:
        rows = {(row["model"], row["file"]): row for row in csv.DictReader(file)}
    assert len(rows) == 4
    path, mask = folder / "exam/R-CC.dcm", cv2.imread(str(folder / "masks/R-CC.png"), cv2.IMREAD_UNCHANGED) == 200
    for name in ("glam", "gmic"):
        with load(folder / name, engine="onnx") as pipeline:
            result = pipeline(path)
        row = rows[name, "exam/R-CC.dcm"]
        assert float(row["y_fusion_malignant"]) == result.predictions["y_fusion"]["malignant"]
        placed, saliency = map_to_network(result.input.placement, mask), result.saliency()[1].astype(float)
        dice = 2 * saliency[placed].sum() / (saliency.sum() + placed.sum())
        column = "soft_dice_fused_malignant" if name == "glam" else "soft_dice_global_malignant"
        assert float(row[column]) == pytest.approx(dice, abs=1e-6)
    found = json.loads((folder / "out/evaluation.json").read_text())
    assert [model["facts"]["title"] for model in found["models"]] == ["GLAM", "GMIC"]
    assert len(list((folder / "out/pictures").iterdir())) == 2 * 3
    assert "GMIC" in (folder / "out/evaluation.html").read_text()
