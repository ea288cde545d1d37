"""Bundle and options -> pipeline."""

import logging
import os
import platform
from pathlib import Path

import numpy as np

from glam_deploy import __version__
from glam_deploy.bundle import Bundle, open_bundle
from glam_deploy.engines.admission import admit
from glam_deploy.engines.base import EngineOptions
from glam_deploy.engines.selection import choose, open_asked
from glam_deploy.runtime.pipeline import Pipeline

log = logging.getLogger(__name__)


def load(
    bundle: str | os.PathLike[str] = "bundle",
    *,
    engine: str = "auto",
    patches: int | None = None,
    threads: int | None = None,
    streams: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    flavour: str | None = None,
    device: int | None = None,
    slots: int | None = None,
    ungated: bool = False,
) -> Pipeline:
    """A pipeline from a bundle folder.

    `engine`: a name of `glam_deploy.engines.registry.ENGINE_NAMES`; the one asked for or an error, never another.
    "auto" is the fastest engine with a passed gate that this machine can run, else "onnx" (ONNX Runtime on the CPU); of
    a bundle with gates the pipeline's `provenance["auto"]` says which and why.
    `ungated`: take an engine also where its gate (`glam-deploy gate`) is missing or failed; its results say so. "onnx"
    and "torch" are the reference and need none.
    `patches`: regions that the local module looks at in each image, 1..6; None takes the bundle's own number.
    For engines on the CPU, `threads`: CPU threads of an engine; None takes all physical cores. More threads or streams
    than this process may use cores are not used, and the logger of `glam_deploy` says so.
    For engines of OpenVINO, `streams`: how many views those threads work on at once; a single view then takes longer, a
    folder less; None is one. `cache`: folder of compiled models, made where it is missing, by which a second start is
    faster; None is `glam-deploy` in the user's cache folder, /dev/null keeps none. It holds at most 4 GiB, and who can
    write to it can change results. "auto" may choose an engine that compiles nothing, which then leaves `cache` alone.
    For engines on a GPU, `device`: its index, None is the first; `slots`: how many runs may be under way at once, None
    is 2; `flavour`: "tensorrt" or "tensorrt-rtx" where the bundle has engines of both for this GPU.
    Raises UsageError (no bundle there, unknown engine, an option that the engine cannot honour), BundleError (damaged,
    changed, too new, or without a passed gate for the engine), BackendUnavailable (this machine lacks what the engine
    needs), BackendBuildError.
    """
    options = EngineOptions(
        threads=threads,
        streams=streams,
        cache=Path(cache) if cache is not None else None,
        flavour=flavour,
        device=device,
    )
    opened = open_bundle(Path(bundle))
    return pipeline_of(opened, engine=engine, patches=patches, options=options, slots=slots, ungated=ungated)


def pipeline_of(
    bundle: Bundle,
    *,
    engine: str,
    patches: int | None = None,
    options: EngineOptions | None = None,
    slots: int | None = None,
    ungated: bool = False,
) -> Pipeline:
    """As `load`, for a bundle that has been opened."""
    provenance = bundle_provenance(bundle)
    options = options or EngineOptions()
    if engine == "auto":
        choice = choose(bundle, options)
        engine, opened = choice.engine, choice.opened
        provenance |= {"auto": choice.reason} if bundle.gates else {}
    else:
        opened = open_asked(engine, bundle, options)
    provenance["gate"] = admit(bundle, engine, opened.identity, ungated=ungated)
    log.info("bundle %s, engine %s, gate %s", bundle.id[:12], engine, provenance["gate"])
    return Pipeline(opened, patches=bundle.patches if patches is None else patches, provenance=provenance, slots=slots)


def bundle_provenance(bundle: Bundle) -> dict[str, object]:
    """What made a result, as far as the bundle and this installation know: JSON-ready."""
    versions = {"glam_deploy": __version__, "python": platform.python_version(), "numpy": np.__version__}
    return {
        "bundle": {"id": bundle.id, "folder": bundle.folder.name},
        "checkpoint": {"sha256": bundle.manifest.checkpoint.sha256},
        "versions": versions,
        "machine": platform.machine(),
    }
