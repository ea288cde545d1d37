"""`glam-deploy run`."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

import click

from glam_deploy.cli import console
from glam_deploy.cli.inputs import assigned_rows, plan
from glam_deploy.cli.job import Job, ReadOptions, read_input, require_room, run_job
from glam_deploy.cli.options import (
    Decorator,
    DocumentedCommand,
    EngineChoice,
    FilePath,
    batch_option,
    bundle_option,
    cache_option,
    devices_option,
    digest_option,
    engine_option,
    flavour_option,
    for_processing_option,
    grouped,
    json_option,
    out_option,
    patches_of_view_option,
    standardized_option,
    streams_option,
    threads_option,
    trusted_key_option,
    ungated_option,
    view_option,
)
from glam_deploy.engines.cpu import usable_cores
from glam_deploy.engines.registry import OWNERS
from glam_deploy.errors import GlamError, UsageError
from glam_deploy.outputs.writer import OutputOptions
from glam_deploy.records import Mammogram, NetworkInput
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.runtime.session import load

engine_options: Decorator = grouped(
    "choice",
    EngineChoice,
    bundle_option,
    engine_option,
    patches_of_view_option,
    threads_option,
    streams_option,
    cache_option,
    flavour_option,
    devices_option,
    ungated_option,
    trusted_key_option,
    digest_option,
)
reading_options: Decorator = grouped(
    "reading",
    ReadOptions,
    view_option,
    click.option("--horizontal-flip", is_flag=True, help="The images are stored mirrored: left breasts face left."),
    for_processing_option,
    standardized_option(
        "Inputs are cropped to 2944 x 1920 and mirrored: standardized floats (npy, TIFF) or 16 bits (PNG, TIFF, npy)."
    ),
)
writing_options: Decorator = grouped(
    "writing",
    OutputOptions,
    click.option(
        "--full", is_flag=True, help="Add the fused map at full size, in the network's and in the source frame."
    ),
    click.option("--save-input", is_flag=True, help="Add the standardized input to the npz."),
    click.option(
        "--no-picture", "picture", is_flag=True, callback=lambda ctx, param, value: not value, help="Write no overlay."
    ),
)


@click.command("run", cls=DocumentedCommand)
@click.argument("inputs", nargs=-1, required=True, type=FilePath(), metavar="INPUT...")
@engine_options
@batch_option
@reading_options
@click.option(
    "--views",
    "view_table",
    type=FilePath(),
    help="CSV file of views: columns file and view, or image_id, laterality and view_position (VinDr-Mammo); a column "
    "exam or study_id groups the exam-level results.",
)
@writing_options
@out_option(Path("results"), "Results folder.")
@click.option(
    "--resume", is_flag=True, help="Keep results that an earlier run into the same folder made in the same way."
)
@json_option("One JSON object a line for each input, then for each exam of several, instead of text.")
def command(
    inputs: tuple[Path, ...],
    view_table: Path | None,
    out: Path,
    resume: bool,
    as_json: bool,
    batch: int,
    choice: EngineChoice,
    reading: ReadOptions,
    writing: OutputOptions,
) -> int:
    """Find lesions in DICOM, PNG, TIFF or npy images; folders are searched, and results in them are not inputs.

    Every input gets a report, <stem>.json, also one that fails; one bad file does not stop the others. Done inputs
    also get <stem>.npz and the overlay <stem>.png. A run over a folder also writes results.csv, a line for each input,
    and exams.csv, the scores of exams and breasts from those of several images. docs/outputs.md explains all of them.
    """
    if reading.standardized and (reading.horizontal_flip or reading.for_processing):
        raise UsageError("--standardized takes arrays as they are: leave --horizontal-flip and --for-processing off")
    if reading.view is not None and view_table is not None:
        raise UsageError("--view is for all inputs and --views for those that it names: give one of them")
    stems = plan(inputs, out)
    table = resume or any(path.is_dir() for path in inputs)
    rows = assigned_rows(view_table, list(stems))
    job = Job(
        stems=stems,
        out=out,
        reading=reading,
        writing=writing,
        views={path: row.view for path, row in rows.items()},
        exams={path: row.exam for path, row in rows.items() if row.exam},
        table=table,
        resume=resume,
        batch=batch,
        again=console.command_again("--resume") if table else "",
        as_json=as_json,
    )
    require_room(job)
    pipeline = open_measured(choice, job) if choice.streams == "auto" else open_pipeline(choice)
    pipeline.require_batch(batch)
    if reason := pipeline.provenance.get("auto"):
        console.err.print(reason, soft_wrap=True)
    return run_job(pipeline, job)


def open_measured(choice: EngineChoice, job: Job) -> Pipeline:
    """The pipeline with the number of streams that is the fastest on the first inputs. Raises as `session.load`.

    The provenance of its results has the measurement as "streams".
    """
    from glam_deploy.runtime.streams import FEWEST_INPUTS, SAMPLE, choose_streams  # not needed without "auto"

    def open_with(streams: int) -> Pipeline:
        return open_pipeline(replace(choice, streams=streams))

    if (owner := OWNERS.get(choice.engine)) is not None and "streams" not in owner.options:
        raise UsageError(f"--streams auto is for OpenVINO engines, and the engine is {choice.engine}: leave it out")
    sample = list(islice(_readable(job), SAMPLE)) if len(job.stems) >= FEWEST_INPUTS else []
    found = choose_streams(open_with, sample, cores=usable_cores())
    console.err.print(str(found), soft_wrap=True)
    pipeline = open_with(found.chosen)
    pipeline.provenance = {**pipeline.provenance, "streams": found.facts}
    return pipeline


def _readable(job: Job) -> Iterator[Mammogram | NetworkInput]:
    """The inputs of a job that can be read; the others are reported when it is their turn."""
    for path in job.stems:
        with suppress(GlamError):
            yield read_input(path, job.reading_of(path))


def open_pipeline(choice: EngineChoice) -> Pipeline:
    """The pipeline of the chosen engine. Raises as `session.load`."""
    assert choice.streams != "auto"
    return load(
        choice.folder,
        engine=choice.engine,
        patches=choice.patches,
        threads=choice.threads,
        streams=choice.streams,
        cache=choice.cache,
        flavour=choice.flavour,
        device=choice.device,
        ungated=choice.ungated,
        trusted_keys=choice.trusted_keys or None,
        digest=choice.digest,
    )
