"""`glam-deploy build`."""

from pathlib import Path

import click
from rich.progress import Progress, TaskID

from glam_deploy.cli import console
from glam_deploy.cli.inspect import engines_table
from glam_deploy.cli.options import Decorator, bundle_option, device_option
from glam_deploy.gpu.engines.tensorrt.flavours import FLAVOURS
from glam_deploy.gpu.engines.tensorrt.identity import Machine, this_machine
from glam_deploy.gpu.engines.tensorrt.store import STEPS, BuildOutcome, BuildRequest, Plan, Report, build_engines, plan
from glam_deploy.precision import PRECISIONS, Precision

library_option: Decorator = click.option(
    "--flavour", type=click.Choice(list(FLAVOURS)), help="Library to build with [default: the one installed]."
)


@click.command("build")
@bundle_option
@click.option("--engine", "precision", type=click.Choice(PRECISIONS), required=True, help="Precision of the engines.")
@library_option
@device_option
@click.option(
    "--compute-capability",
    "compute_capabilities",
    multiple=True,
    metavar="X.Y",
    help="TensorRT-RTX: build for these GPUs instead of the one at hand, such as 8.9; repeatable.",
)
def command(
    folder: Path,
    precision: Precision,
    flavour: str | None,
    device: int | None,
    compute_capabilities: tuple[str, ...],
) -> None:
    """Build TensorRT engines into a bundle, for the GPU of this machine.

    No torch is needed, only the bundle's graphs. TensorRT-RTX also builds where there is no GPU. The engines' own layer
    reports must show that the convolutions are of the precision asked for; engines that are there already, made from
    and for the same, are not built again.
    """
    request = BuildRequest(precision=precision, flavour=flavour, compute_capabilities=compute_capabilities)
    show_outcome(build_with_bar(folder, settle(request, device)))


def settle(request: BuildRequest, device: int | None = None) -> Plan:
    """What a request comes to on this machine; says so where that is not the plain case."""
    machine = this_machine(device)
    settled = plan(request, machine)
    if said := _remark(settled, machine):
        console.out.print(said, soft_wrap=True)
    return settled


def _remark(settled: Plan, machine: Machine) -> str:
    library, capabilities = settled.library, settled.made_for.compute_capabilities
    if machine.compute_capability is None:
        return (
            f"{library} builds ahead of time, for compute capability {', '.join(capabilities)}, and nothing of it is "
            f"run: no GPU can be used here. {machine.lacks}"
        )
    if library.targets and not set(capabilities) <= library.targets.keys():
        return f"{library} does not list compute capability {', '.join(capabilities)}; it is asked all the same."
    return ""


def build_with_bar(folder: Path, settled: Plan) -> BuildOutcome:
    """Build with each step shown as it runs."""
    with console.progress() as bar:
        return build_engines(folder, settled, _reporter(bar, bar.add_task("", total=STEPS)))


def _reporter(bar: Progress, task: TaskID) -> Report:
    told: set[str] = set()

    def report(step: str, detail: str, done: float) -> None:
        bar.update(task, completed=done, description=f"{step}: {detail}" if detail else step)
        if step not in told and not console.err.is_terminal:
            console.err.print(step, soft_wrap=True)
        told.add(step)

    return report


def show_outcome(outcome: BuildOutcome) -> None:
    """Print what is in the bundle now, and what the library had to say."""
    for warning in outcome.warnings:
        console.err.print(warning, soft_wrap=True)
    console.out.print(engines_table(outcome.bundle, [outcome.entry]))
    state = "built" if outcome.new else "there already, made from and for the same: nothing was built"
    console.out.print(f"{outcome.bundle.folder}: {state}; bundle {outcome.bundle.id[:12]}", soft_wrap=True)
