"""The CSV file of predictions that the published evaluations of GMIC and GLAM use: reading and writing.

A row for each image with image_index, benign_pred, malignant_pred, benign_label, malignant_label; predictions with four
decimals, labels 0 or 1 of the breast, not of the image. Source: the published inference of GMIC.
"""

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from glam_bench.evaluation.csv_tables import Row, read_rows
from glam_bench.evaluation.labelled import LabelledImage, LabelledSet
from glam_bench.evaluation.plain_list import CLASSES, LABELS
from glam_deploy.errors import UsageError
from glam_deploy.records import View

PREFIX = "predictions-"
"""Beginning of the names of the files that an evaluation writes; the rest is the name of the network."""
SCORE = "prediction"
"""Name of the only score of a file of predictions."""
COLUMNS = ("image_index", *(f"{label}_pred" for label in CLASSES), *(f"{label}_label" for label in CLASSES))
_EXAM = re.compile(r"(.+?)[-_]([LR])[-_]?(CC|MLO)", re.IGNORECASE)
"""image_index of the published samples, such as 0_L-CC: exam, side, projection."""


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """A file of predictions."""

    name: str
    """Of the network: the name of the file, without suffix and PREFIX."""
    scores: Mapping[str, Mapping[str, float]]
    """image_index -> class -> prediction, 0..1."""
    labelled: LabelledSet
    """The labels in the file; the exam is what precedes the view in image_index, or the whole image_index."""


def image_index(name: str) -> str:
    """The image_index of an image of a labelled set: its name without suffix."""
    return PurePosixPath(name).with_suffix("").as_posix()


def read_predictions(path: Path) -> Predictions:
    """Read a file of predictions. Raises UsageError with line and value for a row that is wrong."""
    scores: dict[str, dict[str, float]] = {}
    images = []
    for row in read_rows(path, COLUMNS):
        index = row.cells["image_index"]
        if not index or index in scores:
            raise row.wrong("image_index", "a name, each once")
        scores[index] = {label: _score(row, f"{label}_pred") for label in CLASSES}
        images.append(_image(row, path))
    remarks = (f"The labels are those of {path.name}.",)
    labelled = LabelledSet(name=path.stem, level="breast", images=tuple(images), remarks=remarks)
    return Predictions(name=path.stem.removeprefix(PREFIX), scores=scores, labelled=labelled)


def match(found: Predictions, labelled: LabelledSet, path: Path) -> dict[str, Mapping[str, float]]:
    """Name of each image of the set that has a prediction -> class -> prediction; other rows are left out.

    An image_index is the name of an image without suffix, or the last part of it where that is unique. Raises
    UsageError if no image has one.
    """
    by_part: dict[str, list[str]] = {}
    for image in labelled.images:
        whole = image_index(image.name)
        for key in {whole, PurePosixPath(whole).name}:
            by_part.setdefault(key, []).append(image.name)
    unique = {key: names[0] for key, names in by_part.items() if len(names) == 1}
    named = {unique[index]: scores for index, scores in found.scores.items() if index in unique}
    if not named:
        first = next(iter(found.scores))
        raise UsageError(
            f"{path}: no image_index, such as {first!r}, is the name of an image of {labelled.name} without suffix, "
            f"such as {image_index(labelled.images[0].name)!r}: check --labels"
        )
    return named


Labels = Mapping[str, bool | None]
"""Class -> label; None for unknown."""


def write_predictions(
    path: Path, labelled: LabelledSet, scores: Mapping[str, Mapping[str, float]], labels: Mapping[str, Labels]
) -> None:
    """Write the final scores of one network, in the order of the set.

    `scores`: name of an image -> class -> score; images without are left out. `labels`: name -> class -> label of the
    breast; unknown labels are empty cells.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for image in labelled.images:
            if found := scores.get(image.name):
                writer.writerow(_cells(image, found, labels[image.name]))


def _cells(image: LabelledImage, scores: Mapping[str, float], labels: Labels) -> Iterable[str]:
    known = ("" if (label := labels.get(name)) is None else str(int(label)) for name in CLASSES)
    return [image_index(image.name), *(f"{scores[name]:.4f}" for name in CLASSES), *known]


def _image(row: Row, path: Path) -> LabelledImage:
    index = row.cells["image_index"]
    known = _EXAM.fullmatch(index)
    return LabelledImage(
        name=index,
        path=path.parent / index,
        view=View(f"{known[2]}-{known[3]}".upper()) if known else None,
        exam=known[1] if known else index,
        labels={label: _label(row, f"{label}_label") for label in CLASSES},
    )


def _score(row: Row, column: str) -> float:
    try:
        value = float(row.cells[column])
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise row.wrong(column, "a number from 0 to 1")
    return value


def _label(row: Row, column: str) -> bool | None:
    text = row.cells[column].removesuffix(".0")
    if text not in LABELS:
        raise row.wrong(column, "1, 0, or nothing for unknown")
    return LABELS[text]
