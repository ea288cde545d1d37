"""Mutation testing of the code that decides pixels and states: `make mutate MODULES="frame window"`.

mutmut changes one operator, number, condition or argument of a function at a time and runs the tests of its module; a
mutant that no test notices has survived. Prints the figures of each module, and the changes of its survivors to
`build/mutation/MODULE.txt`. `--only` names mutants of the last run to run again after a test was added.
"""

import gc
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
from mutmut.__main__ import cli
from mutmut.configuration import config
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code

ROOT = Path(__file__).parents[2]
OUT = ROOT / "build" / "mutation"
UNNOTICED = {"survived", "no tests", "suspicious"}


@dataclass(frozen=True)
class Module:
    """A file or folder of the product and the fewest tests that hold it."""

    source: str
    tests: tuple[str, ...]
    slow: tuple[str, ...] = ()
    """Of these, tests that take too long for each survivor."""


def _preprocess(name: str, *tests: str) -> Module:
    return Module(
        f"glam_deploy/preprocess/{name}.py", tuple(f"tests/glam_deploy/preprocess/test_{test}.py" for test in tests)
    )


def _agreement(name: str) -> Module:
    return Module(f"glam_deploy/agreement/{name}.py", (f"tests/glam_deploy/agreement/test_{name}.py",))


def _state(name: str, test: str) -> Module:
    return Module(f"glam_deploy/appliance/state/{name}.py", (f"tests/glam_deploy/appliance/{test}.py",))


MODULES = {
    "foreground": _preprocess("foreground", "foreground", "window"),
    "window": _preprocess("window", "window"),
    "frame": replace(
        _preprocess("frame", "frame", "source_maps"),
        slow=("tests/glam_deploy/preprocess/test_frame.py::test_a_bright_pixel_comes_back_to_its_place",),
    ),
    "samples": _preprocess("samples", "samples"),
    "standardize": _preprocess("standardize", "standardize"),
    "byte_order": _preprocess("byte_order", "byte_order"),
    "prepare": _preprocess("prepare", "prepare"),
    "damage": _preprocess("damage", "damage_limits", "damage"),
    "diagnosis": _preprocess("diagnosis", "damage", "outline", "surroundings", "prepare"),
    "surroundings": _preprocess("surroundings", "surroundings_limits"),
    "patching": Module("glam_deploy/runtime/patching.py", ("tests/glam_deploy/runtime/test_patching.py",)),
    **{name: _agreement(name) for name in ("limits", "maps", "metrics", "summary")},
    "verdict": Module("glam_deploy/agreement/verdict.py", ("tests/glam_deploy/gate/test_metrics.py",)),
    "gate_rule": Module("glam_deploy/bundle/gate_rule.py", ("tests/glam_deploy/test_gate_rule.py",)),
    "jobs": _state("jobs", "work/test_jobs"),
    "deliveries": _state("deliveries", "dispatch/test_deliveries"),
    "attempts": _state("attempts", "dispatch/test_deliveries"),
    "fetches": _state("fetches", "fetch/test_fetches"),
    "priority": _state("priority", "test_priority"),
}


def mutate(name: str, only: tuple[str, ...]) -> None:
    """Run all mutants of a module, or those of `only`, in one process: its figures, and its survivors to a file."""
    module = MODULES[name]
    if not only:
        shutil.rmtree("mutants", ignore_errors=True)  # mutmut mutates no file that it has copied there as it was
    chosen = config()
    chosen.only_mutate = [module.source]
    chosen.pytest_add_cli_args_test_selection = list(module.tests)
    chosen.pytest_add_cli_args += [f"--deselect={test}" for test in module.slow]
    cli(["run", "--max-children", "1", *only], standalone_mode=False)
    results = list(_results(module.source))
    OUT.mkdir(parents=True, exist_ok=True)
    unnoticed = [get_diff_for_mutant(mutant, path=path) for path, mutant, state in results if state in UNNOTICED]
    states = Counter(state for _, _, state in results)
    figures = f"{name}: {len(results)} mutants; {', '.join(f'{n} {state}' for state, n in states.most_common())}"
    named = (f"# {mutant} {state}" for _, mutant, state in results if state in UNNOTICED)
    (OUT / f"{name}.txt").write_text("\n".join([figures, *map("\n".join, zip(named, unnoticed, strict=True)), ""]))
    click.echo(figures)


def _results(source: str) -> Iterator[tuple[Path, str, str]]:
    """File, mutant and outcome of every mutant of a source."""
    for path in sorted(ROOT.glob(source)):
        data = SourceFileMutationData(path=path.relative_to(ROOT))
        data.load()
        yield from ((data.path, mutant, status_by_exit_code[code]) for mutant, code in data.exit_code_by_key.items())


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("names", nargs=-1, type=click.Choice(list(MODULES)))
@click.option("--only", multiple=True, help="Mutants of the last run to run again, as build/mutation names them.")
def main(names: tuple[str, ...], only: tuple[str, ...]) -> None:
    """Mutate the modules NAMES, by default all, one after another, each in a process of its own."""
    os.chdir(ROOT)
    os.register_at_fork(before=gc.freeze)  # a mutant's process copies no page for the sake of the garbage collector
    if len(names) == 1:
        mutate(names[0], only)
        return
    for name in names or MODULES:
        subprocess.run([sys.executable, __file__, name], check=True)


if __name__ == "__main__":
    main()
