"""`glam-deploy run-dir`: for hosts that call a program on a folder (mercure, MONAI Deploy and others)."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from glam_deploy.cli import console
from glam_deploy.cli.check_config import require_appliance
from glam_deploy.cli.options import (
    EngineChoice,
    FilePath,
    bundle_option,
    device_option,
    digest_option,
    engine_option,
    flavour_option,
    for_processing_option,
    grouped,
    patches_of_view_option,
    threads_option,
    trusted_key_option,
    ungated_option,
)
from glam_deploy.cli.run import open_pipeline
from glam_deploy.errors import UsageError, counted, unwritable

if TYPE_CHECKING:
    from glam_deploy.appliance.folder import FolderResult, ViewEntry
    from glam_deploy.appliance.folder_files import UnusedFile

HOSTS = (
    ("MERCURE_IN_DIR", "MERCURE_OUT_DIR"),
    ("MONAI_INPUTPATH", "MONAI_OUTPUTPATH"),
    ("HOLOSCAN_INPUT_PATH", "HOLOSCAN_OUTPUT_PATH"),
)
"""Environment variables in which a host passes the two folders; the first pair that is set is used."""


@click.command("run-dir")
@click.argument("folders", nargs=-1, type=FilePath(), metavar="[IN OUT]")
@grouped(
    "choice",
    EngineChoice,
    bundle_option,
    engine_option,
    patches_of_view_option,
    threads_option,
    flavour_option,
    device_option,
    ungated_option,
    trusted_key_option,
    digest_option,
)
@for_processing_option
def command(folders: tuple[Path, ...], for_processing: bool, choice: EngineChoice) -> int:
    """Find lesions for a host that calls a program on a folder (mercure, MONAI Deploy).

    Processes the DICOM files of the folder IN; OUT gets DICOM results and result.json. OUT must be empty, and is
    created if missing; result.json is written last. If neither is given, they are taken from MERCURE_IN_DIR and
    MERCURE_OUT_DIR, MONAI_INPUTPATH and MONAI_OUTPUTPATH, or HOLOSCAN_INPUT_PATH and HOLOSCAN_OUTPUT_PATH, the first
    pair that is set.
    """
    source, target = in_and_out(folders, os.environ)
    require_folders(source, target)
    require_appliance()
    from glam_deploy.appliance.config import Accept, Config, Worker
    from glam_deploy.appliance.folder import process_folder

    pipeline = open_pipeline(choice)
    accept, worker = Accept(for_processing=for_processing), Worker(bundle=choice.folder)
    config = Config(license_acknowledged=True, data=target, accept=accept, worker=worker)
    try:
        result = process_folder(source, target, pipeline, config)
    except OSError as error:
        raise UsageError(f"cannot write to {target} {unwritable(error)}, or choose another folder") from error
    return print_summary(result)


def print_summary(result: "FolderResult") -> int:
    """Print a line for each file without a result, and a last line with counts; the exit code."""
    files: list[ViewEntry | UnusedFile] = [*(view for study in result.studies for view in study.views), *result.others]
    for entry in files:
        if entry.reason:
            console.out.print(f"{entry.status:8}{entry.file}  {entry.reason}", soft_wrap=True)
    count = Counter(entry.status for entry in files)
    objects = sum(len(study.objects) for study in result.studies)
    console.out.print(
        f"{count['done']} done, {count['skipped']} skipped, {count['failed']} failed; {objects} objects", soft_wrap=True
    )
    return 1 if count["failed"] or not count["done"] else 0


def in_and_out(folders: Sequence[Path], environment: Mapping[str, str]) -> tuple[Path, Path]:
    """The two folders as given, else from the environment. Raises UsageError if neither gives both."""
    if len(folders) == 2:
        return folders[0], folders[1]
    for names in HOSTS:
        if not folders and all(environment.get(name) for name in names):
            return Path(environment[names[0]]), Path(environment[names[1]])
    hosts = "; or ".join(" and ".join(names) for names in HOSTS)
    raise UsageError(
        f"{counted(len(folders), 'folder')} given, expected two, IN and OUT, or none if the environment has {hosts}"
    )


def require_folders(source: Path, target: Path) -> None:
    """Create the folder of results if missing. Raises UsageError if one of the two cannot be used."""
    if not source.is_dir():
        raise UsageError(f"{source} is not a folder, expected one with DICOM files: check the path")
    try:
        target.mkdir(parents=True, exist_ok=True)
        found = next(target.iterdir(), None)
    except OSError as error:
        raise UsageError(f"{target} cannot be made or searched ({error.strerror}): choose another folder") from error
    if found:
        raise UsageError(
            f"{target} holds {found.name!r}, expected an empty folder, so that results of two runs do not mix"
        )
