"""`glam-deploy triton`."""

import sysconfig
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import click

from glam_deploy import __version__
from glam_deploy.bundle import Bundle, open_bundle
from glam_deploy.cli import console
from glam_deploy.cli.options import (
    Decorator,
    DocumentedCommand,
    EngineChoice,
    FilePath,
    bundle_option,
    devices_option,
    digest_option,
    engine_option,
    flavour_option,
    grouped,
    out_option,
    patches_of_view_option,
    streams_option,
    threads_option,
    trusted_key_option,
    ungated_option,
)
from glam_deploy.engines.admission import UNGATED
from glam_deploy.engines.devices import gpu_indices
from glam_deploy.engines.registry import OWNERS
from glam_deploy.errors import UsageError
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.runtime.session import pipeline_of
from glam_deploy.serving.config import Instances
from glam_deploy.serving.repository import Graphs, plan, write
from glam_deploy.serving.served import Served


@dataclass(frozen=True, kw_only=True)
class ServerChoice:
    """How the server runs the models."""

    instances: int = 1
    largest_batch: int = 8
    graphs: Graphs = "onnx"
    site_packages: tuple[Path, ...] = ()


server_options: Decorator = grouped(
    "server",
    ServerChoice,
    click.option(
        "--instances",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Processes of the pipeline, on the CPU or on each GPU; each has the bundle in memory.",
    ),
    click.option(
        "--batch",
        "largest_batch",
        type=click.IntRange(1, 64),
        default=8,
        show_default=True,
        help="Most images that a process gets at once.",
    ),
    click.option(
        "--graphs",
        type=click.Choice(get_args(Graphs)),
        default="onnx",
        show_default=True,
        help="Models of the single stages: the ONNX graphs in FP32, the TensorRT engines of --engine, or none.",
    ),
    click.option(
        "--site-packages",
        type=FilePath(),
        multiple=True,
        help="Folder of packages on the server in which glam_deploy is installed; may be repeated [default: those of "
        "the Python that runs this command].",
    ),
)


@click.command("triton", cls=DocumentedCommand)
@grouped(
    "choice",
    EngineChoice,
    bundle_option,
    engine_option,
    patches_of_view_option,
    threads_option,
    streams_option,
    flavour_option,
    devices_option,
    ungated_option,
    trusted_key_option,
    digest_option,
)
@server_options
@out_option(
    Path("models"), "Model repository; the new version is added to an existing one, and served instead of others."
)
def command(out: Path, choice: EngineChoice, server: ServerChoice) -> int:
    """Write a model repository for NVIDIA Triton Inference Server (docs/serving.md).

    It gets a model of the whole pipeline, from a DICOM object to scores, maps and patches with the results of
    `glam-deploy run`, and a model of each stage's graph. The version number follows from bundle, engine and settings.
    The engine needs a passed gate in the bundle, unless it is the reference or --ungated is given.
    """
    packages = tuple(map(_packages, server.site_packages))
    bundle = open_bundle(choice.folder, choice.trust)
    if choice.streams == "auto":
        raise UsageError("--streams auto measures the inputs of `run`, and a server has none yet: give a number")
    devices = gpu_indices(choice.engine, choice.device)
    options = replace(choice, device=devices[0] if devices else None).options
    with pipeline_of(
        bundle, engine=choice.engine, patches=choice.patches, options=options, ungated=choice.ungated
    ) as pipeline:
        wanted = plan(
            bundle,
            pipeline,
            _served(bundle, pipeline, choice),
            largest_batch=server.largest_batch,
            instances=_instances(pipeline, devices, server.instances),
            graphs=server.graphs,
            site_packages=packages or _own_packages(),
        )
        folders = write(out, wanted)
    versions = ", ".join(f"{folder.name} {number}" for folder, number in folders.items())
    engine = f"engine {wanted.served.engine}, {'without a gate' if wanted.served.ungated else 'admitted'}"
    console.out.print(f"{out}: versions {versions}; {engine}", soft_wrap=True)
    return 0


def _served(bundle: Bundle, pipeline: Pipeline, choice: EngineChoice) -> Served:
    identity = pipeline.identity
    assert choice.streams != "auto"
    return Served(
        bundle=bundle.id,
        engine=identity.name,
        engine_digest=identity.digest,
        library=identity.library,
        release=__version__,
        patches=pipeline.patches,
        threads=choice.threads,
        streams=choice.streams,
        flavour=identity.flavour,
        ungated=pipeline.provenance["gate"] == UNGATED,
    )


def _instances(pipeline: Pipeline, devices: tuple[int, ...], count: int) -> Instances:
    """Raises UsageError for GPUs of a CPU engine, which `auto` may have selected."""
    gpu = OWNERS[pipeline.identity.name].gpu
    if devices and not gpu:
        raise UsageError(f"--device is for GPU engines, and {pipeline.identity.name} runs on the CPU: leave it out")
    return Instances(count=count, gpus=devices or (0,) if gpu else ())


def _packages(folder: Path) -> Path:
    """The absolute path of a folder of --site-packages. Raises UsageError if there is none."""
    if not folder.is_dir() or ":" in str(folder.absolute()):
        raise UsageError(
            f"--site-packages {folder}: expected a folder of this machine, without a colon in its path: correct it. "
            "For a server on another machine, run this command there, or leave the option out and write the folder "
            "into the parameter site_packages of config.pbtxt"
        )
    return folder.absolute()


def _own_packages() -> tuple[Path, ...]:
    """Folders of packages of this Python."""
    return tuple(dict.fromkeys(Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")))
