"""What a step is told, and the way in which it tells what it finds."""

import shutil
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from time import monotonic
from typing import Any, Self

from glam_bench.gpu_check.record import Record

GROUPS = ("kernels", "engines", "times", "soak")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line asked for."""

    bundle: Path
    work: Path
    """A folder for what steps hand to each other: the copy of the bundle, reference results."""
    groups: tuple[str, ...] = GROUPS
    device: int = 0
    images: int = 10_000
    """Of the soak."""
    threads: int = 8
    """Of the soak."""
    minutes: float = 20.0
    quick: bool = False
    """Fewer cases, runs and images: to see that everything works."""

    def as_json(self) -> dict[str, Any]:
        """For the record; `of` reads it back."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}

    @classmethod
    def of(cls, values: dict[str, Any]) -> Self:
        """From `as_json`, as another process has written it."""
        known = {f.name: values[f.name] for f in fields(cls)}
        paths = {name: Path(known[name]) for name in ("bundle", "work")}
        return cls(**{**known, **paths, "groups": tuple(known["groups"])})


@dataclass(frozen=True, kw_only=True)
class Context:
    """A step at work."""

    options: Options
    record: Record
    step: str
    argument: str = ""
    """What the step is about, where there are several of its kind."""
    ends: float = field(default=float("inf"))
    """When the step is stopped, as `time.monotonic` counts."""

    @property
    def bundle(self) -> Path:
        """The copy of the bundle, which may be built into; made when it is first asked for."""
        copy, draft = self.options.work / "bundle", self.options.work / "bundle.draft"
        if not copy.exists():
            shutil.rmtree(draft, ignore_errors=True)
            shutil.copytree(self.options.bundle, draft)
            draft.rename(copy)
        return copy

    @property
    def seconds_left(self) -> float:
        """Until the step is stopped."""
        return self.ends - monotonic()

    def keep(self, name: str, text: str) -> str:
        """Write a file beside the record, whole; its name, which begins with the record's."""
        path = self.record.path.with_name(f"{self.record.path.stem}-{name}")
        path.write_text(text, "utf-8")
        return path.name

    def add(self, **results: Any) -> None:
        """Write results down, now."""
        self.record.add(self.step, results)
