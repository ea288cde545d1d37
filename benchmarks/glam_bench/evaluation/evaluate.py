"""An evaluation: runs the networks, computes every statistic, and writes the files."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

import glam_deploy
from glam_bench.evaluation import classification, localization, tables
from glam_bench.evaluation.labelled import LabelledImage, LabelledSet
from glam_bench.evaluation.overlap import map_names
from glam_bench.evaluation.plain_list import CLASSES
from glam_bench.evaluation.predictions import PREFIX, SCORE, Predictions, match, write_predictions
from glam_bench.evaluation.records import Evaluation, LeftOut, ModelFacts, ModelResults
from glam_bench.evaluation.run import Model, Runner
from glam_bench.evaluation.store import ImageRun
from glam_bench.evaluation.units import Scored, label_of, unit_key
from glam_deploy.durable import write_whole
from glam_deploy.errors import UsageError, counted
from glam_deploy.json_records import to_json
from glam_deploy.networks import final_score

JSON = "evaluation.json"


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """One network with what it found in the images."""

    facts: ModelFacts
    scored: Scored
    runs: Mapping[str, ImageRun] = field(default_factory=dict)
    """Name of an image -> what was found; images that are done. Empty for a file of predictions."""
    validation: Mapping[str, ImageRun] = field(default_factory=dict)
    """The same for the images on which thresholds are chosen."""
    left_out: tuple[ImageRun, ...] = ()
    remarks: tuple[str, ...] = ()
    """What a file of predictions does not have, and rows of no image."""


def run_models(
    runner: Runner, models: Sequence[Model], labelled: LabelledSet, validation: LabelledSet | None
) -> list[Evaluated]:
    """Run every network on every image, one network after another; closes each pipeline after its images.

    Raises UsageError if a network has no result at all.
    """
    found = []
    for model in models:
        with model.pipeline:
            runs = list(runner.run(model, labelled.images))
            others = list(runner.run(model, validation.images)) if validation else []
        found.append(_evaluated(model, runs, others))
    return found


def _evaluated(model: Model, runs: Sequence[ImageRun], validation: Sequence[ImageRun]) -> Evaluated:
    done = {run.image: run for run in runs if run.status == "done"}
    if not done:
        first = runs[0]
        raise UsageError(
            f"{model.name}: no image could be evaluated ({counted(len(runs), 'image')}); the first, {first.image}: "
            f"{first.reason.rstrip('.')}. Check the list"
        )
    made_by, network = model.pipeline.provenance, model.pipeline.network
    final = final_score(network.scores)
    facts = ModelFacts(
        name=model.name,
        title=network.title,
        final_score=final,
        final_map=map_names(network)[-1],
        engine=made_by["engine"]["name"],
        bundle=made_by["bundle"]["id"],
        patches=made_by["patches"] if network.selection else None,
        images=len(done),
        time_ms=median(run.time_ms for run in done.values()),
    )
    scored = Scored(
        name=model.name,
        final=final,
        images={name: run.scores for name, run in done.items()},
        sides={run.image: run.side for run in runs},
    )
    return Evaluated(
        facts=facts,
        scored=scored,
        runs=done,
        validation={run.image: run for run in validation if run.status == "done"},
        left_out=tuple(run for run in (*runs, *validation) if run.status != "done"),
    )


def from_predictions(found: Predictions, whole: LabelledSet, labelled: LabelledSet, path: Path) -> Evaluated:
    """A file of predictions in place of a network.

    `whole`: the set with all its images, of which `labelled` has those to evaluate. Raises UsageError if it has no
    image of `labelled`, and as `match`.
    """
    matched = match(found, whole, path)
    images = {one.name: {SCORE: row} for one in labelled.images if (row := matched.scores.get(one.name))}
    if not images:
        raise UsageError(f"{path} has a row for none of the {counted(len(labelled.images), 'image')}: raise --limit")
    facts = ModelFacts(name=found.name, title="predictions", final_score=SCORE, final_map=None, images=len(images))
    scored = Scored(name=found.name, final=SCORE, images=images)
    return Evaluated(facts=facts, scored=scored, remarks=matched.remarks)


def evaluate(
    labelled: LabelledSet,
    models: Sequence[Evaluated],
    *,
    validation: LabelledSet | None = None,
    remarks: Sequence[str] = (),
) -> Evaluation:
    """Compute every statistic. `validation`: the set on which thresholds are chosen."""
    return Evaluation(
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        release=glam_deploy.__version__,
        name=labelled.name,
        label_level=labelled.level,
        images=len(labelled.images),
        exams=len({image.exam for image in labelled.images}),
        positive={label: sum(image.labels.get(label) is True for image in labelled.images) for label in CLASSES},
        outlined={label: sum(_has_outline(image, label) for image in labelled.images) for label in CLASSES},
        validation=validation.name if validation else None,
        remarks=(*labelled.remarks, *remarks, *_remarks(labelled, models)),
        models=tuple(_results(labelled, model, validation) for model in models),
        comparisons=tuple(classification.comparisons(labelled, [model.scored for model in models])),
    )


def _remarks(labelled: LabelledSet, models: Sequence[Evaluated]) -> Iterator[str]:
    """Sentences on labels, outlines and predictions that are missing."""
    if unknown := [name for name in CLASSES if all(one.labels.get(name) is None for one in labelled.images)]:
        yield f"No image has a known label of the class {' or '.join(unknown)}: there are no areas under curves for it."
    empty = [run for model in models for run in (*model.runs.values(), *model.validation.values())]
    counts = {run.image: run.empty_outlines for run in empty if run.empty_outlines}
    if counts:
        outlines = counted(sum(counts.values()), "outline")
        yield f"{outlines} without a pixel in the image, such as in {next(iter(counts))}: no lesion is counted there."
    for model in models:
        yield from model.remarks


def _has_outline(image: LabelledImage, label: str) -> bool:
    return any(one.label == label for one in image.outlines)


def _results(labelled: LabelledSet, model: Evaluated, validation: LabelledSet | None) -> ModelResults:
    dice = list(localization.map_dice(labelled, model.runs))
    others = list(localization.map_dice(validation, model.validation)) if validation else []
    chosen = {(one.label, one.map): one for one in others}
    summaries = (localization.dice_summaries(one, chosen.get((one.label, one.map))) for one in dice)
    return ModelResults(
        facts=model.facts,
        left_out=tuple(LeftOut(image=run.image, status=run.status, reason=run.reason) for run in model.left_out),
        areas=tuple(classification.areas(labelled, model.scored)),
        curves=tuple(classification.curves(labelled, model.scored)),
        calibration=tuple(classification.calibrations(labelled, model.scored)),
        dice=tuple(one for both in summaries for one in both),
        dice_curves=tuple(localization.dice_curve(one) for one in dice),
        global_local=tuple(localization.global_against_local(dice)),
        froc=tuple(localization.frocs(labelled, model.runs)),
    )


def write(folder: Path, found: Evaluation, labelled: LabelledSet, models: Sequence[Evaluated]) -> list[Path]:
    """Write evaluation.json, metrics.csv, images.csv and a file of predictions for each network; returns the paths."""
    content = json.dumps(to_json(found), indent=1, allow_nan=False)
    paths = written(folder, [model.facts.name for model in models])
    write_whole(folder / JSON, f"{content}\n".encode())
    tables.write_metrics(folder / tables.METRICS, found)
    tables.write_images(
        folder / tables.IMAGES, labelled, {model.facts.name: model.runs for model in models if model.runs}, found
    )
    for model, path in zip(models, paths[3:], strict=True):
        scores = {name: values[model.facts.final_score] for name, values in model.scored.images.items()}
        write_predictions(path, labelled, scores, _breast_labels(labelled, model.scored))
    return paths


def written(folder: Path, names: Sequence[str]) -> list[Path]:
    """The files that `write` makes for networks of these names, those of predictions last."""
    shared = [folder / name for name in (JSON, tables.METRICS, tables.IMAGES)]
    return [*shared, *(folder / f"{PREFIX}{name}.csv" for name in names)]


def _breast_labels(labelled: LabelledSet, scored: Scored) -> dict[str, dict[str, bool | None]]:
    """Name of each image -> class -> label of its breast; that of the image where the side is unknown."""
    keys = {image.name: unit_key(image, scored, "breast") or image.name for image in labelled.images}
    breasts: dict[str, list[LabelledImage]] = {}
    for image in labelled.images:
        breasts.setdefault(keys[image.name], []).append(image)
    return {name: {label: label_of(breasts[key], label) for label in CLASSES} for name, key in keys.items()}
