"""Options that several commands share, and the way to packages that the runtime must not import by itself."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from glam_deploy.engines.registry import AUTO, ENGINE_NAMES, OWNERS
from glam_deploy.gpu.engines.tensorrt.flavours import FLAVOURS
from glam_deploy.installation import documentation, require
from glam_deploy.networks import MOST_PATCHES


class DocumentedCommand(click.Command):
    """A command whose help names pages of docs/: it ends with the folder where they lie."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        formatter.write(f"docs/ lies in {documentation()}\n")  # not wrapped: a path is to be copied


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _engines_in_words() -> str:
    """Names with what they are; those that differ in their name alone share a line."""
    names: dict[str, list[str]] = {}
    for name, owner in OWNERS.items():
        names.setdefault(owner.summary, []).append(name)
    words = "; ".join(f"{', '.join(same)}: {summary}" for summary, same in names.items())
    return f"{words}. auto: the fastest with a passed gate, else {AUTO}."


bundle_option: Decorator = click.option(
    "--bundle",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("bundle"),
    envvar="GLAM_BUNDLE",
    show_default=True,
    show_envvar=True,
    help="Bundle folder.",
)

engine_option: Decorator = click.option(
    "--engine",
    type=click.Choice(ENGINE_NAMES),
    metavar="NAME",  # all of them in a row are wider than a narrow terminal
    default="auto",
    show_default=True,
    help=_engines_in_words(),
)

flavour_option: Decorator = click.option(
    "--flavour",
    type=click.Choice(list(FLAVOURS)),
    help="Which of the bundle's TensorRT engines, where both kinds fit this machine.",
)

device_option: Decorator = click.option(
    "--device", type=click.IntRange(min=0), help="Index of the GPU, as the driver counts [default: 0, the first]."
)

threads_option: Decorator = click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="CPU threads of an engine, at most one a core [default: all cores].",
)

streams_option: Decorator = click.option(
    "--streams",
    type=click.IntRange(min=1),
    help="Views that the threads of an OpenVINO engine work on at once: for folders [default: 1].",
)

cache_option: Decorator = click.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="Folder of models that OpenVINO has compiled before, at most 4 GiB [default: glam-deploy in the user's cache "
    "folder; /dev/null keeps none].",
)

ungated_option: Decorator = click.option(
    "--ungated", is_flag=True, help="Take the engine also where its gate is missing or failed; the results say so."
)


def patches_option(default: int | None, help_text: str) -> Decorator:
    """`--patches K`, 1..6."""
    return click.option("--patches", type=click.IntRange(1, MOST_PATCHES), default=default, help=help_text)


def export_module(name: str, *more_extras: str) -> Any:
    """A module of `glam_export`, which the plain install cannot run. Raises BackendUnavailable.

    `more_extras`: what it needs beside the extra `export`.
    """
    require("export", *more_extras)
    return import_module(f"glam_export.{name}")
