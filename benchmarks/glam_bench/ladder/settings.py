"""Options of `glam-deploy bench`."""

from dataclasses import dataclass
from pathlib import Path

from glam_bench.runner import Context, Options

EXAM = 4
"""Views of an exam."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How much is measured."""

    window_s: float = 2.0
    """A window lasts about so long, within the limits of its runs."""
    least_runs: int = 3
    most_runs: int = 40
    least_windows: int = 3
    most_windows: int = 6
    """Where medians are not stable, and time is left."""
    second_start: bool = True
    """Start each process twice, for the cold start with warm caches."""
    first_counts: bool = False
    """The first run of each process is the only one, and takes the place of all windows."""
    images: int = 4
    """The first is timed, all give answers."""
    matrix_side: int = 4096
    copy_bytes: int = 256 * 2**20


QUICK = Pace(
    window_s=0.0,
    least_runs=1,
    most_runs=1,
    least_windows=1,
    most_windows=1,
    second_start=False,
    first_counts=True,
    images=1,
    matrix_side=512,
    copy_bytes=2**24,
)
"""One run of one image, the first: shows that everything works, but is not a measurement."""


@dataclass(frozen=True, kw_only=True)
class Settings(Options):
    """The options of `bench`."""

    engines: tuple[str, ...]
    """Names of the registry, each once. The first also works from files to results."""
    patches: int
    images: tuple[Path, ...]
    """Files of views, of which the first few are the ladder's; none: a demo exam is made."""
    threads: int | None = None
    flavour: str | None = None
    baselines: bool = True
    """The whole ladder; without it the published way and the engines alone."""
    files: bool = True
    """Also from files to results."""
    minutes: float = 12.0
    """No window beyond the least number is begun after so long."""
    pace: Pace = Pace()


BenchContext = Context[Settings]
