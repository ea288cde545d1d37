"""Tables on standard output, with the same looks for every benchmark."""

from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table

from glam_deploy.cli import console

LEFT = frozenset({"", "stage", "of", "step", "engine", "flavour", "limit", "found"})
"""Columns of text; all others hold numbers."""

Rows = Iterable[Sequence[str]]


def show_table(
    title: str | None,
    columns: Sequence[str],
    rows: Rows,
    *,
    caption: str | None = None,
    log_width: int | None = None,
) -> None:
    """Print a table, unless it has no rows. Columns of numbers are right-justified, and long cells are folded.

    `log_width`: columns of a table that goes into a file or a pipe [those of the terminal, or 80].
    """
    table = Table(
        title=title,
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for column in columns:
        table.add_column(column, justify="left" if column in LEFT else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    if table.row_count:
        width = None if console.out.is_terminal else log_width
        # without markup: libraries write [file::function::line] into their messages
        console.plain_console(width=width).print(table)


def in_ms(milliseconds: float) -> str:
    """Whole milliseconds from a second on, three digits below."""
    return f"{milliseconds:.0f}" if milliseconds >= 1000 else f"{milliseconds:.3g}"
