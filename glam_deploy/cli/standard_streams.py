"""Standard output and standard error that cannot be written, as on a full disk or with a reader that has ended.

The work of a command does not depend on them: it goes on. If output is lost, the exit code and a line on standard error
tell it.
"""

import os
import sys
from io import BufferedWriter, FileIO, TextIOWrapper

import click

from glam_deploy.errors import unwritable


class _Guarded(TextIOWrapper):
    """Text over the buffer of another stream, up to the first error, which it keeps; what follows is dropped.

    The buffer and the raw stream stay Python's own: Ctrl-C in a raw stream written in Python comes after the bytes were
    written and before their number is returned, and the buffer writes them again.
    """

    def __init__(self, stream: TextIOWrapper) -> None:
        super().__init__(
            stream.buffer, encoding=stream.encoding, errors="backslashreplace",
            line_buffering=stream.line_buffering, write_through=stream.write_through,
        )  # fmt: skip
        self.error: OSError | None = None

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._drop_the_rest(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._drop_the_rest(error)

    def _drop_the_rest(self, error: OSError) -> None:
        """From now on the file descriptor, which the buffer will be flushed to, is the null device."""
        self.error = self.error or error
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.fileno())
        os.close(null)


class StandardStreams:
    """Makes `sys.stdout` and `sys.stderr` streams that raise no error.

    A character that the encoding lacks, as of a file name, is written as an escape.
    """

    def __init__(self) -> None:
        _open_closed()
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


def _open_closed() -> None:
    """Open the null device where a standard stream is closed: the next file would get its descriptor, and with it what
    libraries print. For reading only, so that output is an error and not lost without a word.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDONLY)
            if number and opened == number:
                stream = TextIOWrapper(BufferedWriter(FileIO(number, "wb", closefd=False)), "utf-8")
                setattr(sys, name, stream)
                setattr(sys, f"__{name}__", stream)  # which keeps its buffer open


def _guard(name: str) -> _Guarded | None:
    """Replace a stream of `sys`; None if it writes to no file, or is missing."""
    stream = getattr(sys, name)
    if not isinstance(stream, TextIOWrapper):
        return None
    try:
        stream.fileno()
    except ValueError:  # closed, or in memory
        return None
    stream.flush()
    guarded = _Guarded(stream)
    setattr(sys, name, guarded)
    return guarded
