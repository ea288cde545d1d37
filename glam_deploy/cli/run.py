"""`glam-deploy run`."""

import json
import logging
import traceback
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import click
from rich.progress import Progress, TaskID

from glam_deploy.cli import console
from glam_deploy.cli.inputs import assigned_views, plan
from glam_deploy.cli.job import Job, Outcome, ReadOptions, require_room
from glam_deploy.cli.options import (
    DocumentedCommand,
    bundle_option,
    cache_option,
    device_option,
    engine_option,
    flavour_option,
    patches_option,
    streams_option,
    threads_option,
    ungated_option,
)
from glam_deploy.cli.tally import KEPT, Tally
from glam_deploy.errors import (
    BackendUnavailable,
    Caller,
    GlamError,
    InternalError,
    NotForThisNetwork,
    UsageError,
    fault,
)
from glam_deploy.outputs.earlier import RUN, earlier_result, run_facts
from glam_deploy.outputs.report import Report
from glam_deploy.outputs.table import Table
from glam_deploy.outputs.writer import (
    REPORT,
    OutputOptions,
    read_report,
    require_writable,
    write_failure,
    write_result,
    writing_to,
)
from glam_deploy.reading import read, read_standardized
from glam_deploy.records import Pixels, View
from glam_deploy.runtime.overlap import ahead, behind
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.runtime.result import Pending, Prepared, Result
from glam_deploy.runtime.session import load

log = logging.getLogger(__name__)

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, kw_only=True)
class _Read:
    """An input that has been read and made ready."""

    pixels: Pixels
    """For the picture: source frame, background 0."""
    prepared: Prepared
    facts: Mapping[str, object]
    """As of `earlier.run_facts`."""
    difference: str
    """As of `earlier.Earlier`, where this run is to go on after an earlier one."""


@dataclass(frozen=True, kw_only=True)
class _Started:
    """An input that the network has begun with, or done."""

    pixels: Pixels
    pending: Pending
    facts: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """An input that an earlier run has done."""

    report: Report


@click.command("run", cls=DocumentedCommand)
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="INPUT...")
@bundle_option
@engine_option
@patches_option(None, "Patches that the local module looks at in a view, 1..6 [default: the bundle's].")
@click.option("--view", type=click.Choice([v.value for v in View]), help="The view of images that do not tell it.")
@click.option(
    "--views",
    "view_table",
    type=click.Path(path_type=Path),
    help="CSV file of views: columns file and view, or image_id, laterality and view_position (VinDr-Mammo).",
)
@click.option("--horizontal-flip", is_flag=True, help="The images are stored mirrored: left breasts face left.")
@click.option("--for-processing", is_flag=True, help="Take For Processing DICOM too, which GLAM was not trained on.")
@click.option(
    "--standardized",
    is_flag=True,
    help="Inputs are cropped to 2944 x 1920 and mirrored: standardized floats (npy, TIFF) or 16 bits (PNG, TIFF, npy).",
)
@click.option("--full", is_flag=True, help="Add the fused map at full size, in the network's and the source's frame.")
@click.option("--save-input", is_flag=True, help="Add the standardized input to the npz.")
@click.option("--no-picture", is_flag=True, help="Write no overlay.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Results folder."
)
@click.option(
    "--resume", is_flag=True, help="Leave alone what an earlier run into the same folder has done in the same way."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for each input, instead of text.")
@threads_option
@streams_option
@cache_option
@flavour_option
@device_option
@ungated_option
def command(
    inputs: tuple[Path, ...],
    folder: Path,
    engine: str,
    patches: int | None,
    view: str | None,
    view_table: Path | None,
    horizontal_flip: bool,
    for_processing: bool,
    standardized: bool,
    full: bool,
    save_input: bool,
    no_picture: bool,
    out: Path,
    resume: bool,
    as_json: bool,
    threads: int | None,
    streams: int | None,
    cache: Path | None,
    flavour: str | None,
    device: int | None,
    ungated: bool,
) -> int:
    """Find lesions in DICOM, PNG, TIFF or npy images; folders are searched, and results in them are no inputs.

    Every input gets a report, <stem>.json, also one that fails; one bad file does not stop the others. Done inputs
    also get <stem>.npz and the overlay <stem>.png. A run over a folder also writes results.csv, a line for each input.
    docs/outputs.md explains all of them.
    """
    if standardized and (horizontal_flip or for_processing):
        raise UsageError("--standardized takes arrays as they are: leave --horizontal-flip and --for-processing off")
    if view is not None and view_table is not None:
        raise UsageError("--view is for all inputs and --views for those that it names: give one of them")
    reading = ReadOptions(
        view=View(view) if view else None,
        horizontal_flip=horizontal_flip,
        for_processing=for_processing,
        standardized=standardized,
    )
    writing = OutputOptions(full=full, save_input=save_input, picture=not no_picture)
    stems = plan(inputs, out)
    table = resume or any(path.is_dir() for path in inputs)
    job = Job(
        stems=stems,
        out=out,
        reading=reading,
        writing=writing,
        views=assigned_views(view_table, list(stems)),
        table=table,
        resume=resume,
        again=console.command_again("--resume") if table else "",
        as_json=as_json,
    )
    require_room(job)
    pipeline = load(
        folder,
        engine=engine,
        patches=patches,
        threads=threads,
        streams=streams,
        cache=cache,
        flavour=flavour,
        device=device,
        ungated=ungated,
    )
    if reason := pipeline.provenance.get("auto"):
        console.err.print(reason, soft_wrap=True)
    return run_job(pipeline, job)


def run_job(pipeline: Pipeline, job: Job) -> int:
    """Work through the inputs; the exit code.

    0 where each was done, kept or skipped by rule, 1 where any failed or none was done, 3 where any failed because this
    machine lacks what it needs. Raises UsageError where `job.out` cannot be written to.
    """
    require_writable(job.out)
    table, tally = _table(pipeline, job), Tally(total=len(job.stems))
    try:
        with console.progress(rate=True) as bar:
            _work_through(pipeline, job, _Show(job, tally, bar), table)
    except BaseException:
        _tell_how_to_go_on(job, tally)
        raise
    if not job.as_json and not console.is_quiet():
        console.out.print(f"{tally.summary(resumed=job.resume)}; results in {job.out}", soft_wrap=True)
    if tally.lacking:
        return BackendUnavailable.exit_code
    return 1 if tally.counts["failed"] or not tally.counts["done"] + tally.counts[KEPT] else 0


def _table(pipeline: Pipeline, job: Job) -> Table | None:
    if not job.table:
        return None
    made_by = pipeline.provenance
    again = {stem + REPORT for stem in job.stems.values()} if job.resume else None
    with writing_to(job.out):
        return Table(
            job.out,
            engine=made_by["engine"].get("name", ""),
            bundle=made_by.get("bundle", {}).get("id", ""),
            again=again,
        )


def _tell_how_to_go_on(job: Job, tally: Tally) -> None:
    if job.again:
        told = f"{tally.finished} of {tally.total} inputs: {tally.summary(resumed=job.resume)}; results in {job.out}"
        click.echo(f"{told}\nto go on: {job.again}", err=True)


class _Show:
    """What is seen of a run while it goes on."""

    def __init__(self, job: Job, tally: Tally, bar: Progress) -> None:
        self._job, self.tally, self._bar = job, tally, bar
        self._task: TaskID = bar.add_task(next(iter(job.stems)).name, total=len(job.stems), pace="")
        self._explained: set[str] = set()

    def begun(self, path: Path) -> None:
        self._bar.update(self._task, description=path.name, refresh=True)

    def made_again(self, difference: str) -> None:
        """Say once why results that are there are not kept."""
        if difference and difference not in self._explained:
            self._explained.add(difference)
            told = f"Results in {self._job.out} were made with {difference}: their inputs are done again."
            with console.paused(self._bar):
                console.err.print(told, soft_wrap=True)

    def ended(self, path: Path, outcome: Outcome) -> None:
        self.tally.add(outcome.status)
        log.info("input %d of %d: %s", self.tally.finished, self.tally.total, outcome.status)
        self.tally.lacking |= outcome.lacking
        self._bar.update(self._task, advance=1, pace=self.tally.pace)
        if self._job.as_json or outcome.status != KEPT:
            with console.paused(self._bar):
                _say(self._job, path, outcome)
        plain = not (console.err.is_interactive or self._job.as_json)
        if plain and (line := self.tally.plain_line()):
            console.err.print(line, soft_wrap=True)


def _work_through(pipeline: Pipeline, job: Job, show: _Show, table: Table | None) -> None:
    """While the network has one input, the next is read and the last is written: no more than three in memory, and
    another one for each further stream.

    The network runs in this thread, which hears Ctrl-C; what it has finished by then is still written.
    """

    def start(path: Path, view: _Read | _Kept | GlamError) -> tuple[Path, _Started | _Kept | GlamError]:
        show.begun(path)
        if isinstance(view, _Kept):
            return path, view
        show.made_again(view.difference if isinstance(view, _Read) else "")
        show.tally.begin()
        return path, _attempt(partial(_start, pipeline), view)

    def finish(started: tuple[Path, _Started | _Kept | GlamError]) -> None:
        path, view = started
        outcome = Outcome(status=KEPT, text="") if isinstance(view, _Kept) else _finish(job, path, view)
        if table is not None:
            _add(table, job, path, view.report if isinstance(view, _Kept) else None)
        show.ended(path, outcome)

    read, depth = partial(_attempt, partial(_read, pipeline, job)), pipeline.in_flight
    with closing(ahead(read, job.stems)) as views:
        started = map(start, job.stems, views)
        with closing(behind(finish, started, depth=depth)) as ends:
            for _ in ends:
                pass


def _add(table: Table, job: Job, path: Path, kept: Report | None) -> None:
    """The input's line in the table, unless it is there already."""
    name = job.stems[path] + REPORT
    if kept is None or name not in table:
        with writing_to(job.out):
            table.add(path, name, kept or read_report(job.out, job.stems[path]))


def _attempt(step: Callable[[T], U], given: T | GlamError) -> U | GlamError:
    """A step of one input, unless one before it failed. What goes wrong is handed on, and the other inputs go on."""
    if isinstance(given, GlamError):
        return given
    try:
        return step(given)
    except GlamError as error:
        return error
    except Exception as error:  # the edge of one input: a fault in our own code must not cost the others
        return _internal(error)


def _read(pipeline: Pipeline, job: Job, path: Path) -> _Read | _Kept:
    settings, reading, difference = job.settings(path), job.reading_of(path), ""
    if job.resume:
        made_by = {**pipeline.provenance, RUN: {"settings": settings}}
        earlier = earlier_result(job.out, job.stems[path], path, made_by)
        if earlier.report:
            return _Kept(report=earlier.report)
        difference = earlier.difference
    if reading.standardized:
        given = read_standardized(path, view=reading.view)
        # the picture needs a black background at zero
        pixels, prepared = given.image - given.image.min(), pipeline.prepare(given)
    else:
        mammogram = read(
            path, view=reading.view, horizontal_flip=reading.horizontal_flip, for_processing=reading.for_processing
        )
        pixels, prepared = mammogram.pixels, pipeline.prepare(mammogram)
    return _Read(pixels=pixels, prepared=prepared, facts=run_facts(path, settings), difference=difference)


def _start(pipeline: Pipeline, view: _Read | _Kept) -> _Started:
    assert isinstance(view, _Read)
    return _Started(pixels=view.pixels, pending=pipeline.submit(view.prepared), facts=view.facts)


def _write(job: Job, path: Path, started: _Started) -> str:
    found = started.pending.result()
    result = replace(found, provenance={**found.provenance, RUN: started.facts})
    write_result(job.out, job.stems[path], started.pixels, result, job.writing)
    job.on_result(path, result)
    return _summary(result)


def _finish(job: Job, path: Path, started: _Started | GlamError) -> Outcome:
    """Write the result, or what went wrong."""
    written = _attempt(partial(_write, job, path), started)
    if not isinstance(written, GlamError):
        return Outcome(status="done", text=written)
    written = written.worded(Caller.RUN)
    write_failure(job.out, job.stems[path], path.name, job.reading_of(path).view, written)
    status = "skipped" if isinstance(written, NotForThisNetwork) else "failed"
    return Outcome(status=status, text=str(written), lacking=isinstance(written, BackendUnavailable))


def _internal(error: Exception) -> InternalError:
    """The exception without its text, and its trace without the values in it, on standard error."""
    click.echo("".join(traceback.format_tb(error.__traceback__)), err=True)
    return InternalError(
        f"{fault(error)}. This is a fault of glam-deploy; please report it with what stands on standard error."
    )


def _summary(result: Result) -> str:
    best = "y_global" if result.y_fusion is None else "y_fusion"
    scores = ", ".join(f"{name} {value:.3f}" for name, value in result.predictions[best].items())
    view = result.input.view or "standardized"
    notes = "".join(f"\n    {notice.code}: {notice.message}" for notice in result.notices)
    return f"{view}  {best}: {scores}  {sum(result.timings_ms.values()) / 1e3:.1f} s{notes}"


def _say(job: Job, path: Path, outcome: Outcome) -> None:
    if job.as_json:
        # in ASCII, which every terminal, pipe and locale carries
        click.echo(json.dumps(json.loads((job.out / (job.stems[path] + REPORT)).read_text("utf-8"))))
    elif outcome.status != "done" or not console.is_quiet():
        console.out.print(f"{outcome.status:8}{path}  {outcome.text}", soft_wrap=True)
