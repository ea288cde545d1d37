"""The CSV file of predictions that the published evaluations of GMIC and GLAM use: reading and writing.

A row for each image with image_index, benign_pred, malignant_pred, benign_label, malignant_label; predictions with four
decimals, labels 0 or 1 of the breast, not of the image. Source: the published inference of GMIC. An image_index is
escaped as the names in all tables are (`table.harmless`), and escaped names are recognized.
"""

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from glam_bench.evaluation.csv_tables import Row, read_rows
from glam_bench.evaluation.labelled import LabelledImage, LabelledSet
from glam_bench.evaluation.plain_list import CLASSES, label_in
from glam_deploy.decimals import decimal
from glam_deploy.durable import write_whole
from glam_deploy.errors import UsageError, counted
from glam_deploy.input_files import SUFFIXES
from glam_deploy.outputs.table import harmless
from glam_deploy.records import View

PREFIX = "predictions-"
"""Beginning of the names of the files that an evaluation writes; the rest is the name of the network."""
SCORE = "prediction"
"""Name of the only score of a file of predictions."""
_SCORES = ("image_index", *(f"{label}_pred" for label in CLASSES))
_LABELS = tuple(f"{label}_label" for label in CLASSES)
COLUMNS = (*_SCORES, *_LABELS)
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
    """Name of an image without the suffix of an image file; other suffixes, such as parts of a UID, are kept."""
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in SUFFIXES else name


def read_predictions(path: Path, *, labels: bool = True) -> Predictions:
    """Read a file of predictions. Raises UsageError with line and value for a row that is wrong.

    `labels`: whether the file must have labels, because no list states them.
    """
    scores: dict[str, dict[str, float]] = {}
    images = []
    required, optional = (COLUMNS, ()) if labels else (_SCORES, _LABELS)
    for row in read_rows(path, required, optional):
        index = row.cells["image_index"]
        if not index or index in scores:
            raise row.wrong("image_index", "a name, each once")
        scores[index] = {label: _score(row, f"{label}_pred") for label in CLASSES}
        images.append(_image(row, path))
    remarks = (f"The labels are those of {path.name}.", *_alike(scores))
    labelled = LabelledSet(name=path.stem, level="breast", images=tuple(images), remarks=remarks)
    return Predictions(name=path.stem.removeprefix(PREFIX), scores=scores, labelled=labelled)


def _alike(names: Collection[str]) -> Iterator[str]:
    """A remark on names that differ in the suffix of an image file only, which may be those of one image."""
    count = Counter(map(image_index, names))
    if alike := [name for name in names if count[image_index(name)] > 1]:
        yield (
            f"{counted(len(alike), 'row')} count as images of their own, though their names differ in the suffix only, "
            f"such as {alike[0]}."
        )


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Predictions of the images of a labelled set."""

    scores: Mapping[str, Mapping[str, float]]
    """Name of each image that has a row -> class -> prediction."""
    remarks: tuple[str, ...]
    """Counts of rows without image and of images without row."""


def match(found: Predictions, labelled: LabelledSet, path: Path) -> Matched:
    """Find the image of each row.

    An image_index is the name of an image; or this name without the suffix of an image file; or the last part of the
    latter. The first of these that any image has is taken, and only where one image has it. Raises UsageError if two
    rows are of one image, or if no row is of any.
    """
    tiers = [_unique(labelled, key) for key in (str, image_index, _last_part)]
    rows: dict[str, str] = {}
    for index in found.scores:
        name = next((tier[index] for tier in tiers if index in tier), None)
        if name and (other := rows.setdefault(name, index)) != index:
            raise UsageError(
                f"{path}: the rows {other!r} and {index!r} are both of the image {name}, expected one row: remove one"
            )
    if not rows:
        first = next(iter(found.scores))
        raise UsageError(
            f"{path}: no image_index, such as {first!r}, is the name of an image of {labelled.name} without suffix, "
            f"such as {image_index(labelled.images[0].name)!r}: check --labels"
        )
    return Matched(
        scores={name: found.scores[index] for name, index in rows.items()},
        remarks=tuple(_unmatched(found, labelled, path, rows)),
    )


def _unmatched(found: Predictions, labelled: LabelledSet, path: Path, rows: Mapping[str, str]) -> Iterator[str]:
    matched = set(rows.values())
    if others := [index for index in found.scores if index not in matched]:
        yield (
            f"{path.name}: {counted(len(others), 'row')} left out, such as {others[0]}, because no image or more than "
            "one has this name."
        )
    if missing := [image.name for image in labelled.images if image.name not in rows]:
        yield f"{path.name}: {counted(len(missing), 'image')} without a row, such as {missing[0]}."


def _unique(labelled: LabelledSet, key: Callable[[str], str]) -> dict[str, str]:
    """Key of an image's name, as it is and escaped -> the name; only keys that no two images have."""
    pairs = {(form, image.name) for image in labelled.images for form in (key(image.name), harmless(key(image.name)))}
    count = Counter(form for form, _ in pairs)
    return {form: name for form, name in pairs if count[form] == 1}


def _last_part(name: str) -> str:
    return PurePosixPath(image_index(name)).name


Labels = Mapping[str, bool | None]
"""Class -> label; None for unknown."""


def write_predictions(
    path: Path, labelled: LabelledSet, scores: Mapping[str, Mapping[str, float]], labels: Mapping[str, Labels]
) -> None:
    """Write the final scores of one network, in the order of the set; an image_index has a suffix only if it needs it.

    `scores`: name of an image -> class -> score; images without are left out. `labels`: name -> class -> label of the
    breast; unknown labels are empty cells.
    """
    count = Counter(key for image in labelled.images for key in {image.name, image_index(image.name)})
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for image in labelled.images:
        if found := scores.get(image.name):
            short = image_index(image.name)
            index = short if count[short] == 1 else image.name
            writer.writerow(_cells(harmless(index), found, labels[image.name]))
    write_whole(path, stream.getvalue().encode())


def _cells(index: str, scores: Mapping[str, float], labels: Labels) -> Iterable[str]:
    known = ("" if (label := labels.get(name)) is None else str(int(label)) for name in CLASSES)
    return [index, *(f"{scores[name]:.4f}" for name in CLASSES), *known]


def _image(row: Row, path: Path) -> LabelledImage:
    index = row.cells["image_index"]
    known = _EXAM.fullmatch(index)
    return LabelledImage(
        name=index,
        path=path.parent / index,
        view=View(f"{known[2]}-{known[3]}".upper()) if known else None,
        exam=known[1] if known else index,
        labels={label: label_in(row, f"{label}_label") for label in CLASSES},
    )


def _score(row: Row, column: str) -> float:
    value = decimal(row.cells[column])
    if value is None or not 0 <= value <= 1:
        raise row.wrong(column, "a number from 0 to 1")
    return value
