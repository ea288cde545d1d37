"""The parent's end of a child process."""

import json
import os
import select
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

from glam_deploy.errors import BackendRunError, BackendUnavailable, GlamError
from glam_deploy.processes import python_command

CHILD = python_command("-m", "glam_bench.bench.child")


class RungFailed(BackendRunError):
    """A rung's process said no, crashed or took too long."""


class Worker:
    """A child, started now. It ends with the block, with everything that it has started itself."""

    def __init__(self, log: Path, command: Sequence[str] | None = None) -> None:
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
        """The child's answer.

        Raises BackendUnavailable where it says that the machine lacks something, RungFailed where it failed, ended or
        took longer than `within_s`.
        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # what ended it is told below
            self._process.stdin.write(json.dumps({"do": do, **request}).encode() + b"\n")
            self._process.stdin.flush()
        reply = json.loads(self._line(within_s))
        if "unavailable" in reply:
            raise BackendUnavailable(reply["unavailable"])
        if "error" in reply:
            raise _failed(reply["error"], reply["exit_code"])
        answer: dict[str, Any] = reply
        return answer

    def close(self) -> None:
        """End it and wait until it has."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        with suppress(BrokenPipeError):
            self._process.communicate()

    def _line(self, within_s: float) -> bytes:
        output = self._process.stdout
        assert output is not None
        ready, _, _ = select.select([output], [], [], within_s)
        if not ready:
            self.close()
            raise _failed(f"it was not done within {within_s:.0f} s", 1)
        line = output.readline()
        if not line:
            self._process.wait()
            raise _failed(f"its process ended with {self._process.returncode}{self._last_words()}", 1)
        return line

    def _last_words(self) -> str:
        lines = self._log.read_text("utf-8", "replace").strip().splitlines()
        return f": {lines[-1][:200]}" if lines else ""


def _failed(words: str, exit_code: int) -> GlamError:
    error = RungFailed(words)
    error.exit_code = exit_code
    return error
