"""Output of commands: tables and lines on standard output, progress on standard error."""

import logging
import os
import shlex
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from operator import attrgetter
from typing import Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.status import Status
from rich.table import Column, Table
from rich.text import Text

from glam_deploy.bundle import ParityRow


def printable(text: str) -> str:
    """Text in one line: control characters, line breaks and marks of direction become escapes.

    They could write anything to a terminal, such as the line of another file.
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class _Console(Console):
    """Prints each text as one `printable` line, because it may be from a file or its name; Text and Table as they are.

    Several lines are several texts, and `sep="\\n"`.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(printable(each) if isinstance(each, str) else each for each in objects), **options)


def plain_console(*, stderr: bool = False, width: int | None = None) -> Console:
    """A console without markup and emoji codes, because file names must be printed unchanged.

    It writes colours and moving lines only if its stream is a terminal. rich alone would do so too where FORCE_COLOR,
    TTY_COMPATIBLE or TTY_INTERACTIVE are set, as CI systems and notebooks do, whose logs would get every frame.
    """
    stream = sys.stderr if stderr else sys.stdout
    is_terminal = stream is not None and stream.isatty()
    is_dumb = os.environ.get("TERM", "").lower() in ("dumb", "unknown")
    return _Console(
        stderr=stderr,
        width=width,
        force_terminal=is_terminal,
        force_interactive=is_terminal and not is_dumb,
        force_jupyter=False,
        highlight=False,
        markup=False,
        emoji=False,
    )


out = plain_console()
err = plain_console(stderr=True)

WIDE = 80
"""Width of a terminal, in columns, from which the bar is long."""

log = logging.getLogger("glam_deploy")


def settle(verbosity: int) -> None:
    """Set the verbosity: -1 no progress and no remarks (`is_quiet`), 1 logs at INFO, 2 or more at DEBUG."""
    err.quiet = verbosity < 0
    for handler in [handler for handler in log.handlers if isinstance(handler, _LogHandler)]:
        log.removeHandler(handler)
    log.setLevel({1: logging.INFO}.get(verbosity, logging.DEBUG) if verbosity > 0 else logging.NOTSET)
    if verbosity >= 0:  # warnings are shown unless -q was given
        log.addHandler(_LogHandler())


def is_quiet() -> bool:
    """Whether -q was given."""
    return err.quiet


class _LogHandler(logging.Handler):
    """Writes log records to standard error, above the progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{record.levelname} {record.name}: {record.getMessage()}"
        err.print(text, soft_wrap=True)


def command_again(option: str) -> str:
    """The shell command of this process, with a further option."""
    context = click.get_current_context()
    arguments = list(context.find_root().obj or ())
    if option not in arguments and context.info_name in arguments:
        arguments.insert(arguments.index(context.info_name) + 1, option)
    return shlex.join(["glam-deploy", *arguments])


def line(text: str) -> Text:
    """`printable` text that is cut at the width of the terminal."""
    return Text(printable(text), no_wrap=True, overflow="ellipsis")


def working(text: str) -> Status:
    """A line on standard error while a block runs; only on a terminal, and erased afterwards."""
    return err.status(line(text))


def progress(*, rate: bool = False) -> Progress:
    """A bar with m/n, time and description on standard error; only on a terminal, and erased afterwards.

    `rate`: whether to show the task's field `pace` (rate and remaining time) too.
    """
    return Progress(
        # no wrapping, because lines above the bar would be erased with it
        BarColumn(20 if err.width >= WIDE else 8, table_column=Column(no_wrap=True)),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        TimeElapsedColumn(table_column=Column(no_wrap=True)),
        *([TextColumn("{task.fields[pace]}", markup=False, table_column=Column(no_wrap=True))] if rate else []),
        _Description(),
        console=err,
        transient=True,
        # rich would redirect standard output to standard error
        redirect_stdout=False,
        disable=not err.is_interactive or is_quiet(),
    )


class _Description(ProgressColumn):
    """Description of the task; the first column to be cut."""

    def render(self, task: Task) -> Text:
        return line(task.description)


@contextmanager
def paused(bar: Progress) -> Iterator[None]:
    """Hide the bar while a block prints to standard output, which may be the same terminal."""
    bar.stop()
    yield
    bar.start()


def parity_table(rows: Iterable[ParityRow], title: str) -> Table:
    """Table of comparisons with the reference, a section for each precision."""
    table = Table(title=f"{title}: differences", title_justify="left")
    table.add_column("output", overflow="fold")
    for name in ("largest", "mean", "limit"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column("")
    for precision, group in groupby(rows, key=attrgetter("precision")):
        table.add_section()
        half = precision != "fp32"
        for row in group:
            table.add_row(
                f"{precision} {row.output}" if half else row.output,
                _difference(row.max_abs),
                _difference(row.mean_abs),
                f"{'mean' if half else 'largest'} {row.limit:.1e}",
                Text(_ok(row)) if row.passed else Text("MISSED", style="bold red"),
            )
    return table


def _ok(row: ParityRow) -> str:
    return f"ok, {row.tied} tied" if row.tied else "ok"


def _difference(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.2e}"
