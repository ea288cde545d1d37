"""Checkpoint -> bundle: the options of an export, its plan, and running the plan.

Imports no optional library: the steps for graphs in 8 bits, which need NNCF and OpenVINO, are imported for plans that
have them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from glam_deploy.agreement.limits import Limits
from glam_deploy.bundle import Bundle, open_bundle, open_members, staged_bundle, write_ensemble
from glam_deploy.bundle.manifest import MOST_MEMBERS
from glam_deploy.errors import CheckpointError, UsageError
from glam_deploy.installation import require
from glam_deploy.networks import MOST_PATCHES
from glam_deploy.precision import GRAPH_PRECISIONS, PRECISIONS, Precision
from glam_export.checkpoint import Checkpoint
from glam_export.steps.base import Draft, Report, Step
from glam_export.steps.compare import CompareGraphs, RunGoldenCase
from glam_export.steps.load import LoadCheckpoint, first_manifest
from glam_export.steps.write import WriteGraphs, WriteManifest, WriteWeights, WriteWinograd


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What a bundle shall hold."""

    patches: int | None = None
    """Patches that the runtime takes by default, 1..6; None is the network's default, 1 of GLAM, 6 of GMIC and none of
    CAM. The graphs serve every number."""
    precisions: tuple[Precision, ...] = ("fp32", "fp16")
    """Precisions of the graphs, of GRAPH_PRECISIONS; fp32 graphs are always written."""
    calibration: Path | None = None
    """Folder of mammograms for the calibration of int8 graphs; None for phantoms."""
    search: bool = False
    """Whether to search the fastest mixture of precisions within `limits`. Its int8 graphs replace the plain ones, and
    the local graph is also written in Winograd's form if the mixture has it. Needs int8 in `precisions`."""
    limits: Limits = field(default_factory=Limits)
    """Limits of the search."""
    winograd: bool = False
    """Whether to write the local graph in Winograd's form too, which is faster on CPUs without matrix units."""
    keep_checkpoint: bool = True
    """Whether the bundle holds the weights, which the engine "torch" needs."""
    network: str | None = None
    """Name of the network that the checkpoint must be of; None recognizes it by its keys."""
    key: str | None = None
    """Which of several networks in the checkpoint, for instance "ema"."""
    ignore_keys: tuple[str, ...] = ()
    """Shell patterns of checkpoint keys to leave out."""


@dataclass(frozen=True, kw_only=True)
class ExportPlan:
    """What an export will do, in this order."""

    load: LoadCheckpoint
    steps: tuple[Step, ...]
    patches: int | None
    precisions: tuple[Precision, ...]
    """fp32 and those asked for, each once, in the order of GRAPH_PRECISIONS."""

    @property
    def titles(self) -> list[str]:
        """The steps, a line each."""
        return [self.load.title, *(step.title for step in self.steps)]


def export_plan(weights: Path, options: ExportOptions) -> ExportPlan:
    """The steps of an export of the checkpoint `weights`. Reads no file.

    Raises UsageError for options that are out of range or contradict each other, BackendUnavailable if they need
    packages that are not installed.
    """
    if options.patches is not None and options.patches not in range(1, MOST_PATCHES + 1):
        raise UsageError(f"patches = {options.patches!r}: expected a whole number from 1 to {MOST_PATCHES}")
    precisions = _precisions(options)
    if "int8" not in precisions and options.calibration:
        raise UsageError(
            f"{options.calibration}: calibration images are for graphs in 8 bits, and none are asked for. Add "
            f"--precision int8 or --precision auto, or leave --calibration out."
        )
    prepare, narrow = _narrow_steps(options) if "int8" in precisions else ((), ())
    graphs = [WriteGraphs(precision=p) for p in precisions if p in PRECISIONS]
    steps: list[Step] = [*prepare, RunGoldenCase(), *graphs, *narrow]
    if options.winograd or options.search:
        steps.append(WriteWinograd(only_in_mixture=not options.winograd))
    if options.keep_checkpoint:
        steps.append(WriteWeights())
    steps += [WriteManifest(), CompareGraphs(precisions=precisions)]
    load = LoadCheckpoint(weights=weights, network=options.network, key=options.key, ignore_keys=options.ignore_keys)
    return ExportPlan(load=load, steps=tuple(steps), patches=options.patches, precisions=precisions)


def _precisions(options: ExportOptions) -> tuple[Precision, ...]:
    if unknown := set(options.precisions) - set(GRAPH_PRECISIONS):
        raise UsageError(f"precision {', '.join(sorted(unknown))}: expected one of {', '.join(GRAPH_PRECISIONS)}")
    return tuple(p for p in GRAPH_PRECISIONS if p in {"fp32", *options.precisions})


def _narrow_steps(options: ExportOptions) -> tuple[tuple[Step, ...], tuple[Step, ...]]:
    """Steps for graphs in 8 bits: those before and those after the floating-point graphs are written."""
    require("quantize", user="a graph in 8 bits")
    from glam_export.steps.narrow import PrepareImages, Quantize, SearchMixture

    prepare = PrepareImages(images=options.calibration)
    if not options.search:
        return (prepare,), (Quantize(),)
    own_images = options.calibration is not None
    search = SearchMixture(limits=options.limits, own_images=own_images)
    return (prepare,), (Quantize(), search)


def export_bundle(weights: Path, out: Path, options: ExportOptions, report: Report = lambda line: None) -> Bundle:
    """Make the bundle `out` from the checkpoint `weights`; `report` gets a line at the beginning of each step.

    Raises as `export_plan`; CheckpointError, UsageError if `out` cannot be replaced, BackendBuildError, and ParityError
    if a graph disagrees with the reference. After an error nothing is left behind.
    """
    return run_plan(export_plan(weights, options), out, report)


def export_ensemble(
    weights: Sequence[Path], out: Path, options: ExportOptions, report: Report = lambda line: None
) -> tuple[Bundle, ...]:
    """Make an ensemble of the checkpoints `weights`, in this order: a folder with a bundle for each, in `1`, `2`, ....

    Raises as `export_bundle`, and CheckpointError if they are not of one network. After an error nothing is left
    behind.
    """
    plans = [export_plan(path, options) for path in weights]
    _require_one_network(plans)
    with staged_bundle(out) as folder:
        made = []
        for number, plan in enumerate(plans, start=1):
            report(f"model {number} of {len(plans)}")
            made.append(run_plan(plan, folder / str(number), report))
        write_ensemble(folder, made)
    return open_members(out)


def _require_one_network(plans: Sequence[ExportPlan]) -> None:
    """Raises CheckpointError if the checkpoints are of several networks or one is there twice; UsageError for many."""
    if len(plans) > MOST_MEMBERS:
        raise UsageError(f"--weights names {len(plans)} checkpoints, expected at most {MOST_MEMBERS}")
    first: Checkpoint | None = None
    seen: dict[str, Path] = {}
    for plan in plans:
        checkpoint = plan.load.run(lambda line: None)
        first = first or checkpoint
        spec, expected = checkpoint.network.spec, first.network.spec
        if spec != expected:
            raise CheckpointError(
                f"{checkpoint.path}: holds {spec.title} with {spec.aggregation} aggregation, and {first.path} holds "
                f"{expected.title} with {expected.aggregation}: an ensemble is of one network. Export them one by one."
            )
        other = seen.setdefault(checkpoint.sha256, checkpoint.path)
        if other is not checkpoint.path:
            raise CheckpointError(
                f"{checkpoint.path}: has the same content as {other}, and an ensemble is of different models. Name "
                f"each once."
            )


def run_plan(plan: ExportPlan, out: Path, report: Report) -> Bundle:
    """Run the steps; the bundle appears at `out` after the last one. Raises as `export_bundle`."""
    report(plan.load.title)
    checkpoint = plan.load.run(report)
    for step in plan.steps:
        step.check(checkpoint.network.spec)
    manifest = first_manifest(checkpoint, patches=plan.patches, precisions=plan.precisions)
    with staged_bundle(out) as folder:
        draft = Draft(folder=folder, checkpoint=checkpoint, manifest=manifest)
        for step in plan.steps:
            report(step.title)
            draft = step.run(draft, report)
    return open_bundle(out)
