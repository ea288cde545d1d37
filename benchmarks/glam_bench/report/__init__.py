"""The report of a bench: one HTML file, and the ladder's plot by itself."""

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path

from glam_bench.report import style
from glam_bench.report.gates import gate_section
from glam_bench.report.markup import raw
from glam_bench.report.page import page
from glam_bench.report.plots import ladder
from glam_bench.report.sections import sections
from glam_bench.schema import Results
from glam_deploy.durable import write_whole
from glam_deploy.errors import UsageError

LADDER_WIDTH = 760.0
"""Pixels; a README shows about as many."""


def write(results: Results, path: Path, *, gates: Sequence[Path] = ()) -> None:
    """Write the report: one self-contained HTML file, no scripts, nothing from the network.

    `gates`: folders that `glam-deploy gate --out` wrote; their worst cases are shown. All data is escaped. Raises
    UsageError where a gate's folder cannot be read or a figure is not finite, OSError as the file system does.
    """
    _require_finite(results)
    write_whole(path, page(results, sections(results, gates)).encode())


def check_gates(folders: Sequence[Path]) -> None:
    """Raises UsageError where a gate's folder cannot be read: for a bench to know before it measures."""
    for number, folder in enumerate(folders, start=1):
        gate_section(folder, number)


def write_ladder_svg(results: Results, path: Path) -> None:
    """Write `ladder_svg`."""
    write_whole(path, ladder_svg(results).encode())


def ladder_svg(results: Results, width: float = LADDER_WIDTH) -> str:
    """The ladder's plot as an SVG that stands alone, on a ground of its own, in light and dark.

    Rungs that could not run are left out: the report says why.
    """
    _require_finite(results)
    ran = results.copy()
    ran["ladder"] = [rung for rung in results["ladder"] if rung.get("latency_ms")]
    return ladder.draw(ran, width).standalone(raw(style.standalone()))


def _require_finite(value: object, place: str = "the results") -> None:
    """NaN has no place in a plot, and no figure of a sound bench is one."""
    if isinstance(value, float) and not isfinite(value):
        raise UsageError(f"{place} is {value}, expected a finite number or null. Run the bench again.")
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        _require_finite(item, f"{place}.{key}")
