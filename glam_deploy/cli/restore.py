"""`glam-deploy restore`."""

from pathlib import Path

import click

from glam_deploy.cli import console
from glam_deploy.cli.check_config import read_config
from glam_deploy.cli.options import FilePath, config_option
from glam_deploy.errors import UsageError, counted


@click.command("restore")
@click.argument("folder", type=FilePath(file_okay=False))
@config_option
@click.option(
    "--take-over",
    is_flag=True,
    help="FOLDER is kept current by another node, in whose place this one delivers from now on.",
)
def command(folder: Path, config_path: Path, take_over: bool) -> None:
    """Restore a backup, or take over from another node, into the data folder of this configuration.

    FOLDER: made by `glam-deploy backup`, or the folder of [standby]. The data folder must be absent or empty. Every
    byte is checked before anything is used. Run it as the user of the service, with the appliance stopped.
    """
    config = read_config(config_path)
    from glam_deploy.appliance.backup.manifest import CopyFolder
    from glam_deploy.appliance.backup.restoring import restore_data

    try:
        with console.working("restoring"):
            manifest = restore_data(CopyFolder(root=folder), config, take_over=take_over)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be restored into {config.data} ({error.strerror}): empty the data folder, give this user "
            "the right to write there, free space, and run it again"
        ) from error
    console.out.print(
        f"{config.data}: {counted(len(manifest.files), 'file')} restored, as of {manifest.made_at}. Start the "
        "appliance, then have the senders send again what they have sent since then; what is here already counts as "
        "received",
        soft_wrap=True,
    )
