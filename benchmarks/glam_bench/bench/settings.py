"""What a bench is told."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How much is measured."""

    window_s: float = 2.0
    """A window lasts about so long, within the limits of its runs."""
    least_runs: int = 3
    most_runs: int = 40
    least_windows: int = 3
    most_windows: int = 6
    """Where medians do not hold still, and time is left."""
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
"""One run of one image, the first: shows that everything works, and measures nothing."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One bench."""

    bundle: Path
    engines: tuple[str, ...]
    """Names of the registry, each once. The first also works from files to results."""
    patches: int
    images: tuple[Path, ...]
    """Files of views; the first few are the ladder's."""
    threads: int | None = None
    flavour: str | None = None
    baselines: bool = True
    """The whole ladder; without it the published way and the engines alone."""
    files: bool = True
    """Also from files to results."""
    minutes: float = 12.0
    """No window beyond the least number is begun after so long."""
    pace: Pace = Pace()
