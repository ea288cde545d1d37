"""`glam-deploy inspect`."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

import click
from rich.table import Table

from glam_deploy.bundle import Bundle, EngineEntry, MadeFor, StageEntry, digest_of, open_members, read_signature
from glam_deploy.bundle.manifest import SCHEMA_VERSION
from glam_deploy.cli import console
from glam_deploy.cli.gate_table import gates_table
from glam_deploy.cli.options import bundle_option, json_option
from glam_deploy.gpu.engines.tensorrt.layers import percent
from glam_deploy.json_records import to_json
from glam_deploy.networks import Stage


@click.command("inspect")
@bundle_option
@json_option("The manifest itself.")
def command(folder: Path, as_json: bool) -> None:
    """Show what is in a bundle. Hashes are checked by `verify`, not here."""
    bundles = open_members(folder)
    if as_json:
        contents = [_content(bundle) for bundle in bundles]
        click.echo(json.dumps(contents[0] if len(contents) == 1 else {"ensemble": contents}, indent=2))
        return
    if len(bundles) > 1:
        console.out.print(f"ensemble of {len(bundles)} models, digest {digest_of(bundles)}", soft_wrap=True)
    for number, bundle in enumerate(bundles, start=1):
        if len(bundles) > 1:
            console.out.rule(f"model {number} of {len(bundles)}: {bundle.folder}")
        show_bundle(bundle)


def show_bundle(bundle: Bundle) -> None:
    """Print a bundle's facts, files, engines, gates, parity table and licence as text."""
    console.out.print(_facts(bundle))
    console.out.print(_files(bundle))
    if bundle.engines:
        console.out.print(engines_table(bundle, bundle.engines))
    if bundle.gates:
        console.out.print(gates_table(bundle.gates))
    console.out.print(console.parity_table(bundle.manifest.parity, "Graphs against the PyTorch reference, at export"))
    console.out.print(bundle.manifest.licence, style="dim")


def _content(bundle: Bundle) -> dict[str, object]:
    """The manifest in the newest schema, with the bundle's id and facts of its network."""
    content, spec = to_json(bundle.manifest), bundle.network
    content["network"] |= {
        "classes": spec.classes,
        "input_shape": spec.input_shape,
        "max_patches": spec.selection.slots if spec.selection else 0,
    }
    return {"id": bundle.id, "schema_version": SCHEMA_VERSION, **content}


def _facts(bundle: Bundle) -> Table:
    manifest = bundle.manifest
    network, checkpoint, spec = manifest.network, manifest.checkpoint, bundle.network
    kind = [network.name, *network.precisions]
    if spec.selection:
        heads = "attention and fusion layers" if "y_fusion" in spec.scores else "no fusion layers"
        kind += [f"{network.aggregation} aggregation", heads]
    facts = {
        "bundle": bundle.id,
        "signature": _signature(bundle),
        "made": manifest.created,
        "network": ", ".join(kind),
        "patches": f"{network.patches} unless told otherwise, up to {spec.patches.slots}" if spec.selection else "none",
        "checkpoint": f"{checkpoint.name}, {checkpoint.parameters:,} parameters, SHA-256 {checkpoint.sha256}",
        **({"taken from": f"{checkpoint.key} in the checkpoint"} if checkpoint.key else {}),
        "ignored keys": ", ".join(checkpoint.ignored_keys) or "none",
        "versions": ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
    }
    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, console.printable(value))
    return table


def _signature(bundle: Bundle) -> str:
    """The key that the signature names; without trusted keys nothing is verified."""
    found = read_signature(bundle.folder)
    if found is None:
        return "none"
    if found.sha256 != bundle.id:
        return f"of an earlier state, by the key {found.key}: sign it again"
    return f"by the key {found.key}; `verify --trusted-key` checks it"


def _files(bundle: Bundle) -> Table:
    table = Table(title="Files", title_justify="left")
    table.add_column("file", overflow="fold")
    table.add_column("MB", justify="right")
    table.add_column("SHA-256 (in full with --json)")
    for name, entry in bundle.files.items():
        table.add_row(name, f"{entry.bytes / 1e6:.1f}", entry.sha256[:16])
    return table


def engines_table(bundle: Bundle, entries: Iterable[EngineEntry]) -> Table:
    """TensorRT engines of a bundle: library, GPU, and the share of confirmed arithmetic."""
    table = Table(title="TensorRT engines", title_justify="left")
    for name in ("engines", "built with", "for", "confirmed", "MB"):
        table.add_column(name, overflow="fold", justify="right" if name == "MB" else "left")
    for entry in entries:
        megabytes = sum(bundle.files[stage.file].bytes for stage in entry.stages.values()) / 1e6
        table.add_row(
            entry.precision,
            f"{entry.flavour} {entry.library}",
            _made_for(entry.made_for),
            _confirmed(entry.stages),
            f"{megabytes:.1f}",
        )
    return table


def _made_for(made_for: MadeFor) -> str:
    capabilities = ", ".join(made_for.compute_capabilities)
    return f"{made_for.gpu} ({capabilities})" if made_for.gpu else f"compute capability {capabilities}"


def _confirmed(stages: Mapping[Stage, StageEntry]) -> str:
    """Share of the arithmetic that is confirmed to be in the engines' precision; fusion has no convolution."""
    shares = []
    for name, made in stages.items():
        if made.confirmed_share is not None:
            shares.append(f"{percent(made.confirmed_share)} {name}")
        elif made.report:
            shares.append(f"not confirmed {name}")
    return ", ".join(shares)
