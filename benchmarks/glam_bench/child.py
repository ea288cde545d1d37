"""A child process of the benchmarks. It answers each request, a line of JSON, with a line of JSON, until its standard
input ends:

    python -m glam_bench.child

Its standard output carries answers alone; what libraries print there goes to standard error. It runs one measurement
(`measure`), or one rung of the ladder (`open`, then the other requests).
"""

import json
import os
import resource
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from glam_bench import runner
from glam_bench.clock import timed
from glam_bench.images import standardized_view
from glam_bench.ladder.opening import open_rung
from glam_bench.ladder.rungs import Run, RungPlan, Runner
from glam_bench.record import Record
from glam_deploy.errors import BackendUnavailable, GlamError
from glam_deploy.installation import refusal
from glam_deploy.json_records import to_json
from glam_deploy.records import NetworkInput

Reply = dict[str, Any]


class Child:
    """Answers requests; every public method is one, its arguments those of the request."""

    def __init__(self) -> None:
        self._runner: Runner | None = None
        self._views: list[NetworkInput] = []
        self._first: Run | None = None
        self._first_ms = 0.0

    def measure(self, profile: str, module: str, argument: str, record: str, limit_s: float) -> Reply:
        """Run a measurement into a record. `profile`: the module that has the profile as PROFILE."""
        opened = Record.open(Path(record))
        options = import_module(profile).PROFILE.options.of(opened.content["options"])
        runner.run_here(runner.Measurement(module=module, argument=argument), options, opened, limit_s=limit_s)
        return {}

    def open(self, plan: Mapping[str, Any], bundle: str, patches: int, threads: int | None, images: list[str]) -> Reply:
        """Open a rung and run it once."""
        self._views = [standardized_view(Path(image)) for image in images]
        self._runner = open_rung(_plan(plan), Path(bundle), patches=patches, threads=threads)
        self._first_ms, self._first = timed(partial(self._run, self._views[0]))
        return {
            "first_run_ms": self._first_ms,
            "engine": to_json(self._runner.identity),
            "build_s": self._runner.build_s,
        }

    def answer(self, folder: str) -> Reply:
        """Write the results for all images into a folder; milliseconds of each image after the first."""
        assert self._first is not None
        later = [timed(partial(self._run, view)) for view in self._views[1:]]
        for number, run in enumerate([self._first, *(run for _, run in later)]):
            np.savez(Path(folder) / f"{number:03}.npz", **run.answer)  # type: ignore[arg-type]  # its stub takes a bool first
        return {"ms": [ms for ms, _ in later]}

    def first(self) -> Reply:
        """The first run as a window of one."""
        assert self._first is not None
        return {"ms": [self._first_ms], "stages": [dict(self._first.stages_ms)]}

    def window(self, warm_up: int, runs: int) -> Reply:
        """Milliseconds of `runs` runs of the first image, and of their steps, after `warm_up` that do not count."""
        for _ in range(warm_up):
            self._run(self._views[0])
        times = [timed(partial(self._run, self._views[0])) for _ in range(runs)]
        return {"ms": [ms for ms, _ in times], "stages": [dict(run.stages_ms) for _, run in times]}

    def memory(self) -> Reply:
        """The largest memory that this process has held, MiB: resident, and PyTorch's on a GPU."""
        torch = sys.modules.get("torch")
        device = torch.cuda.max_memory_allocated() / 2**20 if torch and torch.cuda.is_available() else None
        return {"rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "device": device}

    def _run(self, view: NetworkInput) -> Run:
        assert self._runner is not None  # `open` comes first
        return self._runner(view)


def main() -> None:
    """Answer requests until standard input ends."""
    answers, child = _private_stdout(), Child()
    for line in sys.stdin:
        request = json.loads(line)
        answers.write(json.dumps(_reply(getattr(child, request.pop("do")), request)) + "\n")
        answers.flush()


def _reply(call: Callable[..., Reply], request: Mapping[str, Any]) -> Reply:
    """The reply to a request, or its error with the exit code that belongs to it."""
    try:
        return call(**request)
    except BackendUnavailable as error:
        return {"unavailable": str(error)}
    except GlamError as error:
        return {"error": str(error), "exit_code": error.exit_code}
    except ModuleNotFoundError as error:
        absence = refusal(error)
        return {"unavailable": str(absence)} if absence else _failed(error)
    except Exception as error:  # of a library that is measured: only this measurement or rung is lost
        return _failed(error)


def _failed(error: Exception) -> Reply:
    return {"error": f"{type(error).__name__}: {error}", "exit_code": 1}


def _private_stdout() -> TextIO:
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return kept


def _plan(values: Mapping[str, Any]) -> RungPlan:
    return RungPlan(**{**values, "needs": tuple(values["needs"])})


if __name__ == "__main__":
    main()
