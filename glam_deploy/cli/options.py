"""Options that several commands share, each declared once, and the records in which commands get their values."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import click

from glam_deploy.bundle import Trust, read_trust
from glam_deploy.engines.base import EngineOptions
from glam_deploy.engines.devices import Devices
from glam_deploy.engines.registry import AUTO, ENGINE_NAMES, OWNERS
from glam_deploy.gpu.engines.tensorrt.flavours import FLAVOURS
from glam_deploy.installation import documentation, require
from glam_deploy.networks import MOST_PATCHES, NETWORKS
from glam_deploy.records import View


class DocumentedCommand(click.Command):
    """A command whose help names pages of docs/: it ends with the path of that folder."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        formatter.write(f"docs/ lies in {documentation()}\n")  # not wrapped: a path is to be copied


class FilePath(click.Path):
    """A path, as `pathlib.Path`. An empty text is refused, because `Path("")` is the current folder."""

    def __init__(self, *, exists: bool = False, file_okay: bool = True, dir_okay: bool = True) -> None:
        super().__init__(exists=exists, file_okay=file_okay, dir_okay=dir_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail(
                "the path is empty, expected a file or folder: check whether a variable in the command is unset; the "
                "current folder is .",
                param,
                ctx,
            )
        return super().convert(value, param, ctx)


Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def grouped(name: str, record: type[Any], *options: Decorator) -> Decorator:
    """Adds `options` to a command, which gets their values as one `record` in its argument `name`.

    `record`: a dataclass with a field for each option, by the name under which click passes it; fields without an
    option keep their defaults.
    """
    names = {field.name for field in fields(record)}

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(command)
        def collect(*arguments: Any, **values: Any) -> Any:
            own = {key: values.pop(key) for key in names & values.keys()}
            return command(*arguments, **values, **{name: record(**own)})

        decorated: Callable[..., Any] = collect
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


# engine and bundle


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """A bundle, and which engine shall run it in which way; None leaves the choice to the engine."""

    folder: Path
    engine: str = "auto"
    patches: int | None = None
    threads: int | None = None
    streams: int | Literal["auto"] | None = None
    """"auto": as measured on the first inputs (`cli.run.open_measured`)."""
    cache: Path | None = None
    flavour: str | None = None
    device: Devices = None
    """An index, or of commands with `devices_option` also several."""
    ungated: bool = False
    trusted_keys: tuple[Path, ...] = ()
    digest: str | None = None

    @property
    def trust(self) -> Trust:
        """What the bundle must prove. Raises as `bundle.read_trust`."""
        return read_trust(self.trusted_keys or None, self.digest)

    @property
    def options(self) -> EngineOptions:
        """Options of the engine itself."""
        assert self.device is None or isinstance(self.device, int)
        assert self.streams != "auto"
        return EngineOptions(
            threads=self.threads, streams=self.streams, cache=self.cache, flavour=self.flavour, device=self.device
        )


def _engine_list() -> str:
    """Names of the engines with their summaries; engines with the same summary share an entry."""
    names: dict[str, list[str]] = {}
    for name, owner in OWNERS.items():
        names.setdefault(owner.summary, []).append(name)
    entries = "; ".join(f"{', '.join(same)}: {summary}" for summary, same in names.items())
    return f"{entries}. auto: the fastest with a passed gate, else {AUTO}."


bundle_option: Decorator = click.option(
    "--bundle",
    "folder",
    type=FilePath(),
    default=Path("bundle"),
    envvar="GLAM_BUNDLE",
    show_default=True,
    show_envvar=True,
    help="Bundle folder.",
)

trusted_key_option: Decorator = click.option(
    "--trusted-key",
    "trusted_keys",
    type=FilePath(),
    multiple=True,
    metavar="PEM",
    help="Public key that must have signed the bundle; repeatable, then one of them must have.",
)

digest_option: Decorator = click.option(
    "--digest", metavar="SHA256", help="Digest that the bundle must have, as `inspect` and `sign` print it."
)

passphrase_option: Decorator = click.option(
    "--passphrase-file",
    type=FilePath(),
    help="File with the passphrase of an encrypted key [default: asked for on the terminal].",
)

engine_option: Decorator = click.option(
    "--engine",
    type=click.Choice(ENGINE_NAMES),
    metavar="NAME",  # the list of names is wider than a narrow terminal
    default="auto",
    show_default=True,
    help=_engine_list(),
)

candidate_option: Decorator = click.option(
    "--engine",
    type=click.Choice(list(OWNERS)),
    metavar="NAME",
    required=True,
    help=f"The candidate: {', '.join(OWNERS)}.",
)

flavour_option: Decorator = click.option(
    "--flavour",
    type=click.Choice(list(FLAVOURS)),
    help="Which of the bundle's TensorRT engines, if both kinds fit this machine.",
)

library_option: Decorator = click.option(
    "--flavour", type=click.Choice(list(FLAVOURS)), help="Library to build with [default: the one installed]."
)

device_option: Decorator = click.option(
    "--device", type=click.IntRange(min=0), help="Index of the GPU, as the driver counts [default: 0, the first]."
)


class _DeviceList(click.ParamType):  # type: ignore[type-arg]  # generic since Click 8.4 only
    """`0`, `0,1` or `all`: an index, several indices or "all", as `session.load` takes them."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Devices:
        if value == "all":
            return "all"
        try:
            indices = [int(part) for part in value.split(",")]
        except ValueError:
            self.fail(f"{value!r}: expected the index of a GPU, several with commas (0,1), or all", param, ctx)
        return indices[0] if len(indices) == 1 else indices


devices_option: Decorator = click.option(
    "--device",
    type=_DeviceList(),
    metavar="N[,N...]|all",
    help="Index of the GPU, as the driver counts; several of one model (0,1) or all share the views [default: 0].",
)

batch_option: Decorator = click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Views that a GPU computes as one run while more are waiting: 1 or 4.",
)

threads_option: Decorator = click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="CPU threads of an engine, at most one per core [default: all cores].",
)


class _Streams(click.IntRange):
    """A number of at least 1, or "auto"."""

    name = "number of streams: expected a whole number, or auto"

    def __init__(self) -> None:
        super().__init__(min=1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return value if value == "auto" else super().convert(value, param, ctx)


streams_option: Decorator = click.option(
    "--streams",
    type=_Streams(),
    metavar="N|auto",
    help="Views that an OpenVINO engine processes at the same time: for folders; auto measures on the first inputs "
    "which number is the fastest [default: 1].",
)

cache_option: Decorator = click.option(
    "--cache",
    type=FilePath(),
    help="Folder of models that OpenVINO has compiled before, at most 4 GiB [default: glam-deploy in the user's cache "
    "folder; /dev/null keeps none].",
)

ungated_option: Decorator = click.option(
    "--ungated", is_flag=True, help="Use the engine even if its gate is missing or failed; the results say so."
)


def _network(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The name as in `NetworkSpec.name`."""
    return value and value.upper()


def network_option(default: str | None, help_text: str) -> Decorator:
    """`--network glam|gmic|cam`: a network by its name."""
    names = dict.fromkeys(spec.name.lower() for spec in NETWORKS)
    choice = click.Choice(list(names), case_sensitive=False)
    return click.option(
        "--network", type=choice, default=default, show_default=default is not None, callback=_network, help=help_text
    )


def patches_option(default: int | None, help_text: str) -> Decorator:
    """`--patches K`, 1..6."""
    return click.option("--patches", type=click.IntRange(1, MOST_PATCHES), default=default, help=help_text)


patches_of_view_option = patches_option(
    None, "Patches that the local module looks at in a view, 1..6 [default: the bundle's]."
)

# images


def _view(ctx: click.Context, param: click.Parameter, value: str | None) -> View | None:
    return View(value) if value else None


view_option: Decorator = click.option(
    "--view",
    type=click.Choice([view.value for view in View]),
    callback=_view,
    help="The view of images whose header and name do not state it.",
)


def standardized_option(help_text: str) -> Decorator:
    """`--standardized`: images are inputs of the network."""
    return click.option("--standardized", is_flag=True, help=help_text)


DATASETS = ("cbis-ddsm", "inbreast", "vindr-mammo", "cmmd")
"""The labelled sets that `glam_bench.evaluation.datasets` reads, here because help texts import no benchmarks."""

dataset_option: Decorator = click.option(
    "--dataset",
    type=(click.Choice(DATASETS), FilePath()),
    metavar="NAME DIR",
    help=f"A labelled set with its labels and outlines: {', '.join(DATASETS)} (docs/datasets.md).",
)

split_option: Decorator = click.option(
    "--split", metavar="NAME", help="Part of the labelled set, by its own name for it, such as test [default: all]."
)

for_processing_option: Decorator = click.option(
    "--for-processing", is_flag=True, help="Also process For Processing images, on which GLAM was not trained."
)

# files and output


def out_option(default: Path | None, help_text: str) -> Decorator:
    """`--out PATH`: where results go; None without a default."""
    path = FilePath()
    return click.option("--out", type=path, default=default, show_default=default is not None, help=help_text)


def json_option(help_text: str) -> Decorator:
    """`--json`: output for programs."""
    return click.option("--json", "as_json", is_flag=True, help=help_text)


config_option: Decorator = click.option(
    "--config",
    "config_path",
    type=FilePath(),
    default=Path("glam.toml"),
    show_default=True,
    envvar="GLAM_CONFIG",
    help="The configuration of the appliance.",
)


def export_module(name: str, *more_extras: str) -> Any:
    """A module of `glam_export`, which the plain install cannot run. Raises BackendUnavailable.

    `more_extras`: what it needs besides the extra `export`.
    """
    require("export", *more_extras)
    return import_module(f"glam_export.{name}")
