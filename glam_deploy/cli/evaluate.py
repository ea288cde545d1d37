"""`glam-deploy evaluate`."""

from pathlib import Path
from typing import Any

import click

from glam_deploy.cli.bench import bench_module
from glam_deploy.cli.options import (
    DocumentedCommand,
    FilePath,
    dataset_option,
    out_option,
    patches_of_view_option,
    split_option,
    threads_option,
    ungated_option,
)
from glam_deploy.engines.registry import ENGINE_NAMES

_FILE = FilePath()


@click.command("evaluate", cls=DocumentedCommand)
@click.option("--labels", type=_FILE, metavar="LIST.csv", help="Columns file, view, exam, benign, malignant.")
@click.option("--masks", type=_FILE, help="Folder of outlines: PNG named like the images, values 0, 100, 200.")
@dataset_option
@split_option
@click.option("--bundle", "bundles", type=_FILE, multiple=True, help="Bundle to evaluate; repeatable.")
@click.option(
    "--engine",
    "engines",
    type=click.Choice(ENGINE_NAMES),
    multiple=True,
    default=("auto",),
    show_default=True,
    metavar="NAME",
    help="Engine that runs each bundle, as for `run`; repeatable.",
)
@click.option(
    "--predictions",
    type=_FILE,
    multiple=True,
    help="CSV of predictions in place of a bundle; without --labels, it has the labels too; repeatable.",
)
@patches_of_view_option
@threads_option
@ungated_option
@click.option("--validation", type=_FILE, metavar="LIST2.csv", help="List on which thresholds of Dice are chosen.")
@out_option(Path("evaluation"), "Folder for the page, the tables and what was computed.")
@click.option("--resume", is_flag=True, help="Go on from what an earlier evaluation into the same folder computed.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first images of the list.")
@click.option(
    "--pixels",
    type=click.Choice(["examples", "none"]),
    default="examples",
    show_default=True,
    help="Whether the page shows a few of the images.",
)
def command(**options: Any) -> int:
    """Evaluate networks on labelled images: AUROC, AUPRC, Dice, FROC, calibration, and their comparison.

    Writes evaluation.html, evaluation.json, metrics.csv, images.csv and a CSV of predictions for each network into a
    folder. Images that cannot be used are listed with the reason. docs/evaluate.md has every definition. Exit code 0:
    all images were evaluated or are not for these networks; 1: some failed.
    """
    job = bench_module("evaluation.job")
    code: int = job.run(job.Settings(**options))
    return code
