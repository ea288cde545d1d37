"""`glam-deploy evaluate`: from its options to the files and the tables on standard output."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal

import click
from rich.table import Table

import glam_deploy
from glam_bench.evaluation import evaluate as evaluation
from glam_bench.evaluation import page
from glam_bench.evaluation.evaluate import Evaluated, from_predictions, run_models
from glam_bench.evaluation.labelled import LabelledSet
from glam_bench.evaluation.pictures import FOLDER, Pictures, choose
from glam_bench.evaluation.plain_list import read_list, require_own_masks
from glam_bench.evaluation.predictions import Predictions, read_predictions
from glam_bench.evaluation.records import DEFINITIONS, Evaluation
from glam_bench.evaluation.run import Model, Runner
from glam_bench.evaluation.statistics import Estimate
from glam_bench.evaluation.store import STORE, Store
from glam_deploy.cli import console
from glam_deploy.cli.bench import bench_module
from glam_deploy.cli.progress import ProgressDisplay, Tally
from glam_deploy.errors import UsageError, counted
from glam_deploy.outputs.writer import require_makeable, require_writable, writing_to


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The options of the command."""

    labels: Path | None
    masks: Path | None
    dataset: tuple[str, Path] | None
    """Name and folder of a labelled set."""
    split: str | None
    """Part of the labelled set."""
    validation: Path | None
    bundles: tuple[Path, ...]
    engines: tuple[str, ...]
    predictions: tuple[Path, ...]
    patches: int | None
    threads: int | None
    ungated: bool
    out: Path
    resume: bool
    limit: int | None
    pixels: Literal["examples", "none"]


def run(settings: Settings) -> int:
    """Evaluate; the exit code: 0, or 1 if an image could not be evaluated by an error.

    Raises UsageError for options that contradict each other and for lists that are wrong, and as `glam_deploy.load`.
    """
    _require_consistent(settings)
    require_makeable(settings.out)
    with console.working("reading the lists"):
        listed = bool(settings.labels or settings.dataset)
        predictions = [read_predictions(path, labels=not listed) for path in settings.predictions]
        whole = _labelled(settings, predictions)
        labelled, remarks = _limited(whole, settings.limit)
        validation = read_list(settings.validation, settings.masks) if settings.validation else None
        if settings.labels and validation:
            require_own_masks([*labelled.images, *validation.images])
    names = [*(name for _, name in _names(settings)), *(found.name for found in predictions)]
    _require_different(names)
    _require_free(settings, names)
    with console.working("opening the engines"):
        opened = _open(settings)
    pairs = zip(predictions, settings.predictions, strict=True)
    others = [from_predictions(found, whole, labelled, path) for found, path in pairs]
    require_writable(settings.out)
    with writing_to(settings.out):
        _pictures(settings, labelled).remove_others(names)
        store = Store(settings.out) if opened else None
        models = [*(_run(settings, store, opened, labelled, validation) if store else ()), *others]
        if store and store.damaged:
            remarks += (f"{counted(store.damaged, 'line')} of {STORE} not valid and therefore ignored.",)
        with console.working("computing statistics"):
            found = evaluation.evaluate(labelled, models, validation=validation, remarks=remarks)
            paths = evaluation.write(settings.out, found, labelled, models)
            page.write(settings.out / page.PAGE, found, _pictures(settings, labelled))
    _show(found)
    console.out.print(", ".join(map(str, [*paths, settings.out / page.PAGE])), soft_wrap=True)
    return 1 if any(one.status == "failed" for model in found.models for one in model.left_out) else 0


def _require_consistent(settings: Settings) -> None:
    """Raises UsageError."""
    if settings.labels and settings.dataset:
        raise UsageError("--labels and --dataset both name labelled images: give one of them")
    if not (settings.bundles or settings.predictions):
        raise UsageError("nothing to evaluate: name bundles with --bundle, or files of predictions with --predictions")
    if settings.bundles and not (settings.labels or settings.dataset):
        raise UsageError("no labelled images: name a list with --labels, or a labelled set with --dataset")
    if settings.split and not settings.dataset:
        raise UsageError("--split is a part of a labelled set: name the set with --dataset")
    if settings.masks and not (settings.labels or settings.validation):
        raise UsageError("--masks goes with --labels: a labelled set has outlines of its own")
    if settings.validation and not settings.masks:
        raise UsageError("--validation is for choosing thresholds of Dice, which need masks: add --masks")


def _labelled(settings: Settings, predictions: Sequence[Predictions]) -> LabelledSet:
    """The labelled set; without a list, the labels in the first file of predictions."""
    if settings.dataset:
        found: LabelledSet = bench_module("evaluation.datasets").open_dataset(*settings.dataset, split=settings.split)
        return found
    return read_list(settings.labels, settings.masks) if settings.labels else predictions[0].labelled


def _limited(labelled: LabelledSet, limit: int | None) -> tuple[LabelledSet, tuple[str, ...]]:
    """The first images of a set, and a remark if some are left out. Raises UsageError for a set without images."""
    total = len(labelled.images)
    if not total:
        found = " ".join(labelled.remarks) or "It is empty."
        raise UsageError(f"{labelled.name} has no image to evaluate: check its folder and --split. {found}")
    if limit is None or limit >= total:
        return labelled, ()
    remark = f"Limited to the first {limit} of {counted(total, 'image')} (--limit)."
    return replace(labelled, images=labelled.images[:limit]), (remark,)


def _run(
    settings: Settings,
    store: Store,
    models: Sequence[Model],
    labelled: LabelledSet,
    validation: LabelledSet | None,
) -> list[Evaluated]:
    count = len(labelled.images) + (len(validation.images) if validation else 0)
    with _progress(settings, labelled.images[0].path, count * len(models)) as display:
        return run_models(
            Runner(store=store, pictures=_pictures(settings, labelled), display=display), models, labelled, validation
        )


def _pictures(settings: Settings, labelled: LabelledSet) -> Pictures:
    wanted = settings.bundles and settings.pixels == "examples"
    return Pictures(folder=settings.out / FOLDER, images=choose(labelled.images) if wanted else ())


@contextmanager
def _progress(settings: Settings, first: Path, total: int) -> Iterator[ProgressDisplay]:
    """The progress bar; prints how to go on if the block is stopped."""
    tally = Tally(total=total)
    try:
        with console.progress(rate=True) as bar:
            yield ProgressDisplay(tally, bar, first=first, out=settings.out, as_json=False)
    except UsageError:
        raise
    except BaseException:
        counts = f"{tally.finished} of {total} images: {tally.summary(resumed=settings.resume)}"
        click.echo(f"{counts}; kept in {settings.out}\nto go on: {console.command_again('--resume')}", err=True)
        raise


def _open(settings: Settings) -> list[Model]:
    """Every bundle with every engine, all before the first runs, so that a wrong one is found at once."""
    models: list[Model] = []
    for (folder, engine), name in _names(settings):
        pipeline = glam_deploy.load(
            folder, engine=engine, patches=settings.patches, threads=settings.threads, ungated=settings.ungated
        )
        models.append(Model(name=name, pipeline=pipeline))
    return models


def _names(settings: Settings) -> list[tuple[tuple[Path, str], str]]:
    """Every bundle with every engine, and the name of the two.

    A bundle has the name of its folder; where two have the same, such as demo/bundle and demo_gmic/bundle, the folder
    above is part of the name.
    """
    places = {folder: Path(os.path.normpath(folder.absolute())) for folder in settings.bundles}
    count = Counter(place.name for place in places.values())
    names = {
        folder: place.name if count[place.name] == 1 else f"{place.parent.name}-{place.name}"
        for folder, place in places.items()
    }
    several = len(settings.engines) > 1
    pairs = product(settings.bundles, settings.engines)
    return [(pair, names[pair[0]] + (f"-{pair[1]}" if several else "")) for pair in pairs]


def _require_different(names: Sequence[str]) -> None:
    """Raises UsageError if two networks have the same name."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(
            f"two bundles or files of predictions have the name {twice[0]}, expected different names, because the "
            "results are named by them: rename a folder or file"
        )


def _require_free(settings: Settings, names: Sequence[str]) -> None:
    """Raises UsageError if a file that will be written is an input, or is there already and `resume` is False.

    Hours of work must not be lost by an option that was forgotten.
    """
    inputs = [path for path in (settings.labels, settings.validation, *settings.predictions) if path]
    for path in (*evaluation.written(settings.out, names), settings.out / page.PAGE, settings.out / STORE):
        if not os.path.lexists(path):
            continue
        if not path.is_file():
            raise UsageError(f"{path} is not a regular file: move it away, or choose another --out")
        if source := next((one for one in inputs if one.samefile(path)), None):
            raise UsageError(f"{source} is read, and would be overwritten with results: choose another --out")
        if not settings.resume:
            raise UsageError(
                f"{path} is of an earlier evaluation: add --resume to go on from its results, or choose another --out"
            )


# the tables on standard output


def _show(found: Evaluation) -> None:
    table = _table(f"Areas under curves, images of {found.name}", ("network", "class", "AUROC", "AUPRC", "n"))
    for model in found.models:
        for one in model.areas:
            if (one.score, one.level) == (model.facts.final_score, "image"):
                counts = f"{one.positive}/{one.units}"
                table.add_row(model.facts.name, one.label, _text(one.auroc), _text(one.auprc), counts)
    console.out.print(table)
    if any(model.dice for model in found.models):
        table = _table("Mean Dice of the final map", ("network", "class", "soft", "at threshold", "n"))
        for model in found.models:
            finals = [one for one in model.dice if one.map == model.facts.final_map]
            for soft, at in zip(finals[::2], finals[1::2], strict=True):
                threshold = f"{_text(at.mean)} at {at.threshold:g}"
                table.add_row(model.facts.name, soft.label, _text(soft.mean), threshold, str(soft.images))
        console.out.print(table)
        for name, definition in DEFINITIONS.items():
            console.out.print(f"{name}: {definition}", soft_wrap=True)
    for comparison in found.comparisons:
        if comparison.level == "image":
            p = f", DeLong p = {comparison.delong.p:.3g}" if comparison.delong else ""
            names = f"{comparison.first} - {comparison.second}, {comparison.label}"
            console.out.print(f"AUROC {names}: {_text(comparison.bootstrap)}{p}", soft_wrap=True)
    for remark in found.remarks:
        console.out.print(remark, soft_wrap=True)


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _text(found: Estimate | None) -> str:
    if found is None:
        return "-"
    if found.low is None:
        return f"{found.value:.3f}"
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"
