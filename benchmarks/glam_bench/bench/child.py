"""A process of its own for each rung: it answers one JSON line to each JSON line, until its standard input ends.

    python -m glam_bench.bench.child

Its standard output carries answers alone; whatever libraries print there goes to standard error.
"""

import json
import os
import resource
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter
from typing import Any, TextIO

import numpy as np

from glam_bench.bench.opening import open_rung
from glam_bench.bench.rungs import RungPlan
from glam_bench.bench.runner import Run, Runner
from glam_deploy.errors import BackendUnavailable, GlamError
from glam_deploy.installation import refusal
from glam_deploy.json_records import to_json
from glam_deploy.preprocess import from_standardized
from glam_deploy.records import NetworkInput, Source

Reply = dict[str, Any]


class Rung:
    """One rung at work."""

    def __init__(self) -> None:
        self._runner: Runner | None = None
        self._views: list[NetworkInput] = []
        self._first: Run | None = None
        self._first_ms = 0.0

    def open(self, plan: Mapping[str, Any], bundle: str, patches: int, threads: int | None, images: list[str]) -> Reply:
        """Up to the first result."""
        self._views = [_view(Path(image)) for image in images]
        self._runner = open_rung(_plan(plan), Path(bundle), patches=patches, threads=threads)
        self._first_ms, self._first = _timed(lambda: self._run(self._views[0]))
        return {
            "first_run_ms": self._first_ms,
            "engine": to_json(self._runner.identity),
            "build_s": self._runner.build_s,
        }

    def answer(self, folder: str) -> Reply:
        """The answer for every image, in files for the parent to compare; milliseconds of each after the first."""
        assert self._first is not None
        later = [_timed(lambda view=view: self._run(view)) for view in self._views[1:]]  # type: ignore[misc]
        for number, run in enumerate([self._first, *(run for _, run in later)]):
            np.savez(Path(folder) / f"{number:03}.npz", **run.answer)  # type: ignore[arg-type]  # its stub takes a bool first
        return {"ms": [ms for ms, _ in later]}

    def first(self) -> Reply:
        """The first run as a window of one."""
        assert self._first is not None
        return {"ms": [self._first_ms], "stages": [dict(self._first.stages_ms)]}

    def window(self, warm_up: int, runs: int) -> Reply:
        """Milliseconds of so many runs of the first image, and of their steps."""
        for _ in range(warm_up):
            self._run(self._views[0])
        timed = [_timed(lambda: self._run(self._views[0])) for _ in range(runs)]
        return {"ms": [ms for ms, _ in timed], "stages": [dict(run.stages_ms) for _, run in timed]}

    def memory(self) -> Reply:
        """The most that this process has held, MiB."""
        device = sys.modules["torch"].cuda.max_memory_allocated() / 2**20 if _torch_on_gpu() else None
        return {"rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "device": device}

    def peaks(self, matrix_side: int, copy_bytes: int) -> Reply:
        """See `peaks.measure`."""
        from glam_bench.bench.peaks import measure

        return dict(measure(matrix_side, copy_bytes))

    def arithmetic(self, bundle: str) -> Reply:
        """See `arithmetic.of_bundle`."""
        from glam_bench.arithmetic import of_bundle

        return dict(of_bundle(Path(bundle)))

    def files(self, **job: Any) -> Reply:
        """See `files.measure`."""
        from glam_bench.bench.files import measure

        found: Reply = measure(**job)
        return found

    def _run(self, view: NetworkInput) -> Run:
        assert self._runner is not None  # the parent opens first
        return self._runner(view)


def main() -> None:
    """Serve the parent; it ends this process by closing the pipe."""
    answers = _private_stdout()
    rung = Rung()
    for line in sys.stdin:
        request = json.loads(line)
        answers.write(json.dumps(_reply(getattr(rung, request.pop("do")), request)) + "\n")
        answers.flush()


def _reply(call: Callable[..., Reply], request: Mapping[str, Any]) -> Reply:
    """What came of it; an error as its kind and its words."""
    try:
        return call(**request)
    except BackendUnavailable as error:
        return {"unavailable": str(error)}
    except GlamError as error:
        return {"error": str(error), "exit_code": error.exit_code}
    except ModuleNotFoundError as error:
        absence = refusal(error)
        return {"unavailable": str(absence)} if absence else _failed(error)
    except Exception as error:  # of a library that is measured: it costs its own rung alone
        return _failed(error)


def _failed(error: Exception) -> Reply:
    return {"error": f"{type(error).__name__}: {error}", "exit_code": 1}


def _private_stdout() -> TextIO:
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return kept


def _plan(values: Mapping[str, Any]) -> RungPlan:
    return RungPlan(**{**values, "needs": tuple(values["needs"])})


def _view(path: Path) -> NetworkInput:
    return from_standardized(np.load(path), source=Source(name=path.stem, kind="npy"))


def _timed(call: Callable[[], Run]) -> tuple[float, Run]:
    start = perf_counter()
    run = call()
    return (perf_counter() - start) * 1e3, run


def _torch_on_gpu() -> bool:
    return "torch" in sys.modules and bool(sys.modules["torch"].cuda.is_available())


if __name__ == "__main__":
    main()
