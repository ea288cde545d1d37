"""`glam-deploy inspect`."""

import json
from pathlib import Path

import click
from rich.table import Table

from glam_deploy.bundle import Bundle, open_bundle
from glam_deploy.cli import console
from glam_deploy.cli.options import bundle_option


@click.command("inspect")
@bundle_option
@click.option("--json", "as_json", is_flag=True, help="The manifest itself.")
def command(folder: Path, as_json: bool) -> None:
    """Show what is in a bundle. Hashes are checked by `verify`, not here."""
    bundle = open_bundle(folder)
    if as_json:
        click.echo(json.dumps({"id": bundle.id, **bundle.manifest}, indent=2))
        return
    show_bundle(bundle)


def show_bundle(bundle: Bundle) -> None:
    """Print a bundle's facts, files, parity table and licence for people."""
    console.out.print(_facts(bundle))
    console.out.print(_files(bundle))
    console.out.print(
        console.parity_table(bundle.manifest["parity"], "Graphs against the PyTorch reference, at export")
    )
    console.out.print(bundle.manifest["licence"], style="dim")


def _facts(bundle: Bundle) -> Table:
    manifest = bundle.manifest
    network, checkpoint = manifest["network"], manifest["checkpoint"]
    heads = "attention and fusion layers" if network["fusion_head"] else "no fusion layers"
    facts = {
        "bundle": bundle.id,
        "made": manifest["created"],
        "network": f"{network['name']}, {network['precision']}, {network['aggregation']} aggregation, {heads}",
        "patches": f"{network['patches']} unless told otherwise, up to {network['max_patches']}",
        "checkpoint": f"{checkpoint['name']}, {checkpoint['parameters']:,} parameters, SHA-256 {checkpoint['sha256']}",
        "ignored keys": ", ".join(checkpoint["ignored_keys"]) or "none",
        "versions": ", ".join(f"{name} {version}" for name, version in manifest["versions"].items()),
    }
    table = Table(show_header=False, box=None)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, value)
    return table


def _files(bundle: Bundle) -> Table:
    table = Table(title="Files", title_justify="left")
    table.add_column("file", overflow="fold")
    table.add_column("MB", justify="right")
    table.add_column("SHA-256 (in full with --json)")
    for name, entry in bundle.files.items():
        table.add_row(name, f"{entry['bytes'] / 1e6:.1f}", entry["sha256"][:16])
    return table
