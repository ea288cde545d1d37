"""What commands print: tables and lines on standard output, progress on standard error."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.status import Status
from rich.table import Table
from rich.text import Text

# file names go through both, and must come out as they are
out = Console(highlight=False, markup=False, emoji=False)
err = Console(stderr=True, highlight=False, markup=False, emoji=False)


def line(text: str) -> Text:
    """One line that is cut where the terminal ends."""
    return Text(text, no_wrap=True, overflow="ellipsis")


def working(text: str) -> Status:
    """A line on standard error while a block runs; shows on a terminal only and leaves nothing behind."""
    return err.status(line(text))


def parity_table(rows: Iterable[Mapping[str, Any]], title: str) -> Table:
    """Comparison rows (see `metrics.Comparison.as_row`) for people."""
    table = Table(title=title, title_justify="left")
    table.add_column("output", overflow="fold")
    table.add_column("largest difference", justify="right", overflow="fold")
    table.add_column("limit", justify="right")
    table.add_column("")
    for row in rows:
        found = "not finite" if row["max_abs"] is None else f"{row['max_abs']:.2e}"
        verdict = Text("ok") if row["passed"] else Text("MISSED", style="bold red")
        table.add_row(row["output"], found, f"{row['limit']:.1e}", verdict)
    return table
