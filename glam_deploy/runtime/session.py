"""Opening of pipelines from bundles."""

import logging
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from glam_deploy import __version__
from glam_deploy.bundle import Bundle, digest_of, open_members, read_trust
from glam_deploy.engines.admission import UNGATED, admit
from glam_deploy.engines.base import EngineOptions, OpenedEngines
from glam_deploy.engines.devices import Devices, gpu_indices
from glam_deploy.engines.selection import choose, open_asked, without_unused_cache
from glam_deploy.errors import BackendUnavailable, Remedy, UsageError
from glam_deploy.json_records import json_sha256
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
    device: Devices = None,
    slots: int | None = None,
    ungated: bool = False,
    trusted_keys: Sequence[str | os.PathLike[str]] | None = None,
    digest: str | None = None,
) -> Pipeline:
    """Open a pipeline from a bundle folder, or from the folder of an ensemble (docs/networks.md).

    `engine`: a name of `glam_deploy.engines.registry.ENGINE_NAMES`; there is no fallback to another engine. "auto" is
    the fastest engine with a passed gate that this machine can run, else "onnx" (ONNX Runtime on the CPU); for a bundle
    with gates, `provenance["auto"]` of the pipeline has the selected engine and the reason.
    `ungated`: whether to use an engine whose gate (`glam-deploy gate`) is missing or failed; its results record it.
    "onnx" and "torch" are the reference and need no gate.
    `patches`: number of patches for the local module per image, 1..6; None means the bundle's default.
    `threads` (CPU engines): CPU threads of an engine; None means all physical cores. Threads and streams are limited
    to the cores that this process may use, with a warning in the log.
    `streams` (OpenVINO engines): number of views that the threads compute concurrently; a single view then takes
    longer, a folder less time; None means 1.
    `cache` (OpenVINO engines): folder of compiled models, created if it is missing, for faster starts; None means
    `glam-deploy` in the user's cache folder, /dev/null disables the cache. It has at most 4 GiB. Users who can write to
    it can change results. "auto" may select an engine that ignores `cache`.
    `device` (GPU engines): index of the GPU; None means 0. Several indices, or "all", open the engine on each of these
    GPUs, which must be of one model, and distribute the views; `provenance["gpu"]` of a result names its GPU.
    `slots` (GPU engines): number of concurrent runs of a GPU; None means 2. `flavour` (TensorRT engines): "tensorrt" or
    "tensorrt-rtx", if the bundle has engines of both for this GPU.
    `trusted_keys`: PEM files of public keys, of which one must have signed the bundle (`glam-deploy sign`); None
    demands no signature, an empty list is an error. `digest`: the id that the bundle must have, 64 hexadecimal digits;
    None means any.
    Raises UsageError (not a bundle, unknown engine, an option that the engine does not support, no key), BundleError
    (damaged, changed or too new bundle, not signed or of another digest, or no passed gate for the engine),
    BackendUnavailable (this machine lacks a requirement of the engine), BackendBuildError.
    """
    gpus = gpu_indices(engine, device)
    options = EngineOptions(
        threads=threads,
        streams=streams,
        cache=Path(cache) if cache is not None else None,
        flavour=flavour,
        device=gpus[0] if gpus else None,
    )
    first, *others = open_members(_path(bundle, "bundle"), read_trust(_key_files(trusted_keys), digest))
    return pipeline_of(
        first,
        others=others,
        engine=engine,
        patches=patches,
        options=options,
        further_gpus=gpus[1:],
        slots=slots,
        ungated=ungated,
    )


def _path(value: object, name: str) -> Path:
    """Raises UsageError for what is no path."""
    if not isinstance(value, str | os.PathLike):
        raise UsageError(f"{name} = {value!r}: expected a path")
    return Path(value)


def _key_files(trusted_keys: object) -> list[Path] | None:
    if trusted_keys is None:
        return None
    if isinstance(trusted_keys, str | os.PathLike) or not isinstance(trusted_keys, Iterable):
        raise UsageError(f"trusted_keys = {trusted_keys!r}: expected a list of paths, such as [{trusted_keys!r}]")
    return [_path(each, "trusted_keys") for each in trusted_keys]


def pipeline_of(
    bundle: Bundle,
    *,
    others: Sequence[Bundle] = (),
    engine: str,
    patches: int | None = None,
    options: EngineOptions | None = None,
    further_gpus: Sequence[int] = (),
    slots: int | None = None,
    ungated: bool = False,
) -> Pipeline:
    """Open a pipeline from an opened bundle; see `load`. `others`: the further bundles of an ensemble.

    All models of an ensemble run with the engine of the first. `further_gpus`: indices of GPUs that compute besides
    that of `options.device`.
    """
    provenance = bundle_provenance(bundle)
    options = options or EngineOptions()
    if engine == "auto":
        choice = choose(bundle, options)
        engine, opened = choice.engine, choice.opened
        options = without_unused_cache(engine, options)
        provenance |= {"auto": choice.reason} if bundle.gates else {}
    else:
        opened = open_asked(engine, bundle, options)
    models = [(bundle, opened), *((other, open_asked(engine, other, options)) for other in others)]
    gates = [admit(model, engine, engines.identity, ungated=ungated) for model, engines in models]
    provenance["gate"] = gates[0]
    if others:
        provenance |= ensemble_provenance(models, gates)
    log.info("bundle %s, engine %s, gate %s", provenance["bundle"]["id"][:12], engine, provenance["gate"])
    return Pipeline(
        opened,
        others=[engines for _, engines in models[1:]],
        patches=bundle.patches if patches is None else patches,
        provenance=provenance,
        slots=slots,
        replicas=[_replica(models, engine, replace(options, device=index)) for index in further_gpus],
    )


def _replica(
    models: Sequence[tuple[Bundle, OpenedEngines]], engine: str, options: EngineOptions
) -> list[OpenedEngines]:
    """The engines of `models`, which are opened on one GPU, opened on another: that of `options.device`.

    Raises UsageError unless they are the same engines on the same GPU model: gates, the identity in the provenance of
    the results and the UIDs derived from it are of one engine. Raises BackendUnavailable if a GPU lacks an engine.
    """
    replicas = []
    for bundle, first in models:
        try:
            opened = open_asked(engine, bundle, options)
        except BackendUnavailable as error:
            raise BackendUnavailable(f"GPU {options.device}: {error}") from error
        if opened.identity != first.identity:
            raise UsageError(
                f"GPU {options.device} ({opened.identity.device}) would compute with another engine than the first GPU "
                f"({first.identity.device}): one pipeline needs GPUs of one model with the same engine files. Start a "
                "process for each model",
                Remedy.EQUAL_GPUS,
            )
        replicas.append(opened)
    return replicas


def ensemble_provenance(models: Sequence[tuple[Bundle, OpenedEngines]], gates: Sequence[str]) -> dict[str, Any]:
    """What differs in the provenance of an ensemble's results: ids made of those of its models, and the models.

    `gates`: of each model, as `admission.admit` returns them. "gate" is "ungated" if one model is, "reference" if all
    are the reference, else the first 12 digits of the SHA-256 of all.
    """
    members = [
        {"checkpoint": {"sha256": bundle.manifest.checkpoint.sha256}, "engine": opened.identity.digest, "gate": gate}
        for (bundle, opened), gate in zip(models, gates, strict=True)
    ]
    together = UNGATED if UNGATED in gates else gates[0] if len(set(gates)) == 1 else json_sha256(list(gates))[:12]
    return {
        "bundle": {
            "id": digest_of([bundle for bundle, _ in models]),
            "folder": models[0][0].folder.resolve().parent.name,
        },
        "checkpoint": {"sha256": json_sha256([bundle.manifest.checkpoint.sha256 for bundle, _ in models])},
        "ensemble": members,
        "gate": together,
    }


def bundle_provenance(bundle: Bundle) -> dict[str, Any]:
    """Provenance of results that is known before an engine is opened, as JSON values: bundle, checkpoint, versions."""
    versions = {"glam_deploy": __version__, "python": platform.python_version(), "numpy": np.__version__}
    return {
        "bundle": {"id": bundle.id, "folder": bundle.folder.name},
        "checkpoint": {"sha256": bundle.manifest.checkpoint.sha256},
        "versions": versions,
        "machine": platform.machine(),
    }
