"""`glam-deploy bench`."""

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from glam_deploy.bundle import open_bundle
from glam_deploy.cli import console
from glam_deploy.cli.options import FilePath, bundle_option, flavour_option, patches_option, threads_option
from glam_deploy.engines.base import EngineOptions
from glam_deploy.engines.cpu import within_cores
from glam_deploy.engines.registry import ENGINE_NAMES
from glam_deploy.errors import BackendUnavailable
from glam_deploy.input_files import find_inputs
from glam_deploy.outputs.writer import require_makeable


class EngineNames(click.ParamType):  # type: ignore[type-arg]  # generic since Click 8.4 only
    """E[,E...]."""

    name = "engines"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(str(value).split(",")))
        if unknown := [name for name in names if name not in ENGINE_NAMES]:
            self.fail(f"{', '.join(unknown)}: unknown; choose from {', '.join(ENGINE_NAMES)}", param, ctx)
        return names


@click.group("bench", invoke_without_command=True)
@bundle_option
@click.option(
    "--engine",
    "engines",
    type=EngineNames(),
    default="auto",
    show_default=True,
    metavar="E[,E...]",
    help="Engines to measure beside the ladder. The first also works from files to results.",
)
@patches_option(None, "Patches a view gets, 1..6 [default: the bundle's].")
@click.option(
    "--images",
    type=FilePath(),
    multiple=True,
    help="DICOM, PNG, TIFF or npy files or folders of them; repeatable [default: a demo exam].",
)
@click.option("--out", type=FilePath(), default=Path("bench"), show_default=True, help="Results folder.")
@click.option(
    "--gate",
    "gates",
    type=FilePath(exists=True, file_okay=False),
    multiple=True,
    help="Folder of `glam-deploy gate --out`: its Dice curves and worst cases go into bench.html; repeatable.",
)
@click.option("--no-ladder", is_flag=True, help="Only the published way and the engines named.")
@click.option("--no-files", is_flag=True, help="Leave out from files to results.")
@click.option(
    "--minutes", type=click.FloatRange(min=0), default=12.0, show_default=True, help="No further window after so long."
)
@click.option(
    "--quick",
    is_flag=True,
    help="One run of one image by the published way and the engines named, without ladder and files: to see that "
    "everything works, in less than a minute on two cores, not to measure.",
)
@threads_option
@flavour_option
@click.pass_context
def command(
    ctx: click.Context,
    folder: Path,
    engines: tuple[str, ...],
    patches: int | None,
    images: tuple[Path, ...],
    out: Path,
    gates: tuple[Path, ...],
    no_ladder: bool,
    no_files: bool,
    minutes: float,
    quick: bool,
    threads: int | None,
    flavour: str | None,
) -> None:
    """Measure engines beside other ways to run the same weights.

    Every rung of the ladder, from the published way up, runs in a process of its own, in turns, and is compared with
    the published way in speed and in answers.
    Writes bench.json and bench.html. Exit code 3 where an engine that was named cannot run here; it says what could.
    `glam-deploy bench compare A.json B.json` holds two runs against each other.
    """
    if ctx.invoked_subcommand:
        return
    settings = bench_module("ladder.settings")
    bundle = open_bundle(folder)
    asked = settings.Settings(
        bundle=folder.resolve(),
        engines=engines,
        patches=bundle.patches if patches is None else patches,
        images=tuple(find_inputs(images)) if images else (),
        threads=within_cores(EngineOptions(threads=threads)).threads,
        flavour=flavour,
        baselines=not (no_ladder or quick),
        files=not (no_files or quick),
        minutes=minutes,
        pace=settings.QUICK if quick else settings.Pace(),
    )
    _bench(asked, out, gates)


def _bench(settings: Any, out: Path, gates: Sequence[Path]) -> None:
    """Run the bench, write bench.json and bench.html into `out` and print the tables."""
    bench, report = bench_module("bench"), bench_module("report")
    report.check_gates(gates)
    require_makeable(out)
    with console.working("bench") as status:

        def tell(step: str) -> None:
            status.update(console.line(step))
            if not console.err.is_terminal:
                console.err.print(step, soft_wrap=True)

        results = bench.bench(settings, tell)
    bench.write(results, out / "bench.json")
    report.write(results, out / "bench.html", gates=gates)
    bench_module("ladder.table").show(results)
    console.out.print(f"{out / 'bench.json'}, {out / 'bench.html'}", soft_wrap=True)


@command.command("compare")
@click.argument("before", type=FilePath())
@click.argument("after", type=FilePath())
def compare(before: Path, after: Path) -> None:
    """Compare two runs: what became faster or slower by more than their noise.

    A warning on standard error names a run of --quick, which gets no verdict, and runs with different images.
    """
    bench_module("ladder.compare").compare(before, after)


def bench_module(name: str) -> Any:
    """A module of `glam_bench`. Raises BackendUnavailable where this installation lacks glam_bench."""
    if find_spec("glam_bench") is None:
        raise BackendUnavailable(
            "this command needs glam_bench, which this installation lacks. Install glam-deploy as a whole, or put the "
            "folder benchmarks/ of its source tree on PYTHONPATH."
        )
    return import_module(f"glam_bench.{name}")
