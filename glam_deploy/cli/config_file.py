"""The option `--config` of the appliance's commands."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from glam_deploy.cli.options import Decorator
from glam_deploy.errors import UsageError
from glam_deploy.installation import require
from glam_deploy.regular import read_regular

if TYPE_CHECKING:
    from glam_deploy.appliance.config import Config

config_option: Decorator = click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    default=Path("glam.toml"),
    show_default=True,
    envvar="GLAM_CONFIG",
    help="The configuration of the appliance.",
)


def read_config(path: Path) -> "Config":
    """The checked configuration in the file `path`.

    Raises UsageError for errors in it, BackendUnavailable if the appliance's packages are missing.
    """
    require_appliance()
    from glam_deploy.appliance.config import parse_config

    try:
        text = read_regular(path).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"the configuration {path} cannot be read ({reason}): set the path with --config") from error
    return parse_config(text, folder=path.absolute().parent)


def require_appliance() -> None:
    """Raises BackendUnavailable if the appliance's packages are missing."""
    require("dicom", "appliance", user="the appliance")
