"""`glam-deploy build`."""

from pathlib import Path

import click
from rich.progress import Progress, TaskID

from glam_deploy.bundle import open_bundle, open_members
from glam_deploy.cli import console
from glam_deploy.cli.inspect import engines_table
from glam_deploy.cli.options import bundle_option, device_option, library_option
from glam_deploy.cli.sign import remark_on_signature
from glam_deploy.gpu.engines.tensorrt.identity import Machine, this_machine
from glam_deploy.gpu.engines.tensorrt.store import BuildOutcome, BuildRequest, Plan, Report, build_engines, plan
from glam_deploy.precision import PRECISIONS, Precision


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
    and for the same, are not built again. Engines of an ensemble are built for each of its models.
    """
    request = BuildRequest(precision=precision, flavour=flavour, compute_capabilities=compute_capabilities)
    settled = settle(request, device)
    for bundle in open_members(folder):
        show_outcome(build_with_bar(bundle.folder, settled))


def settle(request: BuildRequest, device: int | None = None) -> Plan:
    """The build of a request on this machine; prints a remark if no GPU is used or the library does not list it."""
    machine = this_machine(device)
    settled = plan(request, machine)
    if remark := _remark(settled, machine):
        console.out.print(remark, soft_wrap=True)
    return settled


def _remark(settled: Plan, machine: Machine) -> str:
    library, capabilities = settled.library, settled.made_for.compute_capabilities
    if machine.compute_capability is None:
        return (
            f"{library} builds ahead of time, for compute capability {', '.join(capabilities)}, and the engines are "
            f"not run, because no GPU can be used here. {machine.lacks}"
        )
    if library.targets and not set(capabilities) <= library.targets.keys():
        return f"{library} does not list compute capability {', '.join(capabilities)}; the build is tried nevertheless."
    return ""


def build_with_bar(folder: Path, settled: Plan) -> BuildOutcome:
    """Build, and show each step while it runs."""
    steps = len(open_bundle(folder).network.stages) + 1  # the kernels
    with console.progress() as bar:
        return build_engines(folder, settled, _reporter(bar, bar.add_task("", total=steps)))


def _reporter(bar: Progress, task: TaskID) -> Report:
    printed: set[str] = set()

    def report(step: str, detail: str, done: float) -> None:
        bar.update(task, completed=done, description=f"{step}: {detail}" if detail else step)
        if step not in printed and not console.err.is_terminal:
            console.err.print(step, soft_wrap=True)
        printed.add(step)

    return report


def show_outcome(outcome: BuildOutcome) -> None:
    """Print the warnings of the library and the engines in the bundle."""
    for warning in outcome.warnings:
        console.err.print(warning, soft_wrap=True)
    console.out.print(engines_table(outcome.bundle, [outcome.entry]))
    state = "built" if outcome.new else "there already, made from and for the same: nothing was built"
    console.out.print(f"{outcome.bundle.folder}: {state}; bundle {outcome.bundle.id[:12]}", soft_wrap=True)
    remark_on_signature(outcome.bundle)
