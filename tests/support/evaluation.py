"""Small labelled lists with their images and masks, and a made-up evaluation, for tests of `glam-deploy evaluate`."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from glam_bench.evaluation import page
from glam_bench.evaluation.evaluate import Evaluated, evaluate
from glam_bench.evaluation.labelled import LabelledImage, LabelledSet, Outline, Rectangle
from glam_bench.evaluation.overlap import THRESHOLDS, Marks, Overlap
from glam_bench.evaluation.pictures import SHAPE, Pictures, choose
from glam_bench.evaluation.records import Evaluation, ModelFacts
from glam_bench.evaluation.store import ImageRun
from glam_bench.evaluation.units import Scored
from glam_deploy.cli.main import exit_code
from glam_deploy.images.image_files import MASK_VALUES
from glam_deploy.json_records import from_json
from glam_deploy.records import View
from support.commands import Said
from support.engines import small_view

HEADING = "file,view,exam,benign,malignant"
SPOT = (slice(200, 260), slice(100, 160))
"""The bright spot of `small_view`."""


def write_list(folder: Path, rows: list[str], name: str = "list.csv") -> Path:
    """Write a list with these rows."""
    path = folder / name
    path.write_text("\n".join([HEADING, *rows]) + "\n", "utf-8")
    return path


def write_exams(folder: Path, count: int = 2) -> Path:
    """`count` exams of two views: in every second one the L-CC view has a malignant spot with a mask.

    The other view has a benign spot elsewhere, without a mask. Returns the list.
    """
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows = []
    for exam in range(count):
        malignant = exam % 2 == 0
        spot = np.zeros(small_view().pixels.shape, np.uint8)
        spot[SPOT] = 200 * malignant
        _write(folder / f"images/{exam}_L-CC.png", bright=3000 + exam)
        cv2.imwrite(str(folder / f"masks/{exam}_L-CC_mask.png"), spot)
        _write(folder / f"images/{exam}_L-MLO.png", bright=2000 + exam)
        rows += [f"images/{exam}_L-CC.png,,{exam},0,{int(malignant)}", f"images/{exam}_L-MLO.png,L-MLO,{exam},1,0"]
    return write_list(folder, rows)


def _write(path: Path, bright: int) -> None:
    pixels = small_view().pixels.copy()
    pixels[SPOT] = bright
    cv2.imwrite(str(path), pixels)


def made_up(exams: int = 12) -> tuple[LabelledSet, list[Evaluated]]:
    """A set of four views an exam with three networks: made-up numbers for everything that a page shows."""
    images = [_image(exam, view) for exam in range(exams) for view in View]
    labelled = LabelledSet(name="made up", level="breast", images=tuple(images), remarks=("Labels are made up.",))
    random = np.random.default_rng(exams)
    networks = (
        ("cam", "CAM", ("global",)),
        ("gmic", "GMIC", ("global",)),
        ("glam", "GLAM", ("global", "local", "fused")),
    )
    return labelled, [_network(images, random, *network) for network in networks]


def _image(exam: int, view: View) -> LabelledImage:
    labels = {"benign": exam % 4 == 0 and view.is_right, "malignant": exam % 3 == 0 and not view.is_right}
    box = Rectangle(top=0, left=0, bottom=1, right=1)
    outlines = tuple(Outline(label=label, shape=box) for label, known in labels.items() if known)
    name = f"{exam}_{view}.png"
    return LabelledImage(name=name, path=Path(name), view=view, exam=str(exam), labels=labels, outlines=outlines)


def _network(
    images: list[LabelledImage], random: np.random.Generator, name: str, title: str, maps: tuple[str, ...]
) -> Evaluated:
    """The last image has failed."""
    runs = {image.name: _run(image, random, maps) for image in images[:-1]}
    lost = ImageRun(
        run="", image=images[-1].name, digest="", status="failed", reason="the png is damaged: export again"
    )
    facts = ModelFacts(
        name=name,
        title=title,
        final_score="y_global",
        final_map=maps[-1],
        engine="onnx",
        bundle="ab" * 32,
        images=len(runs),
        time_ms=1234.5,
    )
    scored = Scored(name=name, final="y_global", images={key: run.scores for key, run in runs.items()})
    return Evaluated(facts=facts, scored=scored, runs=runs, left_out=(lost,))


def _run(image: LabelledImage, random: np.random.Generator, maps: tuple[str, ...]) -> ImageRun:
    overlaps, marks = [], []
    for label, known in image.labels.items():
        for each in maps if known else ():
            soft = float(random.uniform(0.1, 0.8))
            curve = tuple(soft * (1 - (threshold - 0.4) ** 2) for threshold in THRESHOLDS)
            overlaps.append(Overlap(map=each, label=label, soft=soft, by_threshold=curve))
        scores = tuple(sorted(random.random(5).tolist(), reverse=True))
        hits = tuple(0 if known and random.random() < 0.3 else None for _ in scores)
        marks.append(Marks(label=label, lesions=int(bool(known)), scores=scores, hits=hits))
    noise = random.random(2) * 0.7
    values = {
        label: float(value + 0.3 * bool(image.labels[label])) for label, value in zip(MASK_VALUES, noise, strict=True)
    }
    return ImageRun(
        run="",
        image=image.name,
        digest="",
        status="done",
        view=image.view,
        scores={"y_global": values},
        overlaps=tuple(overlaps),
        marks=tuple(marks),
    )


def write_page(path: Path, *, suffix: str = "") -> Evaluation:
    """Write the page of `made_up`, with pictures; `suffix` is appended to the names of the networks and of the set."""
    labelled, models = made_up()
    labelled = replace(labelled, name=labelled.name + suffix)
    named = [replace(one, facts=replace(one.facts, name=one.facts.name + suffix)) for one in models]
    named = [replace(one, scored=replace(one.scored, name=one.facts.name)) for one in named]
    found = evaluate(labelled, named)
    pictures = Pictures(folder=path.parent / "pictures", images=choose(labelled.images)[:2])
    pictures.folder.mkdir(exist_ok=True)
    for image in pictures.images:
        for file in (pictures.input(image), *(pictures.of(one.facts.name, image) for one in named)):
            cv2.imwrite(str(file), np.zeros(SHAPE, np.uint8))
    page.write(path, found, pictures)
    return found


FOUR = """image_index,benign_pred,malignant_pred,benign_label,malignant_label
0_L-CC,0.1000,0.9000,0,1
0_R-CC,0.2000,0.6000,0,1
1_L-CC,0.3000,0.6000,0,0
2_L-CC,0.4000,0.2000,1,0
"""
"""The four images of test_statistics: malignant AUROC 7/8, average precision 5/6, Brier score 0.1425."""


def run_evaluate(capsys: pytest.CaptureFixture[str], *arguments: object) -> Said:
    code = exit_code(["evaluate", *map(str, arguments)])
    said = capsys.readouterr()
    return Said(code=code, out=said.out, err=said.err)


def result(out: Path) -> Evaluation:
    """evaluation.json, which its own records read strictly."""
    return from_json(Evaluation, json.loads((out / "evaluation.json").read_text()))
