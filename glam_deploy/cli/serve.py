"""`glam-deploy serve`."""

from pathlib import Path

import click

from glam_deploy.cli.config_file import config_option, read_config


@click.command("serve")
@config_option
@click.option(
    "--role",
    metavar="NAME",
    help="Be this process alone: receiver, web, keeper, worker or dispatcher [default: start and watch all five].",
)
def command(config_path: Path, role: str | None) -> int:
    """Run the appliance beside a PACS: receive views, find lesions, send the results into the same study.

    Ends with 0 when Ctrl-C or SIGTERM has stopped it; a second Ctrl-C ends it at once, and nothing is lost by it.
    """
    config = read_config(config_path)
    from glam_deploy.appliance import serve

    if role is not None and role not in serve.ROLES:
        raise click.BadParameter(f"expected one of {', '.join(serve.ROLES)}", param_hint="--role")
    stop = serve.stop_on_signals()
    if role is not None:
        serve.run_role(config, role, stop)
        return 0
    return serve.supervise_all(config, config_path, stop)
