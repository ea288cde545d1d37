"""`glam-deploy doctor`."""

import json
from dataclasses import asdict
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from glam_deploy.cli import console
from glam_deploy.cli.config_file import config_option, read_config
from glam_deploy.cli.doctor_checks import findings
from glam_deploy.cli.doctor_findings import FAILS, Finding

_STYLES = {"ok": "green", "note": "yellow", FAILS: "bold red"}


@click.command("doctor")
@config_option
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def command(config_path: Path, as_json: bool) -> int:
    """Check whether the appliance can run here: data folder, disk, clock, bundle, engine, ports, targets.

    Sends C-ECHO to the own listener, and C-ECHO or QIDO-RS to every target. Changes nothing, and may run beside the
    appliance. Exit code 1 if a check fails.
    """
    config = read_config(config_path)
    with console.working("checking"):
        found = list(findings(config))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        console.out.print(_table(found))
    return int(any(finding.state == FAILS for finding in found))


def _table(found: list[Finding]) -> Table:
    table = Table("", "what", "found, and what to do", show_lines=True)
    for finding in found:
        text = Text(finding.found)
        if finding.remedy:
            text.append(f"\n{finding.remedy}", style="italic")
        table.add_row(Text(finding.state, style=_STYLES[finding.state]), Text(finding.what), text)
    return table
