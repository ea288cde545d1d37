"""`glam-deploy backup`."""

from pathlib import Path

import click

from glam_deploy.cli import console
from glam_deploy.cli.check_config import data_in_use, read_config
from glam_deploy.cli.options import FilePath, config_option
from glam_deploy.errors import UsageError, counted


@click.command("backup")
@click.argument("folder", type=FilePath(file_okay=False))
@config_option
@click.option("--verify", is_flag=True, help="Read every byte of an earlier backup, and copy again what is damaged.")
def command(folder: Path, config_path: Path, verify: bool) -> None:
    """Copy the appliance's data folder while it runs, or while it does not.

    FOLDER: empty, absent, or an earlier backup of the same data folder, which is brought up to date; only files are
    copied that are new, or that are missing or have another size there. Put it on another disk. It holds patient data.
    If the copy is interrupted, the earlier backup stays valid.
    """
    config = read_config(config_path)
    data = data_in_use(config)
    from glam_deploy.appliance.audit import open_audit
    from glam_deploy.appliance.backup.copying import copy_data
    from glam_deploy.appliance.backup.manifest import CopyFolder
    from glam_deploy.appliance.state.overview import READ_ERRORS

    try:
        with console.working("copying"):
            copied = copy_data(data, CopyFolder(root=folder), verify=verify)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be written or {data.root} cannot be read ({error.strerror}): free space, or name another "
            "folder that this user may write to"
        ) from error
    except READ_ERRORS as error:
        raise UsageError(f"{data.database} cannot be copied ({error}): run glam-deploy doctor") from error
    made = copied.manifest
    repaired = len(copied.repaired)
    open_audit(data).write(
        "backup", files=len(made.files), bytes=made.bytes, new_bytes=copied.new_bytes, repaired=repaired
    )
    console.out.print(
        f"{folder}: {counted(len(made.files), 'file')}, {made.bytes} bytes, {copied.new_bytes} of them new; has "
        f"everything acknowledged before {made.made_at}",
        soft_wrap=True,
    )
    if repaired:
        console.err.print(
            f"{counted(repaired, 'file')} of the earlier backup had been missing or damaged, and copied again, "
            f"{copied.repaired[0]} first: check the disk of {folder}",
            soft_wrap=True,
        )
    if made.absent:
        console.err.print(f"{counted(len(made.absent), 'path')} of finished studies had been removed by retention")
