"""The runner of the benchmarks: the measurements of a profile, one after another, into one record.

A profile (`bench`, `gpu_check`, `first_light`) has options and a plan that yields measurements. A measurement is a
module of `glam_bench.measurements` whose function `run` takes a `Context`. It runs in a process of its own, so that one
that crashes, hangs or loses the GPU keeps what it has added to the record before and does not reach the others. A
measurement that supervises processes itself runs in the process of the runner.
"""

import shutil
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, is_dataclass
from importlib import import_module
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any, Generic, Self, TypeVar, get_args, get_origin, get_type_hints

from glam_bench.record import Record
from glam_bench.worker import Start, Tell, TimedOut, Worker, WorkerEnded
from glam_deploy.durable import write_whole
from glam_deploy.errors import BackendBuildError, BackendUnavailable, GlamError
from glam_deploy.installation import refusal

PRINTED = 4000
"""Characters kept of what a process had printed before it ended, and of a traceback."""
SHORTEST_S = 5.0
"""A measurement with less time than this is not begun."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every profile is given; each adds fields of its own."""

    bundle: Path
    work: Path = Path()
    """A folder for what measurements hand to each other: a copy of the bundle, images, reference results."""

    def as_json(self) -> dict[str, Any]:
        """All fields with paths as text, for the record; `of` reads it back."""
        values: dict[str, Any] = _plain(asdict(self))
        return values

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """From `as_json`, as another process has written it."""
        options: Self = _typed(cls, values)
        return options


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A module of `glam_bench.measurements`, and what it measures where that can be one of several."""

    module: str
    argument: str = ""
    """An engine, a TensorRT flavour, a part."""
    limit_s: float = inf
    apart: bool = True
    """In a process of its own."""
    required: bool = False
    """Where it fails, the run ends with its error."""
    title: str = ""
    """The line of progress [the name]."""

    @property
    def name(self) -> str:
        """Its key in the record."""
        return f"{self.module}:{self.argument}" if self.argument else self.module


O = TypeVar("O", bound=Options)  # noqa: E741 - the options of a profile


@dataclass(frozen=True, kw_only=True)
class Profile(Generic[O]):
    """What one benchmark measures, in which order."""

    module: str
    """The module whose constant PROFILE this is, for the processes of its measurements."""
    options: type[O]
    plan: Callable[[O, Record], Iterator[Measurement]]
    """Measurements in order, asked for one by one, because later ones may depend on what the record has by then."""


def silent(_: str) -> None:
    """Show no progress."""


@dataclass(frozen=True, kw_only=True)
class Context(Generic[O]):
    """What a measurement is given, and where it writes what it finds."""

    options: O
    record: Record
    name: str
    argument: str = ""
    ends: float = inf
    """When the measurement is stopped, on the clock of `time.monotonic`."""
    tell: Tell = silent
    """Shows a line of progress; for measurements in the process of the runner."""
    start: Start = Worker
    """Starts a process that answers requests, given the file of its log."""

    @property
    def seconds_left(self) -> float:
        """Until the measurement is stopped."""
        return self.ends - monotonic()

    @property
    def bundle(self) -> Path:
        """A copy of the bundle in the work folder, into which engines may be built; made on first use."""
        copy, draft = self.options.work / "bundle", self.options.work / "bundle.draft"
        if not copy.exists():
            shutil.rmtree(draft, ignore_errors=True)
            shutil.copytree(self.options.bundle, draft)
            draft.rename(copy)
        return copy

    def add(self, **results: Any) -> None:
        """Write results into the record, now."""
        self.record.add(self.name, results)

    def keep(self, name: str, text: str) -> str:
        """Write a text file beside the record; returns its name, which begins with that of the record."""
        path = self.record.path.with_name(f"{self.record.path.stem}-{name}")
        write_whole(path, text.encode())
        return path.name


def run(
    profile: Profile[O],
    options: O,
    record: Record,
    *,
    within_s: float = inf,
    tell: Tell = silent,
    start: Start = Worker,
) -> Iterator[Measurement]:
    """Run the plan of a profile; yields each measurement when it has ended, with its results in the record.

    `within_s`: seconds for all of them; a measurement for which too few are left is noted and left out. Raises the
    error of a required measurement; any other is in the record alone.
    """
    ends = monotonic() + within_s
    for measurement in profile.plan(options, record):
        limit = min(measurement.limit_s, ends - monotonic())
        tell(measurement.title or measurement.name)
        try:
            if measurement.apart:
                run_apart(measurement, profile, options, record, limit_s=limit, start=start)
            else:
                run_here(measurement, options, record, limit_s=limit, tell=tell, start=start)
        except GlamError:
            if measurement.required:
                raise
        yield measurement


def run_apart(
    measurement: Measurement, profile: Profile[O], options: O, record: Record, *, limit_s: float, start: Start = Worker
) -> None:
    """Run a measurement in a process of its own. How it ended is noted in the record, and raised where it failed."""
    name = measurement.name
    if limit_s < SHORTEST_S:
        record.note(name, status="no time left")
        return
    record.note(name, status="running")
    begun = monotonic()
    request = {"profile": profile.module, "module": measurement.module, "argument": measurement.argument}
    try:
        with start(options.work / f"{name.replace(':', '.')}.log") as worker:
            worker.ask("measure", within_s=limit_s, record=str(record.path), limit_s=limit_s, **request)
    except GlamError as error:
        record.reload()
        if isinstance(error, TimedOut) or record.steps[name]["status"] == "running":
            record.note(name, **_ending(error, limit_s))
        raise
    finally:
        record.reload()
        record.note(name, seconds=round(monotonic() - begun, 2))


def _ending(error: GlamError, limit_s: float) -> dict[str, str]:
    """Status and error of a measurement whose process did not live to note them itself."""
    if isinstance(error, TimedOut):
        words = f"not done after {limit_s:.3g} s. It had printed: {error.printed[-PRINTED:]}"
        return {"status": "stopped", "error": words}
    if isinstance(error, WorkerEnded):
        how = f"signal {-error.code}" if error.code < 0 else f"exit code {error.code}"
        return {"status": "crashed", "error": f"died with {how}. It had printed: {error.printed[-PRINTED:]}"}
    return {"status": "failed", "error": str(error)}


def run_here(
    measurement: Measurement,
    options: O,
    record: Record,
    *,
    limit_s: float = inf,
    tell: Tell = silent,
    start: Start = Worker,
) -> None:
    """Run a measurement in this process. How it ended is noted in the record, and raised where it failed.

    Raises BackendUnavailable also for a package that is not installed.
    """
    name = measurement.name
    context = Context(
        options=options,
        record=record,
        name=name,
        argument=measurement.argument,
        ends=monotonic() + limit_s,
        tell=tell,
        start=start,
    )
    try:
        import_module(f"glam_bench.measurements.{measurement.module}").run(context)
    except (BackendUnavailable, BackendBuildError) as error:
        record.note(name, status="refused", error=str(error))
        raise
    except ModuleNotFoundError as error:
        if absence := refusal(error):
            record.note(name, status="refused", error=str(absence))
            raise absence from error
        record.note(name, status="failed", error=_trace())
        raise
    except Exception:
        record.note(name, status="failed", error=_trace())
        raise
    record.note(name, status="done")


def _trace() -> str:
    return traceback.format_exc()[-PRINTED:]


def _plain(value: Any) -> Any:
    """As JSON takes it: paths as text, tuples as lists."""
    if isinstance(value, dict):
        return {key: _plain(held) for key, held in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(held) for held in value]
    return str(value) if isinstance(value, Path) else value


def _typed(kind: Any, value: Any) -> Any:
    """The value of a field of a type from what `_plain` made of it."""
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{field.name: _typed(hints[field.name], value[field.name]) for field in fields(kind)})  # type: ignore[operator]
    if get_origin(kind) is tuple:
        return tuple(_typed(get_args(kind)[0], held) for held in value)
    return Path(value) if kind is Path else value
