"""Standard output and standard error that cannot be written, as on a full disk or with a reader that has ended.

The work of a command does not depend on them: it goes on. If output is lost, the exit code and a line on standard error
tell it.
"""

import sys
from io import BufferedWriter, RawIOBase, TextIOWrapper
from typing import Any

import click

from glam_deploy.errors import unwritable


class _Sink(RawIOBase):
    """Writes to another raw stream up to the first error, which it keeps; what follows is dropped."""

    def __init__(self, raw: RawIOBase) -> None:
        self._raw = raw
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def isatty(self) -> bool:
        return self._raw.isatty()

    def write(self, data: Any) -> int | None:
        if self.error is None:
            try:
                return self._raw.write(data)
            except OSError as error:
                self.error = error
        return memoryview(data).nbytes


class StandardStreams:
    """Makes `sys.stdout` and `sys.stderr` streams that raise no error.

    A character that the encoding lacks, as of a file name, is written as an escape.
    """

    def __init__(self) -> None:
        self._out = _guard("stdout")
        _guard("stderr")

    def exit_code(self, status: int) -> int:
        """`status`, or 1 instead of 0 if standard output could not be written, which is printed to standard error.

        Nothing is printed for a pipe whose reader has ended, as `head` does, because the user has chosen that.
        """
        if self._out is None:
            return status
        sys.stdout.flush()
        if self._out.error is None:
            return status
        if not isinstance(self._out.error, BrokenPipeError):
            click.echo(f"glam-deploy: standard output cannot be written {unwritable(self._out.error)}", err=True)
        return status or 1


def _guard(name: str) -> _Sink | None:
    """Replace a stream of `sys`; None if it writes to no file, or is missing."""
    stream = getattr(sys, name)
    if not isinstance(stream, TextIOWrapper):
        return None
    stream.reconfigure(errors="backslashreplace")
    raw = getattr(stream.buffer, "raw", stream.buffer)  # PYTHONUNBUFFERED leaves out the buffer
    if not isinstance(raw, RawIOBase):
        return None
    stream.flush()
    sink, is_prompt = _Sink(raw), stream.line_buffering or stream.write_through
    guarded = TextIOWrapper(
        BufferedWriter(sink), encoding=stream.encoding, errors=stream.errors, line_buffering=is_prompt
    )
    setattr(sys, name, guarded)
    return sink
