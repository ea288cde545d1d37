"""metrics.csv and images.csv: every number of an evaluation in one line each, and every image."""

from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path

from glam_bench.evaluation.csv_tables import write_rows
from glam_bench.evaluation.labelled import LabelledSet
from glam_bench.evaluation.plain_list import CLASSES
from glam_bench.evaluation.records import (
    DEFINITIONS,
    Areas,
    Comparison,
    DiceSummary,
    Evaluation,
    Froc,
    Level,
    ModelResults,
    Rule,
)
from glam_bench.evaluation.store import ImageRun

METRICS, IMAGES = "metrics.csv", "images.csv"
SCORES = ("y_global", "y_local", "y_fusion")
MAPS = ("global", "local", "fused")
INTERVAL = "95 % percentile bootstrap interval over exams"

Cells = tuple[object, ...]


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A line of metrics.csv; its fields are the columns, without the network's."""

    label: str
    metric: str
    of: str
    """The score, the map or the second network."""
    level: Level = "image"
    rule: Rule = "image"
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int
    positive: int | None = None
    exams: int | None = None
    threshold: float | None = None
    """Of Dice at a threshold."""
    definition: str


def write_metrics(path: Path, found: Evaluation) -> None:
    """Write a line for each metric, with its definition."""
    rows = [(model.facts.name, *astuple(one)) for model in found.models for one in _metrics(model)]
    rows += [(one.first, *astuple(metric)) for one in found.comparisons for metric in _comparison(one)]
    write_rows(path, ("model", *(field.name for field in fields(Metric))), rows)


def _metrics(model: ModelResults) -> Iterator[Metric]:
    for area in model.areas:
        yield from _areas(area)
    for dice in model.dice:
        yield from _dice(dice)
    for froc in model.froc:
        yield from _froc(froc)
    for found in model.calibration:
        n = sum(one.images for one in found.table.bins)
        values = {"expected calibration error": found.table.expected_error, "Brier score": found.table.brier}
        for name, value in values.items():
            yield Metric(
                label=found.label,
                metric=name,
                of=model.facts.final_score,
                value=value,
                n=n,
                definition="scores are not calibrated probabilities",
            )


def _areas(area: Areas) -> Iterator[Metric]:
    definitions = {"AUROC": "Mann-Whitney", "AUPRC": "average precision, not interpolated"}
    for name, estimate in (("AUROC", area.auroc), ("AUPRC", area.auprc)):
        yield Metric(
            label=area.label,
            metric=name,
            of=area.score,
            level=area.level,
            rule=area.rule,
            value=estimate.value if estimate else None,
            low=estimate.low if estimate else None,
            high=estimate.high if estimate else None,
            n=area.units,
            positive=area.positive,
            exams=area.exams,
            definition=f"{definitions[name]}; {INTERVAL}",
        )


def _dice(dice: DiceSummary) -> Iterator[Metric]:
    definition = DEFINITIONS[dice.definition]
    if dice.threshold is not None:
        definition += f", threshold {dice.threshold:g} chosen on {dice.chosen_on}"
    mean = Metric(
        label=dice.label,
        metric=f"mean Dice, {dice.definition}",
        of=dice.map,
        value=dice.mean.value,
        low=dice.mean.low,
        high=dice.mean.high,
        n=dice.images,
        exams=dice.exams,
        threshold=dice.threshold,
        definition=f"{definition}; {INTERVAL}",
    )
    yield mean
    said = f"{definition}; sample standard deviation over images"
    yield replace(
        mean,
        metric=f"standard deviation of Dice, {dice.definition}",
        value=dice.deviation,
        low=None,
        high=None,
        definition=said,
    )


def _froc(froc: Froc) -> Iterator[Metric]:
    for most, sensitivity in froc.at:
        yield Metric(
            label=froc.label,
            metric=f"FROC sensitivity at {most:g}",
            of="final map",
            value=sensitivity,
            n=froc.images,
            positive=froc.lesions,
            definition=f"highest share of lesions (column positive) with at most {most:g} false positives per image",
        )


def _comparison(one: Comparison) -> Iterator[Metric]:
    difference = Metric(
        label=one.label,
        metric="AUROC difference",
        of=one.second,
        level=one.level,
        rule=one.rule,
        value=one.bootstrap.value,
        low=one.bootstrap.low,
        high=one.bootstrap.high,
        n=one.units,
        positive=one.positive,
        exams=one.exams,
        definition=f"minus that of the network in the column of; paired; {INTERVAL}",
    )
    yield difference
    if test := one.delong:
        said = "DeLong; assumes independent units"
        yield replace(
            difference,
            metric="AUROC difference, DeLong",
            value=test.difference,
            low=test.low,
            high=test.high,
            definition=said,
        )
        yield replace(
            difference, metric="p of DeLong's test", value=test.p, low=None, high=None, definition=f"two-sided; {said}"
        )


def write_images(
    path: Path, labelled: LabelledSet, runs: Mapping[str, Mapping[str, ImageRun]], found: Evaluation
) -> None:
    """A line for each network and image, also for images that were left out, with the reason.

    `runs`: name of a network -> name of an image -> what was found; without files of predictions, which have no more.
    """
    columns = (
        *("model", "file", "exam", "view", "status", "reason"),
        *(f"{label}_label" for label in CLASSES),
        *(f"{score}_{label}" for score in SCORES for label in CLASSES),
        *(f"soft_dice_{name}_{label}" for name in MAPS for label in CLASSES),
        "time_ms",
    )
    reasons = {
        (model.facts.name, one.image): (one.status, one.reason) for model in found.models for one in model.left_out
    }
    rows = []
    for model, done in runs.items():
        for image in labelled.images:
            run = done.get(image.name)
            status = ("done", "") if run else reasons.get((model, image.name), ("", ""))
            view = run.view if run else image.view
            known = (image.labels.get(label) for label in CLASSES)
            labels = ("" if label is None else int(label) for label in known)
            rows.append((model, image.name, image.exam, view or "", *status, *labels, *_found(run)))
    write_rows(path, columns, rows)


def _found(run: ImageRun | None) -> Cells:
    if run is None:
        return ("",) * (len(CLASSES) * (len(SCORES) + len(MAPS)) + 1)
    soft = {(one.map, one.label): one.soft for one in run.overlaps}
    scores = (run.scores.get(score, {}).get(label, "") for score in SCORES for label in CLASSES)
    return (*scores, *(soft.get((name, label), "") for name in MAPS for label in CLASSES), run.time_ms)
