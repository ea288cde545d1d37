"""`glam-deploy export`."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Literal

import click
from rich.table import Table

from glam_deploy.bundle import Bundle, SearchPoint, build_command
from glam_deploy.bundle.sign import sign
from glam_deploy.cli import console
from glam_deploy.cli.build import build_with_bar, settle, show_outcome
from glam_deploy.cli.options import (
    FilePath,
    export_module,
    library_option,
    network_option,
    out_option,
    passphrase_option,
    patches_option,
)
from glam_deploy.cli.sign import private_key, show_signature
from glam_deploy.errors import GlamError
from glam_deploy.gpu.engines.tensorrt.store import BuildRequest, Plan, require_kernels
from glam_deploy.precision import GRAPH_PRECISIONS, PRECISIONS, Precision

AUTO: Final = "auto"


@click.command("export")
@click.option(
    "--weights",
    type=FilePath(),
    required=True,
    metavar="FILE [FILE...]",
    help=".pt, .pth, .ckpt, .p or .safetensors; several: an ensemble, whose scores are averaged.",
)
@click.argument("more", nargs=-1, type=FilePath(), metavar="")
@out_option(Path("bundle"), "Bundle to make.")
@network_option(None, "Network that the checkpoint must be of [default: recognized by its keys].")
@patches_option(
    None, "Patches a view gets unless run says otherwise, 1..6 [default: 1 for GLAM, 6 for GMIC; CAM has none]."
)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice([*GRAPH_PRECISIONS, AUTO]),
    multiple=True,
    default=("fp16",),
    show_default=True,
    help="Graphs in this precision too; fp32 ones are always there; repeatable. auto: a search for the "
    "fastest mixture of int8, bf16, Winograd's form and fp32 for this CPU whose maps agree with fp32; takes long.",
)
@click.option(
    "--calibration",
    type=FilePath(exists=True, file_okay=False),
    help="Mammograms that int8 graphs are calibrated on, as `run` takes them [default: phantoms].",
)
@click.option("--winograd", is_flag=True, help="The local graph in Winograd's form too: for the engines *-winograd.")
@click.option(
    "--no-checkpoint", is_flag=True, help="Leave the weights themselves out (halves the bundle; no torch engine)."
)
@click.option(
    "--key",
    metavar="NAME",
    help="Which network, where the checkpoint holds several: ema, state_dict.teacher [default: the only one].",
)
@click.option(
    "--ignore-key",
    "ignore_keys",
    multiple=True,
    metavar="PATTERN",
    help="Checkpoint keys to leave out, as a shell pattern; repeatable.",
)
@click.option(
    "--engine",
    "engines",
    type=click.Choice(PRECISIONS),
    multiple=True,
    help="Then build TensorRT engines of this precision, as `glam-deploy build` does; repeatable.",
)
@library_option
@click.option(
    "--sign-key",
    type=FilePath(),
    help="Private key to sign the bundle with; see `sign`.",
)
@passphrase_option
def command(
    weights: Path,
    more: tuple[Path, ...],
    out: Path,
    network: str | None,
    patches: int | None,
    precisions: tuple[Precision | Literal["auto"], ...],
    calibration: Path | None,
    winograd: bool,
    no_checkpoint: bool,
    key: str | None,
    ignore_keys: tuple[str, ...],
    engines: tuple[Precision, ...],
    flavour: str | None,
    sign_key: Path | None,
    passphrase_file: Path | None,
) -> None:
    """Checkpoint -> bundle: ONNX graphs of all stages, their half variants, manifest, parity table.

    Every graph is run and compared with the PyTorch reference before the bundle appears; a miss is exit code 4 and
    leaves nothing behind. A bundle that stands at --out is replaced as a whole. Several checkpoints of one network
    become an ensemble, a folder with a bundle for each: scores are the means of theirs (docs/networks.md).
    """
    # before the minutes of an export: raises if this machine cannot build the engines
    plans = [settle(BuildRequest(precision=precision, flavour=flavour)) for precision in dict.fromkeys(engines)]
    for settled in plans:
        require_kernels(settled)
    secret = private_key(sign_key, passphrase_file) if sign_key else None
    bundles = make_bundles(
        [weights, *more],
        out,
        network=network,
        patches=patches,
        precisions=(*("int8" if p == AUTO else p for p in precisions), *engines),
        search=AUTO in precisions,
        calibration=calibration,
        winograd=winograd,
        keep_checkpoint=not no_checkpoint,
        key=key,
        ignore_keys=ignore_keys,
    )
    for bundle in bundles:
        console.out.print(console.parity_table(bundle.manifest.parity, "Graphs against the PyTorch reference"))
        if AUTO in precisions:
            console.out.print(_frontier_table(bundle.manifest.frontier))
        console.out.print(f"{bundle.folder}: bundle {bundle.id[:12]}, {_megabytes(bundle):.0f} MB", soft_wrap=True)
    if more:
        console.out.print(f"{out}: ensemble of {len(bundles)} models", soft_wrap=True)
    console.out.print(bundles[0].manifest.licence, style="dim")
    try:
        for settled in plans:
            for bundle in bundles:
                _build(bundle.folder, settled)
    finally:
        if secret is not None:
            show_signature(out, sign(out, secret))


def _frontier_table(points: Iterable[SearchPoint]) -> Table:
    """The mixtures that a precision search measured."""
    table = Table(title="Precision search: measured mixtures", title_justify="left")
    for name in ("stage", "made of", "in 8 bits", "ms", "Dice, median", "worst", "", "wide blocks"):
        table.add_column(name, overflow="fold")
    for point in points:
        dice = f"{point.dice_median:.3f}", f"{point.dice_worst:.3f}"
        first = point.stage, str(point.kind), f"{point.narrow_share:.1%}", f"{point.latency_ms:.0f}"
        table.add_row(*first, *dice, _verdict(point), ", ".join(point.wide) or "-")
    return table


def _verdict(point: SearchPoint) -> str:
    return "taken" if point.taken else "ok" if point.passed else "MISSED"


def _build(out: Path, settled: Plan) -> None:
    try:
        show_outcome(build_with_bar(out, settled))
    except (GlamError, KeyboardInterrupt):
        again = build_command(out, settled.precision, settled.library.flavour.name)
        console.err.print(
            f"{out} is complete, without {settled.precision} engines. To build them: {again}", soft_wrap=True
        )
        raise


def make_bundle(weights: Path, out: Path, **options: Any) -> Bundle:
    """Export one checkpoint; see `make_bundles`."""
    return make_bundles([weights], out, **options)[0]


def make_bundles(weights: Sequence[Path], out: Path, **options: Any) -> tuple[Bundle, ...]:
    """Export, and show each step while it runs; several checkpoints become an ensemble.

    `options` as of `glam_export.exporter.ExportOptions`.
    """
    with console.working("loading PyTorch") as status:
        exporter = export_module("exporter")

        def report(step: str) -> None:
            status.update(console.line(step))
            if not console.err.is_terminal:
                console.err.print(step, soft_wrap=True)

        given = exporter.ExportOptions(**options)
        bundles: tuple[Bundle, ...]
        if len(weights) == 1:
            bundles = (exporter.export_bundle(weights[0], out, given, report),)
        else:
            bundles = exporter.export_ensemble(weights, out, given, report)
    return bundles


def _megabytes(bundle: Bundle) -> float:
    return sum(entry.bytes for entry in bundle.files.values()) / 1e6
