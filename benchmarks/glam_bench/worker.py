"""The parent's end of a child process that answers requests: `glam_bench.child`."""

import json
import os
import select
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path
from time import perf_counter
from typing import Any

from glam_deploy.errors import BackendRunError, BackendUnavailable
from glam_deploy.processes import python_command

CHILD = python_command("-m", "glam_bench.child")

Tell = Callable[[str], None]
"""Shows a line of progress."""


class RequestFailed(BackendRunError):
    """A child answered a request with an error; `exit_code` is that of the error in the child."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class WorkerEnded(RequestFailed):
    """A child ended before it had answered. `code`: of its process; `printed`: its log."""

    def __init__(self, code: int, printed: str) -> None:
        last = printed.strip().splitlines()[-1:]
        super().__init__(": ".join([f"its process ended with {code}", *(line[:200] for line in last)]))
        self.code, self.printed = code, printed


class TimedOut(RequestFailed):
    """A child did not answer in time and was ended. `printed`: its log."""

    def __init__(self, within_s: float, printed: str) -> None:
        super().__init__(f"it was not done within {within_s:.0f} s")
        self.printed = printed


class Worker:
    """A child process, started now. It ends with the block, together with every process that it has started itself."""

    def __init__(self, log: Path, command: Sequence[str] | None = None) -> None:
        """`log`: the file that takes what the child and its libraries print."""
        self.started = perf_counter()
        self._log = log
        with log.open("wb") as errors:
            # a group of its own: Ctrl-C reaches the parent alone, which ends all children
            self._process = subprocess.Popen(
                command or CHILD, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def ask(self, do: str, *, within_s: float, **request: Any) -> dict[str, Any]:
        """The answer of the child to a request.

        Raises BackendUnavailable where the machine lacks something, RequestFailed where the child failed, WorkerEnded
        where it ended, and TimedOut where it took longer than `within_s` seconds.
        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # `_line` raises the reason
            self._process.stdin.write(json.dumps({"do": do, **request}).encode() + b"\n")
            self._process.stdin.flush()
        reply: dict[str, Any] = json.loads(self._line(within_s))
        if "unavailable" in reply:
            raise BackendUnavailable(reply["unavailable"])
        if "error" in reply:
            raise RequestFailed(reply["error"], exit_code=reply["exit_code"])
        return reply

    def close(self) -> None:
        """End the child and its children, and wait until it has ended."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(BrokenPipeError):
            self._process.communicate()

    def _line(self, within_s: float) -> bytes:
        output = self._process.stdout
        assert output is not None
        ready, _, _ = select.select([output], [], [], None if within_s == inf else within_s)
        if not ready:
            self.close()
            raise TimedOut(within_s, self._printed())
        line = output.readline()
        if not line:
            raise WorkerEnded(self._process.wait(), self._printed())
        return line

    def _printed(self) -> str:
        return self._log.read_text("utf-8", "replace")


Start = Callable[[Path], Worker]
"""Starts a child whose log is the file named."""
