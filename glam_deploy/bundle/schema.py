"""Conversion between `manifest.json` and `Manifest`. Schema 2 is written; schema 1 of earlier releases is read too.

Schema 1 has more keys in "network"; their values follow from its name and aggregation (`glam_deploy.networks`).
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

from glam_deploy.bundle.manifest import Manifest, NetworkEntry, SearchPoint
from glam_deploy.errors import BundleError
from glam_deploy.json_records import JsonFault, from_json, to_json
from glam_deploy.networks import Stage, network
from glam_deploy.precision import Recipe

MANIFEST = "manifest.json"
MANIFEST_LIMIT = 1 << 26
"""Maximum size of a manifest in bytes; without engines a manifest has about ten thousand."""
SCHEMA_VERSION = 2
FIRST_VERSION = 1
VERSION = "schema_version"

NO_MANIFEST = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""Exceptions that are raised when a file that is not a manifest, or not JSON, is read as one."""


def read_manifest(text: bytes, path: Path) -> Manifest:
    """Parse the JSON `text` of a manifest; `path` is used in messages.

    Raises BundleError if the text is not a manifest, has an unknown key or a value of another type, is of a newer
    schema, or is of a network that this release does not support.
    """
    try:
        content = dict(json.loads(text))
        version = content.pop(VERSION)
    except NO_MANIFEST as error:
        raise BundleError(f"{path}: not a bundle's manifest. Export the checkpoint again.") from error
    if version not in (FIRST_VERSION, SCHEMA_VERSION) or isinstance(version, bool):
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        remedy = "Upgrade glam-deploy" if newer else "Export the checkpoint again with this release"
        raise BundleError(
            f"{path}: schema version is {version!r}, expected {FIRST_VERSION} or {SCHEMA_VERSION}. {remedy}."
        )
    try:
        manifest = from_json(Manifest, _migrated(content) if version == FIRST_VERSION else content)
    except JsonFault as fault:
        raise BundleError(
            f"{path}: {fault}. Use the release of glam-deploy that wrote the bundle, or export the checkpoint again."
        ) from fault
    _require_network(manifest, path)
    return manifest


def write_json(path: Path, manifest: Manifest) -> None:
    """Write `manifest` as JSON of schema 2 to `path`; an existing file is overwritten. Raises OSError."""
    content = {VERSION: SCHEMA_VERSION, **to_json(manifest)}
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", "utf-8")


@dataclass(frozen=True, kw_only=True)
class _Search:
    """The part of a manifest that a precision search writes."""

    mixture: Mapping[Stage, Recipe] | None = None
    frontier: tuple[SearchPoint, ...] = ()


def _migrated(content: Mapping[str, object]) -> dict[str, object]:
    """Convert schema 1 to schema 2: keys of "network" that schema 2 lacks are removed.

    A precision search in the format of an older release is removed too: only the engine openvino-mixed needs it.
    """
    search = {f.name: content[f.name] for f in fields(_Search) if f.name in content}
    found = {key: value for key, value in content.items() if key not in search}
    if isinstance(entry := found.get("network"), dict):
        kept = {f.name for f in fields(NetworkEntry)}
        found["network"] = {key: value for key, value in entry.items() if key in kept}
    with suppress(JsonFault):
        from_json(_Search, search)
        found |= search
    return found


def _require_network(manifest: Manifest, path: Path) -> None:
    """Raises BundleError for an unknown network, and for TensorRT engines without one of the network's stages."""
    entry = manifest.network
    try:
        spec = network(entry.name, entry.aggregation)
    except LookupError as error:
        raise BundleError(
            f"{path}: {error}. Use the release of glam-deploy that wrote the bundle, or export a checkpoint of a "
            f"known network."
        ) from error
    for number, engine in enumerate(manifest.engines):
        if missing := [stage for stage in spec.stages if stage not in engine.stages]:
            raise BundleError(
                f"{path}: engines[{number}].stages.{missing[0]} is missing, expected an engine for each of "
                f"{', '.join(spec.stages)}. Export the checkpoint again."
            )
