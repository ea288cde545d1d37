"""`glam-deploy run`."""

import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import click
from rich.progress import Progress

from glam_deploy.cli import console
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
from glam_deploy.errors import (
    BackendUnavailable,
    Caller,
    GlamError,
    InternalError,
    NotForThisNetwork,
    UsageError,
    fault,
)
from glam_deploy.images import read_array
from glam_deploy.outputs.writer import (
    REPORT,
    OutputOptions,
    is_result,
    require_free,
    require_writable,
    unique_stems,
    write_failure,
    write_result,
)
from glam_deploy.preprocess import from_standardized
from glam_deploy.reading import find_inputs, read
from glam_deploy.records import Pixels, Source, View
from glam_deploy.runtime.overlap import ahead, behind
from glam_deploy.runtime.pending import Pending, Prepared
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.runtime.result import Result
from glam_deploy.runtime.session import load

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How to take the inputs."""

    view: View | None = None
    horizontal_flip: bool = False
    for_processing: bool = False
    standardized: bool = False


@dataclass(frozen=True, kw_only=True)
class Job:
    """Inputs and where their results go."""

    stems: Mapping[Path, str]
    out: Path
    reading: ReadOptions
    writing: OutputOptions
    as_json: bool = False
    on_result: Callable[[Path, Result], None] = lambda path, result: None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one input."""

    status: str
    """"done", "skipped" or "failed", as in the report."""
    text: str
    lacking: bool = False
    """It failed because this machine lacks a package."""


@dataclass(frozen=True, kw_only=True)
class _Read:
    """An input that has been read and made ready."""

    pixels: Pixels
    """For the picture: source frame, background 0."""
    prepared: Prepared


@dataclass(frozen=True, kw_only=True)
class _Started:
    """An input that the network has begun with, or done."""

    pixels: Pixels
    pending: Pending


@click.command("run", cls=DocumentedCommand)
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="INPUT...")
@bundle_option
@engine_option
@patches_option(None, "Patches that the local module looks at in a view, 1..6 [default: the bundle's].")
@click.option("--view", type=click.Choice([v.value for v in View]), help="The view of images that do not tell it.")
@click.option("--horizontal-flip", is_flag=True, help="The images are stored mirrored: left breasts face left.")
@click.option("--for-processing", is_flag=True, help="Take For Processing DICOM too, which GLAM was not trained on.")
@click.option("--standardized", is_flag=True, help="Inputs are .npy, [2944, 1920], cropped, mirrored and standardized.")
@click.option("--full", is_flag=True, help="Add the fused map at full size, in the network's and the source's frame.")
@click.option("--save-input", is_flag=True, help="Add the standardized input to the npz.")
@click.option("--no-picture", is_flag=True, help="Write no overlay.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("results"), show_default=True, help="Results folder."
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
    horizontal_flip: bool,
    for_processing: bool,
    standardized: bool,
    full: bool,
    save_input: bool,
    no_picture: bool,
    out: Path,
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
    also get <stem>.npz and the overlay <stem>.png. docs/outputs.md explains all of them.
    """
    if standardized and (horizontal_flip or for_processing):
        raise UsageError("--standardized takes arrays as they are: leave --horizontal-flip and --for-processing off")
    reading = ReadOptions(
        view=View(view) if view else None,
        horizontal_flip=horizontal_flip,
        for_processing=for_processing,
        standardized=standardized,
    )
    writing = OutputOptions(full=full, save_input=save_input, picture=not no_picture)
    job = Job(stems=plan(inputs, out), out=out, reading=reading, writing=writing, as_json=as_json)
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


def plan(inputs: Sequence[Path], out: Path) -> dict[Path, str]:
    """Every input file and the stem of its results; what a searched folder holds besides is told on standard error.

    Results in a searched folder are no inputs. Raises UsageError as `find_inputs` does, where nothing else is there,
    and where a result would replace an input or another file that is not ours.
    """
    stems = unique_stems(_without_results(inputs))
    originals = {path.resolve() for path in stems}
    for path, stem in stems.items():
        for suffix in (".json", ".npz", ".png"):
            if (out / (stem + suffix)).resolve() in originals:
                raise UsageError(
                    f"{out / (stem + suffix)} is an input, and a result of {path} would replace it. "
                    f"Name another folder with --out."
                )
        require_free(out, stem)
    return stems


def _without_results(inputs: Sequence[Path]) -> list[Path]:
    found = find_inputs(inputs, on_passed_over=_tell_passed_over)
    kept = [path for path in found if path in inputs or not is_result(path)]
    if not kept:
        raise UsageError("all images there are results of an earlier run: check the inputs")
    return kept


def _tell_passed_over(folder: Path, others: Sequence[Path]) -> None:
    if count := sum(not is_result(path) for path in others):
        told = "1 other file" if count == 1 else f"{count} other files"
        console.err.print(f"{told} in {folder} {'was' if count == 1 else 'were'} passed over", soft_wrap=True)


def run_job(pipeline: Pipeline, job: Job) -> int:
    """Work through the inputs; the exit code.

    0 where each was done or skipped by rule, 1 where any failed or none was done, 3 where any failed because this
    machine lacks what it needs. Raises UsageError where `job.out` cannot be written to.
    """
    require_writable(job.out)
    with console.progress() as bar:
        outcomes = _work_through(pipeline, job, bar)
    done, skipped, failed = ([o for o in outcomes if o.status == status] for status in ("done", "skipped", "failed"))
    if not job.as_json:
        told = f"{len(done)} done, {len(skipped)} skipped, {len(failed)} failed; results in {job.out}"
        console.out.print(told, soft_wrap=True)
    if any(outcome.lacking for outcome in failed):
        return BackendUnavailable.exit_code
    return 1 if failed or not done else 0


def _work_through(pipeline: Pipeline, job: Job, bar: Progress) -> list[Outcome]:
    """While the network has one input, the next is read and the last is written: no more than three in memory, and
    another one for each further stream.

    The network runs in this thread, which hears Ctrl-C; what it has finished by then is still written.
    """
    task = bar.add_task(next(iter(job.stems)).name, total=len(job.stems))

    def start(path: Path, view: _Read | GlamError) -> tuple[Path, _Started | GlamError]:
        bar.update(task, description=path.name, refresh=True)
        return path, _attempt(partial(_start, pipeline), view)

    def finish(started: tuple[Path, _Started | GlamError]) -> Outcome:
        outcome = _finish(job, *started)
        bar.advance(task)
        with console.paused(bar):
            _say(job, started[0], outcome)
        return outcome

    read, depth = partial(_attempt, partial(_read, pipeline, job.reading)), pipeline.in_flight
    with closing(ahead(read, job.stems)) as views:
        started = map(start, job.stems, views)
        with closing(behind(finish, started, depth=depth)) as outcomes:
            return list(outcomes)


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


def _read(pipeline: Pipeline, reading: ReadOptions, path: Path) -> _Read:
    if reading.standardized:
        array = read_array(path)
        given = from_standardized(array, source=Source(name=path.name, kind="npy"), view=reading.view)
        # the picture needs a black background at zero
        return _Read(pixels=given.image - given.image.min(), prepared=pipeline.prepare(given))
    mammogram = read(
        path, view=reading.view, horizontal_flip=reading.horizontal_flip, for_processing=reading.for_processing
    )
    return _Read(pixels=mammogram.pixels, prepared=pipeline.prepare(mammogram))


def _start(pipeline: Pipeline, view: _Read) -> _Started:
    return _Started(pixels=view.pixels, pending=pipeline.submit(view.prepared))


def _write(job: Job, path: Path, started: _Started) -> str:
    result = started.pending.result()
    write_result(job.out, job.stems[path], started.pixels, result, job.writing)
    job.on_result(path, result)
    return _summary(result)


def _finish(job: Job, path: Path, started: _Started | GlamError) -> Outcome:
    """Write the result, or what went wrong."""
    written = _attempt(partial(_write, job, path), started)
    if not isinstance(written, GlamError):
        return Outcome(status="done", text=written)
    written = written.worded(Caller.RUN)
    write_failure(job.out, job.stems[path], path.name, job.reading.view, written)
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
    else:
        console.out.print(f"{outcome.status:8}{path}  {outcome.text}", soft_wrap=True)
