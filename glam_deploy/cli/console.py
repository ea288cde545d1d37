"""What commands print: tables and lines on standard output, progress on standard error."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


def progress_bar() -> Progress:
    """A bar on standard error that shows on a terminal only and leaves nothing behind."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=err, transient=True, disable=not err.is_terminal)


def parity_table(rows: Iterable[Mapping[str, Any]], title: str) -> Table:
    """Comparison rows (see `metrics.Comparison.as_row`) for people."""
    table = Table(title=title, title_justify="left")
    table.add_column("output", overflow="fold")
    table.add_column("largest difference", justify="right")
    table.add_column("limit", justify="right")
    table.add_column("")
    for row in rows:
        found = "not finite" if row["max_abs"] is None else f"{row['max_abs']:.2e}"
        table.add_row(row["output"], found, f"{row['limit']:.1e}", "ok" if row["passed"] else "[bold red]MISSED[/]")
    return table
