"""Bundle and options -> pipeline."""

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from glam_deploy import __version__
from glam_deploy.bundle import Bundle, open_bundle
from glam_deploy.engines.base import EngineOptions
from glam_deploy.engines.registry import open_engines
from glam_deploy.runtime.pipeline import Pipeline


def load(
    bundle: str | os.PathLike[str] = "bundle",
    *,
    engine: str = "auto",
    patches: int | None = None,
    threads: int | None = None,
) -> Pipeline:
    """A pipeline from a bundle folder.

    `engine`: "auto" (ONNX Runtime), "onnx", "openvino" or "torch"; the one asked for or an error, never another.
    `patches`: regions that the local module looks at in each image, 1..6; None takes the bundle's own number.
    `threads`: CPU threads of an engine; None takes all physical cores.
    Raises UsageError (no bundle there, unknown engine), BundleError (damaged, changed or too new), BackendUnavailable
    (this machine lacks what the engine needs), BackendBuildError.
    """
    return pipeline_of(open_bundle(Path(bundle)), engine=engine, patches=patches, threads=threads)


def pipeline_of(bundle: Bundle, *, engine: str, patches: int | None, threads: int | None = None) -> Pipeline:
    """As `load`, for a bundle that has been opened."""
    opened = open_engines(engine, bundle, EngineOptions(threads=threads))
    return Pipeline(
        opened, patches=bundle.patches if patches is None else patches, provenance=bundle_provenance(bundle)
    )


def bundle_provenance(bundle: Bundle) -> dict[str, Any]:
    """What made a result, as far as the bundle and this installation know: JSON-ready."""
    versions = {"glam_deploy": __version__, "python": platform.python_version(), "numpy": np.__version__}
    return {
        "bundle": {"id": bundle.id, "folder": bundle.folder.name},
        "checkpoint": {"sha256": bundle.manifest["checkpoint"]["sha256"]},
        "versions": versions,
        "machine": platform.machine(),
    }
