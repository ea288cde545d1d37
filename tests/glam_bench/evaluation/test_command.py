"""`glam-deploy evaluate` from the command line to its files, with a tiny bundle and with published predictions."""

import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from support.commands import start_process
from support.evaluation import FOUR, SPOT, result, run_evaluate, write_exams, write_list
from support.full_disk import largest_file
from support.tiny_bundle import write_tiny_bundle

import glam_deploy
from glam_bench.evaluation import job
from glam_bench.evaluation.labelled import LabelledSet, Outline, Rectangle
from glam_bench.evaluation.plain_list import read_list
from glam_bench.evaluation.records import DiceSummary, Evaluation
from glam_bench.evaluation.store import STORE
from glam_deploy.preprocess import map_to_network

metrics = pytest.importorskip("sklearn.metrics")

BOX = Rectangle(top=200, left=100, bottom=260, right=160)
"""Around the spot of `small_view`."""


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_four_predictions_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "four.csv").write_text(FOUR)
    said = run_evaluate(capsys, "--predictions", tmp_path / "four.csv", "--out", tmp_path / "out")
    assert (said.code, said.err) == (0, "")
    assert "0.875" in said.out
    lines = rows(tmp_path / "out/metrics.csv")
    found = {(row["label"], row["metric"], row["level"], row["rule"]): row for row in lines}
    area = found["malignant", "AUROC", "image", "image"]
    assert (area["value"], area["low"], area["n"], area["positive"], area["exams"]) == ("0.875", "", "4", "2", "3")
    assert float(found["malignant", "AUPRC", "image", "image"]["value"]) == pytest.approx(5 / 6)
    assert found["malignant", "AUROC", "exam", "mean"]["value"] == "1.0"  # 0.75 against 0.6 and 0.2
    assert float(found["malignant", "Brier score", "image", "image"]["value"]) == pytest.approx(0.1425)
    assert (tmp_path / "out/predictions-four.csv").read_text() == FOUR
    one = result(tmp_path / "out")
    assert one.remarks == ("The labels are those of four.csv.",)
    assert (one.label_level, one.images, one.exams, one.positive) == ("breast", 4, 3, {"benign": 1, "malignant": 2})


def sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def test_a_full_disk_leaves_no_half_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "four.csv").write_text(FOUR)
    words = ("--predictions", tmp_path / "four.csv", "--out")
    run_evaluate(capsys, *words, tmp_path / "whole")
    whole = sizes(tmp_path / "whole")
    assert len(whole) == 5
    for name, size in whole.items():
        out = tmp_path / f"without {name}"
        with largest_file(size - 1):
            said = run_evaluate(capsys, *words, out)
        assert (said.code, said.err.count("\n")) == (2, 1) and "File too large" in said.err
        assert sizes(out).items() <= whole.items()
        assert name not in sizes(out)


def test_predictions_that_were_written_are_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "four.csv").write_text(FOUR)
    assert run_evaluate(capsys, "--predictions", tmp_path / "four.csv", "--out", tmp_path / "a").code == 0
    again = tmp_path / "a/predictions-four.csv"
    assert run_evaluate(capsys, "--predictions", again, "--out", tmp_path / "b").code == 0
    first, second = (result(tmp_path / out).models[0] for out in ("a", "b"))
    assert first == second
    said = run_evaluate(capsys, "--predictions", again, "--predictions", tmp_path / "four.csv", "--out", tmp_path / "c")
    assert (said.code, "have the name four, expected different names" in said.err) == (2, True)


def dice_by_definition(folder: Path, bundle: Path, name: str) -> float:
    """Soft Dice of the fused malignant map over all pixels of the network frame."""
    with glam_deploy.load(bundle) as pipeline:
        found = pipeline(folder / "images" / name)
    spot = np.zeros((500, 400), bool)
    spot[SPOT] = True
    mask, saliency = map_to_network(found.input.placement, spot), found.saliency()[1].astype(float)
    return float(2 * saliency[mask].sum() / (saliency.sum() + mask.sum()))


@pytest.mark.slow
def test_a_bundle_on_a_list(tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten exams, so that there are intervals; one file cannot be read, and one is a mask by its name."""
    labels = write_exams(tmp_path, 10)
    (tmp_path / "images/9_L-MLO.png").write_bytes(b"no picture")
    (tmp_path / "images/8_L-MLO.png").rename(tmp_path / "images/8_L-MLO_mask.png")
    labels.write_text(labels.read_text().replace("images/8_L-MLO.png", "images/8_L-MLO_mask.png"))
    out = tmp_path / "out"
    arguments = ("--labels", labels, "--masks", tmp_path / "masks", "--bundle", bundle, "--out", out)
    said = run_evaluate(capsys, *arguments)
    assert said.code == 1
    assert "failed  images/9_L-MLO.png" in said.out
    found = result(out)
    (model,) = found.models
    assert [(one.image, one.status) for one in model.left_out] == [
        ("images/8_L-MLO_mask.png", "skipped"),
        ("images/9_L-MLO.png", "failed"),
    ]
    assert (model.facts.images, model.facts.final_score, model.facts.final_map) == (18, "y_global", "fused")
    images = rows(out / "images.csv")
    assert [(row["status"], row["file"]) for row in images[-2:]] == [
        ("done", "images/9_L-CC.png"),
        ("failed", "images/9_L-MLO.png"),
    ]
    _compare_with_scikit_learn(images, model)
    (soft, at), curve = [one for one in model.dice if one.map == "fused"], model.dice_curves[0]
    assert (soft.images, soft.exams, soft.definition, soft.mean.low) == (5, 5, "soft", None)
    dices = [dice_by_definition(tmp_path, bundle, f"{exam}_L-CC.png") for exam in (0, 2, 4, 6, 8)]
    assert soft.mean.value == pytest.approx(np.mean(dices), abs=1e-6)
    assert soft.deviation == pytest.approx(np.std(dices, ddof=1), abs=1e-6)
    assert at.chosen_on == "same images: optimistic"
    assert at.mean.value == pytest.approx(max(curve.mean))
    assert [one.image for one in model.global_local] == [f"images/{exam}_L-CC.png" for exam in (0, 2, 4, 6, 8)]
    (froc,) = model.froc
    assert (froc.label, froc.lesions, froc.images, froc.curve.up[-1]) == ("malignant", 5, 18, 1.0)


def _compare_with_scikit_learn(images: list[dict[str, str]], model: Any) -> None:
    done = [row for row in images if row["status"] == "done"]
    for label in ("benign", "malignant"):
        labels = [int(row[f"{label}_label"]) for row in done]
        scores = [float(row[f"y_local_{label}"]) for row in done]
        (area,) = [one for one in model.areas if (one.label, one.score, one.level) == (label, "y_local", "image")]
        assert area.auroc.value == pytest.approx(metrics.roc_auc_score(labels, scores))
        assert area.auprc.value == pytest.approx(metrics.average_precision_score(labels, scores))
        assert area.auroc.low is not None


def test_names_that_are_not_utf8(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such names come with the folders of labelled sets; one of the images cannot be read."""
    read = read_list(write_exams(tmp_path, 1))
    names = ("D1-\udcff/L-CC.png", "D1-\udcfe/L-MLO.png")
    images = [replace(image, name=name, exam=name) for image, name in zip(read.images, names, strict=True)]
    images[1].path.write_bytes(b"no picture")
    labelled = replace(read, images=tuple(images))
    monkeypatch.setattr(job, "bench_module", lambda _: SimpleNamespace(open_dataset=lambda *_, **__: labelled))
    arguments = ("--dataset", "cmmd", tmp_path, "--bundle", bundle, "--out", tmp_path / "out")
    for resume in ((), ("--resume",)):
        said = run_evaluate(capsys, *arguments, *resume)
        assert (said.code, "failed  D1-" in said.out) == (1, True)
    assert [row["file"] for row in rows(tmp_path / "out/images.csv")] == ["D1-\\udcff/L-CC.png", "D1-\\udcfe/L-MLO.png"]
    assert "D1-\\udcff/L-CC," in (tmp_path / "out/predictions-tiny.csv").read_text()
    assert len((tmp_path / "out" / STORE).read_text().splitlines()) == 1 + 1 + 2


def test_missing_labels_and_outlines_are_told(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No label of one class is known; one of three boxes is outside of the image of 500 x 400 pixels."""
    read = read_list(write_exams(tmp_path, 1))
    boxes = (BOX, Rectangle(top=600, left=0, bottom=700, right=50), Rectangle(top=499, left=399, bottom=600, right=500))
    outlines = tuple(Outline(label="malignant", shape=box) for box in boxes)
    labels: dict[str, bool | None] = {"benign": None, "malignant": True}
    labelled = replace(read, images=tuple(replace(one, outlines=outlines, labels=labels) for one in read.images[:1]))
    monkeypatch.setattr(job, "bench_module", lambda _: SimpleNamespace(open_dataset=lambda *_, **__: labelled))
    said = run_evaluate(capsys, "--dataset", "cmmd", tmp_path, "--bundle", bundle, "--out", tmp_path / "out")
    assert said.code == 0
    assert result(tmp_path / "out").remarks == (
        "No image has a known label of the class benign: there are no areas under curves for it.",
        "1 outline without a pixel in the image, such as in images/0_L-CC.png: no lesion is counted there.",
    )


def at_threshold(found: Evaluation) -> DiceSummary:
    """Of the fused map."""
    return next(one for one in found.models[0].dice if (one.map, one.definition) == ("fused", "threshold"))


def test_thresholds_from_a_validation_list(tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The validation image's mask is much larger than the spot, so that the lowest threshold is its best."""
    labels = write_exams(tmp_path, 4)
    cv2.imwrite(str(tmp_path / "masks/2_L-CC_mask.png"), np.full((500, 400), 200, np.uint8))
    _, first, other, *_ = labels.read_text().splitlines()
    write_list(tmp_path, [first, other])
    validation = write_list(tmp_path, ["images/2_L-CC.png,,2,0,1"], "validation.csv")
    arguments = ("--labels", labels, "--masks", tmp_path / "masks", "--bundle", bundle)
    assert run_evaluate(capsys, *arguments, "--out", tmp_path / "a", "--validation", validation).code == 0
    assert run_evaluate(capsys, *arguments, "--out", tmp_path / "b").code == 0
    chosen, same = (at_threshold(result(tmp_path / out)) for out in ("a", "b"))
    assert (chosen.chosen_on, chosen.threshold, chosen.images) == ("validation list", 0.01, 1)
    assert same.chosen_on == "same images: optimistic"
    assert same.threshold is not None
    assert same.threshold > 0.01
    assert same.mean.value > chosen.mean.value


def test_a_bundle_beside_predictions(tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The predictions know the labels: their AUROC is 1, and the difference is the bundle's minus 1."""
    labels, out = write_exams(tmp_path, 4), tmp_path / "out"
    images = [line.split(",") for line in labels.read_text().splitlines()[1:]]
    told = [f"{Path(file).stem},0.5,{0.6 + 0.3 * int(malignant)},," for file, _, _, _, malignant in images]
    (tmp_path / "told.csv").write_text("\n".join([FOUR.splitlines()[0], *told]) + "\n")
    said = run_evaluate(
        capsys, "--labels", labels, "--bundle", bundle, "--predictions", tmp_path / "told.csv", "--out", out
    )
    assert said.code == 0
    found = result(out)
    one = next(one for one in found.comparisons if (one.label, one.level) == ("malignant", "image"))
    areas = {
        model.facts.name: area.auroc.value
        for model in found.models
        for area in model.areas
        if (area.label, area.score, area.level) == ("malignant", model.facts.final_score, "image") and area.auroc
    }
    assert areas["told"] == 1
    assert (one.first, one.second, one.units) == ("tiny", "told", 8)
    assert one.bootstrap.value == pytest.approx(areas["tiny"] - 1)
    assert [path.name for path in sorted(out.glob("predictions-*.csv"))] == [
        "predictions-tiny.csv",
        "predictions-told.csv",
    ]


def test_a_labelled_set_in_place_of_a_list(
    tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the labels of breasts, a box in place of a mask, and a remark; a part of it has no images."""
    read = read_list(write_exams(tmp_path, 1))
    first = replace(read.images[0], outlines=(Outline(label="malignant", shape=BOX),))
    labelled = LabelledSet(name="a set", level="breast", images=(first, read.images[1]), remarks=("A rule.",))
    asked: list[object] = []

    def open_dataset(name: str, folder: Path, *, split: str | None) -> LabelledSet:
        asked.append((name, folder, split))
        return labelled if split is None else replace(labelled, images=())

    monkeypatch.setattr(job, "bench_module", lambda name: SimpleNamespace(open_dataset=open_dataset))
    arguments = ("--dataset", "cmmd", tmp_path, "--bundle", bundle, "--out", tmp_path / "out")
    assert run_evaluate(capsys, *arguments).code == 0
    found = result(tmp_path / "out")
    assert (found.name, found.label_level, found.remarks) == ("a set", "breast", ("A rule.",))
    expected = dice_by_definition(tmp_path, bundle, "0_L-CC.png")
    assert found.models[0].dice[0].map == "fused"
    assert found.models[0].dice[0].mean.value == pytest.approx(expected, abs=1e-6)
    said = run_evaluate(capsys, *arguments, "--split", "test")
    assert (said.code, "a set has no image to evaluate" in said.err) == (2, True)
    assert asked == [("cmmd", tmp_path, None), ("cmmd", tmp_path, "test")]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "nothing to evaluate: name bundles with --bundle"),
        (["--bundle", "b"], "no labelled images: name a list with --labels"),
        (["--labels", "l", "--dataset", "cmmd", "d", "--bundle", "b"], "give one of them"),
        (["--dataset", "cmmd", "d", "--masks", "m", "--bundle", "b"], "--masks goes with --labels"),
        (["--labels", "l", "--split", "test", "--bundle", "b"], "--split is a part of a labelled set"),
        (["--labels", "l", "--validation", "v", "--bundle", "b"], "which need masks: add --masks"),
    ],
)
def test_options_that_contradict_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    said = run_evaluate(capsys, *arguments, "--out", tmp_path / "out")
    assert (said.code, said.out) == (2, "")
    assert told in said.err
    assert not (tmp_path / "out").exists()


def test_nothing_that_can_be_read(tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a_L-CC.png").write_bytes(b"no picture")
    labels = write_list(tmp_path, ["a_L-CC.png,,e,0,1"])
    said = run_evaluate(capsys, "--labels", labels, "--bundle", bundle, "--out", tmp_path / "out")
    assert said.code == 2
    assert "tiny: no image could be evaluated (1 image); the first, a_L-CC.png: the format of the content" in said.err


def test_the_view_is_asked_for_in_the_list(tmp_path: Path, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_exams(tmp_path, 1)
    (tmp_path / "images/0_L-CC.png").rename(tmp_path / "images/unknown.png")
    labels = write_list(tmp_path, ["images/unknown.png,,e,0,1", "images/0_L-MLO.png,,e,0,1"])
    said = run_evaluate(capsys, "--labels", labels, "--bundle", bundle, "--out", tmp_path / "out")
    assert said.code == 1
    assert "write it into the column view of the list" in said.out


def test_stopping_says_how_to_go_on(tmp_path: Path, bundle: Path) -> None:
    labels, out = write_exams(tmp_path), tmp_path / "out"
    code = (
        "from glam_deploy.cli.progress import ProgressDisplay as D; import os, signal; end = D.end\n"
        "def once(self, *a):\n    end(self, *a)\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "D.end = once\nfrom glam_deploy.cli.main import main; main()"
    )
    process = start_process("evaluate", "--labels", labels, "--bundle", bundle, "--out", out, code=code)
    said, err = process.communicate(timeout=120)
    assert process.returncode == 130, said + err
    assert f"to go on: glam-deploy evaluate --resume --labels {labels}" in err
    assert "1 of 4 images: 1 done" in err
    assert len((out / STORE).read_text().splitlines()) == 2


def test_two_bundles_of_one_name_have_the_folder_above_in_theirs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `demo --out a` and `demo --out b` leave them."""
    exams = write_exams(tmp_path / "images", 1)
    bundles = [write_tiny_bundle(tmp_path / name / "bundle") for name in ("a", "b")]
    chosen = [word for bundle in bundles for word in ("--bundle", bundle)]
    said = run_evaluate(capsys, "--labels", exams, *chosen, "--out", tmp_path / "out")
    assert said.code == 0, said.err
    assert [model.facts.name for model in result(tmp_path / "out").models] == ["a-bundle", "b-bundle"]
