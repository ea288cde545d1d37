"""What is done, in which order, and each step in a process of its own."""

import importlib
import subprocess
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from glam_bench.gpu_check.context import Context, Options
from glam_bench.gpu_check.record import Record
from glam_deploy.errors import BackendBuildError, BackendUnavailable, GlamError
from glam_deploy.installation import refusal
from glam_deploy.precision import Precision
from glam_deploy.processes import python_command

LAST_WORDS = 4000
"""Characters kept of what a step that died had printed."""
SHORTEST_S = 5.0
"""A step with less time than this is not begun."""
BROKEN = frozenset({"refused", "failed", "crashed"})
"""Ways to end after which there is no use in going on with an engine; one that was only slow may do."""
FLAVOURS = ("tensorrt", "tensorrt-rtx")
PROGRAM = python_command("-m", "glam_bench.gpu_check")
HALF_FIRST: tuple[Precision, ...] = ("fp16", "bf16", "fp32")
BUILD_S = {"tensorrt": 300.0, "tensorrt-rtx": 90.0}
"""For the engines of one precision. Full TensorRT times kernels on the GPU, for two profiles of two large networks;
TensorRT-RTX times nothing, and built two precisions in 7 s on an H200."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A function of this package that is called with a Context."""

    home: str
    """The module; its function is called `run`."""
    limit_s: float
    argument: str = ""

    @property
    def name(self) -> str:
        return f"{self.home}:{self.argument}" if self.argument else self.home


def plan(options: Options, record: Record) -> Iterator[Step]:
    """The steps in order. Asked for one by one, since what comes later depends on what the record says by then.

    What the bars are about comes first: if time runs out, other engines go without.
    """
    wanted = set(options.groups)
    if wanted != {"kernels"}:
        yield from (Step(home="library", argument=flavour, limit_s=120) for flavour in FLAVOURS)
    yield Step(home="ceilings", limit_s=60)
    if "kernels" in wanted:
        yield Step(home="kernels", limit_s=120)
        yield Step(home="kernel_times", limit_s=60)
        yield Step(home="gpu_tests", limit_s=120)
    if wanted != {"kernels"}:
        yield from _of_engines(wanted, record)


def _of_engines(wanted: set[str], record: Record) -> Iterator[Step]:
    """Each precision to its end before the next is built: the half ones, which bars are about, do not wait for fp32."""
    first = [Step(home="reference", limit_s=90)] if "engines" in wanted else []
    last = [Step(home="baselines", limit_s=60)] if "times" in wanted else []
    for precision in HALF_FIRST:
        yield from _builds(precision, record)
        yield from first
        first = []
        for engine in (name for name in engines(record) if name.startswith(f"{precision}@")):
            if "engines" in wanted:
                yield Step(home="parity", argument=engine, limit_s=90)
            if "times" in wanted:
                yield Step(home="chain_times", argument=engine, limit_s=120)
            if best_engine(record) == engine:
                if "soak" in wanted:
                    yield Step(home="soak", argument=engine, limit_s=150)
                yield from last
                last = []
    yield from last


def _builds(precision: Precision, record: Record) -> Iterator[Step]:
    """With each flavour that is installed, where the bundle has the graphs."""
    if precision in _graphs(record):
        for flavour in FLAVOURS:
            if record.steps.get(f"library:{flavour}", {}).get("status") != "refused":
                yield Step(home="build", argument=f"{precision}@{flavour}", limit_s=BUILD_S[flavour])


def _graphs(record: Record) -> list[str]:
    """Precisions that the bundle has graphs of."""
    found: list[str] = record.results("facts").get("bundle", {}).get("precisions", [])
    return found


def engines(record: Record) -> list[str]:
    """Names of what is to be opened, half precisions first, in the order in which a user would want them.

    "fp16@tensorrt" is for what was built, "fp16@onnx-cuda" and "fp16@torch" for the bundle's graphs as they are.
    """
    graphs = _graphs(record)
    having: dict[str, Sequence[str]] = {
        flavour: [p for p in HALF_FIRST if record.results(f"build:{p}@{flavour}").get("library")]
        for flavour in FLAVOURS
    }
    having |= {"onnx-cuda": graphs, "torch": [p for p in graphs if p == "fp16"]}
    return [f"{precision}@{library}" for precision in HALF_FIRST for library in having if precision in having[library]]


def best_engine(record: Record) -> str | None:
    """The first of `engines` that no step has failed with; None where there is none."""
    for engine in engines(record):
        about = [step["status"] for name, step in record.steps.items() if name.endswith(f":{engine}")]
        if not BROKEN.intersection(about):
            return engine
    return None


def run_apart(step: Step, options: Options, record: Record, *, seconds_left: float) -> None:
    """Run a step in a process of its own and note how it ended."""
    limit = min(step.limit_s, seconds_left)
    if limit < SHORTEST_S:
        record.note(step.name, status="no time left")
        return
    record.note(step.name, status="running")
    command = [*PROGRAM, "--step", step.name, str(record.path), f"{limit:.1f}"]
    log = options.work / f"{step.name.replace(':', '.')}.log"
    start = monotonic()
    code = _call(command, log, limit)
    record.reload()
    ending = _ending(record.steps[step.name], code, limit, log)
    record.note(step.name, seconds=round(monotonic() - start, 2), **ending)


def _call(command: Sequence[str], log: Path, limit: float) -> int | None:
    """Exit code; None where the process had to be stopped at its limit."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT)
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            process.kill()
            process.wait()


def _ending(found: dict[str, Any], code: int | None, limit: float, log: Path) -> dict[str, Any]:
    """What is to be noted of a step that did not live to note it itself."""
    if code is not None and found["status"] != "running":
        return {}
    printed = log.read_text("utf-8", "replace")[-LAST_WORDS:]
    if code is None:
        return {"status": "stopped", "error": f"not done after {limit:.3g} s. It had printed: {printed}"}
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return {"status": "crashed", "error": f"died with {how}. It had printed: {printed}"}


def run_here(name: str, record: Record, limit_s: float) -> int:
    """A step in this process; its exit code. What goes wrong is in the record."""
    home, _, argument = name.partition(":")
    options = Options.of(record.content["options"])
    context = Context(options=options, record=record, step=name, argument=argument, ends=monotonic() + limit_s)
    try:
        importlib.import_module(f"glam_bench.gpu_check.{home}").run(context)
    except (BackendUnavailable, BackendBuildError) as error:
        record.note(name, status="refused", error=str(error))
        return error.exit_code
    except GlamError as error:
        record.note(name, status="failed", error=f"{type(error).__name__}: {error}")
        return error.exit_code
    except ModuleNotFoundError as error:
        absence = refusal(error)
        record.note(name, status="refused" if absence else "failed", error=str(absence) if absence else _trace())
        return absence.exit_code if absence else 1
    except Exception:
        record.note(name, status="failed", error=_trace())
        return 1
    record.note(name, status="done")
    return 0


def _trace() -> str:
    return traceback.format_exc()[-LAST_WORDS:]
