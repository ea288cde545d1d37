"""`glam-deploy serve`."""

from pathlib import Path

import click

from glam_deploy.cli.check_config import read_config
from glam_deploy.cli.options import config_option


@click.command("serve")
@config_option
@click.option(
    "--role",
    metavar="NAME",
    help="Run only this process: receiver, web, fetcher, keeper, worker or dispatcher [default: start and supervise "
    "all; the fetcher only with the table [fetch]].",
)
def command(config_path: Path, role: str | None) -> int:
    """Run the appliance beside a PACS: receive views, find lesions, send the results into the same study.

    Exits with 0 after Ctrl-C or SIGTERM; a second Ctrl-C kills it at once, and nothing is lost by that.
    """
    config = read_config(config_path)
    from glam_deploy.appliance import supervisor

    if role is not None and role not in supervisor.ROLES:
        raise click.BadParameter(f"expected one of {', '.join(supervisor.ROLES)}", param_hint="--role")
    stop = supervisor.stop_on_signals()
    if role is not None:
        supervisor.run_role(config, role, stop)
        return 0
    return supervisor.supervise_all(config, config_path, stop)
