"""What `run` is to do, and what became of each input."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from glam_deploy.outputs.table import TABLE, require_table
from glam_deploy.outputs.writer import OutputOptions, require_makeable
from glam_deploy.records import View
from glam_deploy.runtime.result import Result


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
    views: Mapping[Path, View] = field(default_factory=dict)
    """The view of inputs that a table names, in the place of `reading.view`."""
    table: bool = False
    """Write results.csv, and say how to go on where the run is stopped."""
    resume: bool = False
    """Leave inputs alone that have a complete result of an earlier run, made in the same way."""
    again: str = ""
    """The command that goes on where this run was stopped."""
    as_json: bool = False
    on_result: Callable[[Path, Result], None] = lambda path, result: None

    def reading_of(self, path: Path) -> ReadOptions:
        """How to take one input."""
        return replace(self.reading, view=self.views.get(path, self.reading.view))

    def settings(self, path: Path) -> dict[str, object]:
        """What a result depends on beside its input and the pipeline; JSON-ready."""
        return asdict(self.reading_of(path)) | asdict(self.writing)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one input."""

    status: str
    """"done", "skipped" or "failed", as in the report, or KEPT."""
    text: str
    lacking: bool = False
    """It failed because this machine lacks a package."""


def require_room(job: Job) -> None:
    """Raises UsageError where nothing could be put into `job.out`: before an engine is opened.

    Files of others in the way of single results were refused when the stems were made (`cli.inputs.plan`).
    """
    require_makeable(job.out)
    if job.table:
        require_table(job.out / TABLE)
