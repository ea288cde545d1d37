"""Processing of the inputs of a run: what to do with them, doing it, and the status of each."""

import json
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain, count
from pathlib import Path

import click

from glam_deploy.cli import console
from glam_deploy.cli.progress import KEPT, ProgressDisplay, Tally
from glam_deploy.cli.shared_uids import SharedUids
from glam_deploy.errors import BackendUnavailable, Caller, GlamError, InternalError, NotForThisNetwork, attempt, fault
from glam_deploy.exams import TITLE, ExamScores, ViewScores, any_group, exam_lines, made_by, score_exams
from glam_deploy.images import image_files
from glam_deploy.memory import too_little_memory
from glam_deploy.networks import final_score
from glam_deploy.outputs.earlier import RUN, earlier_result, run_facts
from glam_deploy.outputs.report import Report, exam_report
from glam_deploy.outputs.table import EXAMS, TABLE, Patient, Table, require_table
from glam_deploy.outputs.writer import (
    REPORT,
    OutputOptions,
    read_report,
    require_makeable,
    require_writable,
    write_failure,
    write_result,
    writing_to,
)
from glam_deploy.reading import read, read_patient, read_standardized, read_study
from glam_deploy.records import Mammogram, NetworkInput, Notice, Pixels, View
from glam_deploy.runtime.overlap import Turns, ahead, behind, in_batches
from glam_deploy.runtime.pipeline import Pipeline, is_raw
from glam_deploy.runtime.result import Pending, Prepared, Result
from glam_deploy.unchanged import unchanged
from glam_deploy.view_names import exam_from_name

_UID = "SOPInstanceUID"


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How to read the inputs."""

    view: View | None = None
    horizontal_flip: bool = False
    for_processing: bool = False
    standardized: bool = False


@dataclass(frozen=True, kw_only=True)
class Job:
    """Inputs of a run, and the folder and the options of their results."""

    stems: Mapping[Path, str]
    out: Path
    reading: ReadOptions
    writing: OutputOptions
    views: Mapping[Path, View] = field(default_factory=dict)
    """Views from a table by input, instead of `reading.view`."""
    exams: Mapping[Path, str] = field(default_factory=dict)
    """Exams from a table by input, instead of those that headers and names state."""
    table: bool = False
    """Whether to write results.csv, and to print how to resume if the run is stopped."""
    resume: bool = False
    """Whether to keep complete results of an earlier run with the same engine and settings."""
    batch: int = 1
    """Number of views that are computed as one run while as many are waiting; `Pipeline.require_batch` admits it."""
    again: str = ""
    """The command that resumes this run if it is stopped."""
    as_json: bool = False
    on_result: Callable[[Path, Result], None] = lambda path, result: None

    def reading_of(self, path: Path) -> ReadOptions:
        """How to read one input."""
        return replace(self.reading, view=self.views.get(path, self.reading.view))

    def exam_of(self, path: Path, report: Report) -> str:
        """Identifier of the exam of an input: by the table, its StudyInstanceUID or its name; "" if it is unknown.

        A DICOM object is never grouped by its name, because the name may be that of another exam.
        """
        if exam := self.exams.get(path) or report["input"]["uids"].get("StudyInstanceUID"):
            return str(exam)
        if path.suffix.lower() in image_files.SUFFIXES:
            return exam_from_name(path)
        return "" if report["status"] == "done" else read_study(path)

    def settings(self, path: Path) -> dict[str, object]:
        """Settings on which a result depends besides its input and the pipeline; JSON-ready."""
        return asdict(self.reading_of(path)) | asdict(self.writing)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Outcome of one input."""

    status: str
    """"done", "skipped" or "failed", as in the report, or KEPT."""
    text: str
    notes: Sequence[str] = ()
    """Lines below it."""
    lacking: bool = False
    """Whether it failed because this machine lacks a package."""
    patient: Patient = field(default=(), repr=False)
    """Of a result, as `Source.patient`."""


def require_room(job: Job) -> None:
    """Raises UsageError if `job.out` cannot be written; to be called before an engine is opened.

    Foreign files in place of single results were refused when the stems were made (`cli.inputs.plan`).
    """
    require_makeable(job.out)
    if job.table:
        for name in (TABLE, EXAMS):
            require_table(job.out / name)


@dataclass(frozen=True, kw_only=True)
class _Read:
    """An input that was read and preprocessed."""

    pixels: Pixels
    """Image for the picture, [rows, columns], source frame, background 0."""
    prepared: Prepared
    facts: Mapping[str, object]
    """As of `earlier.run_facts`."""
    uid: str
    """SOPInstanceUID; "" without one."""
    difference: str
    """As of `earlier.Earlier` for a resumed run; else ""."""


@dataclass(frozen=True, kw_only=True)
class _Started:
    """An input that the network has begun or finished."""

    pixels: Pixels
    pending: Pending
    facts: Mapping[str, object]
    notices: Sequence[Notice] = ()
    """Those of the run, besides those of the image."""


@dataclass(frozen=True, kw_only=True)
class _Kept:
    """An input with a result of an earlier run."""

    report: Report
    patient: Patient


_View = _Read | _Kept | GlamError
"""An input after it was read."""


def run_job(pipeline: Pipeline, job: Job) -> int:
    """Process the inputs; the exit code.

    0 if each was done, kept or skipped by rule; 1 if any failed or none was done; 3 if any failed because this machine
    lacks a package. Raises UsageError if `job.out` cannot be written.
    """
    require_writable(job.out)
    table, tally, images = _table(pipeline, job), Tally(total=len(job.stems)), list[ViewScores]()
    try:
        with console.progress(rate=True) as bar:
            first = next(iter(job.stems))
            display = ProgressDisplay(tally, bar, first=first, out=job.out, as_json=job.as_json)
            _process_all(pipeline, job, display, table, images)
    except BaseException:
        if job.again:
            counts = f"{tally.finished} of {tally.total} inputs: {tally.summary(resumed=job.resume)}"
            click.echo(f"{counts}; results in {job.out}\nto go on: {job.again}", err=True)
        raise
    finally:
        if table is not None:
            with writing_to(job.out):
                table.write_exams()
    _print_exams(score_exams(images), as_json=job.as_json)
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
            read_patient=read_patient,
        )


def _print_exams(exams: Sequence[ExamScores], *, as_json: bool) -> None:
    """Print the exam-level results, if an exam has several images."""
    if not any_group(exams) or (console.is_quiet() and not as_json):
        return
    if not as_json:
        console.out.print(TITLE, soft_wrap=True)
    for exam in exams:
        if as_json:
            click.echo(json.dumps(exam_report(exam)))
        else:
            console.out.print(exam.exam, *(f"  {each}" for each in exam_lines(exam)), sep="\n", soft_wrap=True)


def _process_all(
    pipeline: Pipeline, job: Job, display: ProgressDisplay, table: Table | None, images: list[ViewScores]
) -> None:
    """Read the next inputs and write the last ones while the network runs on one.

    Appends the scores of each input with a known exam to `images`. `Pipeline.ahead` threads read, and as many write:
    with a CPU engine, which has one, at most three inputs are in memory, and one more for each further stream. The
    network runs in the calling thread, which gets Ctrl-C; what it has finished by then is still written.
    """

    turns, numbers, uids = Turns(), count(), SharedUids()

    def start(batch: Sequence[tuple[Path, _View]]) -> Iterator[tuple[int, Path, _Started | _Kept | GlamError]]:
        for path, view in batch:
            display.begin(path)
            if not isinstance(view, _Kept):
                display.explain_repeat(view.difference if isinstance(view, _Read) else "")
                display.tally.begin()
        for (path, view), started in zip(batch, _start(pipeline, [view for _, view in batch]), strict=True):
            notices = () if isinstance(view, GlamError) else uids.notices(path, *_identity(view))
            if isinstance(started, _Started):
                yield next(numbers), path, replace(started, notices=notices)
                continue
            for notice in notices:
                display.remark(notice.message)
            yield next(numbers), path, started

    def finish(started: tuple[int, Path, _Started | _Kept | GlamError]) -> None:
        number, path, view = started
        with turns.after(number, partial(_outcome, job, path, view)) as outcome:
            with writing_to(job.out):
                report = view.report if isinstance(view, _Kept) else read_report(job.out, job.stems[path])
                exam, name = job.exam_of(path, report), job.stems[path] + REPORT
                if table is not None:
                    write = table.keep if isinstance(view, _Kept) else table.add
                    write(path, name, report, exam, outcome.patient)
            if exam:
                images.append(_scores(exam, report, outcome.patient))
            display.tally.lacking |= outcome.lacking
            display.end(outcome.status, _lines(job, path, outcome))

    def read_one(path: Path) -> tuple[Path, _View]:
        # not by zip, which keeps a pair until the second one after it has been made
        return path, attempt(partial(_read, pipeline, job), path, unexpected=_internal)

    threads = pipeline.ahead
    depth = pipeline.in_flight * job.batch + threads - 1
    with closing(ahead(read_one, job.stems, threads=threads)) as views:
        batches = in_batches(views, job.batch, kind=_kind)
        started = chain.from_iterable(map(start, batches))
        with closing(behind(finish, started, depth=depth, threads=threads)) as ends:
            for _ in ends:
                pass


def _scores(exam: str, report: Report, patient: Patient) -> ViewScores:
    view = report["input"]["view"]
    return ViewScores(
        exam=exam,
        view=View(view) if view else None,
        status=report["status"],
        scores=report["predictions"] or {},
        made_by=made_by(report["provenance"]),
        patient=dict(patient),
    )


def _read(pipeline: Pipeline, job: Job, path: Path) -> _Read | _Kept:
    settings, reading, difference = job.settings(path), job.reading_of(path), ""
    with unchanged(path) as sha256:
        if job.resume:
            made_by = {**pipeline.provenance, RUN: {"settings": settings}}
            earlier = earlier_result(job.out, job.stems[path], sha256, made_by)
            if earlier.report:
                return _Kept(report=earlier.report, patient=read_patient(path) or ())
            difference = earlier.difference
        given = read_input(path, reading)
    # the picture needs a black background at zero
    pixels = given.pixels if isinstance(given, Mammogram) else given.image - given.image.min()
    return _Read(
        pixels=pixels,
        prepared=pipeline.prepare(given),
        facts=run_facts(sha256, settings),
        uid=given.source.uids.get(_UID, "") if isinstance(given, Mammogram) else "",
        difference=difference,
    )


def _identity(view: _Read | _Kept) -> tuple[str, str]:
    """SOPInstanceUID of an input, "" without one, and SHA-256 of its content."""
    if isinstance(view, _Read):
        return view.uid, str(view.facts["input_sha256"])
    return view.report["input"]["uids"].get(_UID, ""), view.report["provenance"][RUN]["input_sha256"]


def read_input(path: Path, options: ReadOptions) -> Mammogram | NetworkInput:
    """The view in a file. Raises InputError."""
    if options.standardized:
        return read_standardized(path, view=options.view)
    return read(path, view=options.view, horizontal_flip=options.horizontal_flip, for_processing=options.for_processing)


def _kind(read: tuple[Path, _View]) -> bool | None:
    """The kind of views that may be in one batch; None for an input that the network does not get."""
    _, view = read
    return is_raw(view.prepared) if isinstance(view, _Read) else None


def _start(pipeline: Pipeline, batch: Sequence[_View]) -> Sequence[_Started | _Kept | GlamError]:
    """Start the views of a batch as one run; an input that the network does not get is alone in its batch."""
    read = [view for view in batch if isinstance(view, _Read)]
    if not read:
        return [view for view in batch if not isinstance(view, _Read)]
    runs = attempt(pipeline.submit_batch, [view.prepared for view in read], unexpected=_internal)
    if isinstance(runs, GlamError):
        return [runs] * len(read)
    return [_Started(pixels=view.pixels, pending=run, facts=view.facts) for view, run in zip(read, runs, strict=True)]


def _write(job: Job, path: Path, started: _Started) -> Outcome:
    found = started.pending.result()
    provenance, notices = {**found.provenance, RUN: started.facts}, (*found.notices, *started.notices)
    result = replace(found, provenance=provenance, notices=notices)
    write_result(job.out, job.stems[path], started.pixels, result, job.writing)
    job.on_result(path, result)
    notes = [f"{notice.code}: {notice.message}" for notice in result.notices]
    return Outcome(status="done", text=_summary(result), notes=notes, patient=result.input.source.patient)


def _outcome(job: Job, path: Path, started: _Started | _Kept | GlamError) -> Outcome:
    """Write the result, or the report of the failure; nothing for a result that is kept."""
    if isinstance(started, _Kept):
        return Outcome(status=KEPT, text="", patient=started.patient)
    written = attempt(partial(_write, job, path), started, unexpected=_internal)
    if not isinstance(written, GlamError):
        return written
    written = written.with_message_for(Caller.RUN)
    write_failure(job.out, job.stems[path], path.name, job.reading_of(path).view, written)
    status = "skipped" if isinstance(written, NotForThisNetwork) else "failed"
    return Outcome(status=status, text=str(written), lacking=isinstance(written, BackendUnavailable))


def _internal(error: Exception) -> GlamError:
    """An error without the text of the exception; prints its trace, without values, to standard error.

    Of too little memory, which is no fault of this program, BackendUnavailable.
    """
    if (lack := too_little_memory(error)) is not None:
        return lack
    click.echo("".join(traceback.format_tb(error.__traceback__)), err=True)
    return InternalError(
        f"{fault(error)}. This is a fault of glam-deploy; please report it with the trace on standard error."
    )


def _summary(result: Result) -> str:
    best = final_score(result.predictions)
    scores = ", ".join(f"{name} {value:.3f}" for name, value in result.predictions[best].items())
    view = result.input.view or "standardized"
    return f"{view}  {best}: {scores}  {sum(result.timings_ms.values()) / 1e3:.1f} s"


def _lines(job: Job, path: Path, outcome: Outcome) -> Sequence[str]:
    """The lines that are printed for an input."""
    if job.as_json:
        # json.dumps gives ASCII, which every terminal, pipe and locale can carry
        return [json.dumps(json.loads((job.out / (job.stems[path] + REPORT)).read_text("utf-8")))]
    if outcome.status == KEPT or (outcome.status == "done" and console.is_quiet()):
        return []
    return [f"{outcome.status:8}{path}  {outcome.text}", *(f"    {note}" for note in outcome.notes)]
