"""`manifest.json` <-> `Manifest`. Schema 2 is written; schema 1, of earlier releases, is read too.

Schema 1 had more facts in "network", which now follow from its name and aggregation (`glam_deploy.networks`).
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
"""Bytes of the largest manifest that is read; without engines it has some ten thousand."""
SCHEMA_VERSION = 2
FIRST_VERSION = 1
VERSION = "schema_version"

NO_MANIFEST = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""What JSON of another kind, or no JSON at all, raises when it is read as a manifest."""


def read_manifest(text: bytes, path: Path) -> Manifest:
    """The manifest in the JSON `text`; `path` is for messages.

    Raises BundleError where it is no manifest, has an unknown key or a value of another type, is of a newer schema, or
    names a network that this release does not know.
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
            f"{path}: schema version {version!r}, this release reads {FIRST_VERSION} and {SCHEMA_VERSION}. {remedy}."
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
    """Write `manifest` as JSON of schema 2 to `path`, which is replaced. Raises OSError."""
    content = {VERSION: SCHEMA_VERSION, **to_json(manifest)}
    path.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", "utf-8")


@dataclass(frozen=True, kw_only=True)
class _Search:
    """The part of a manifest that a precision search writes."""

    mixture: Mapping[Stage, Recipe] | None = None
    frontier: tuple[SearchPoint, ...] = ()


def _migrated(content: Mapping[str, object]) -> dict[str, object]:
    """Schema 1 as schema 2: of "network" the keys that stayed. A search of a release that wrote it otherwise is left
    out, because the bundle serves all other engines without it."""
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
    """Raises BundleError for a network that is unknown, and for TensorRT engines that lack one of its stages."""
    entry = manifest.network
    try:
        spec = network(entry.name, entry.aggregation)
    except LookupError as error:
        raise BundleError(
            f"{path}: {error}. Use the release of glam-deploy that wrote the bundle, or export a checkpoint of a "
            f"network that is known."
        ) from error
    for number, engine in enumerate(manifest.engines):
        if missing := [stage for stage in spec.stages if stage not in engine.stages]:
            raise BundleError(
                f"{path}: engines[{number}].stages.{missing[0]} is missing, expected an engine for each of "
                f"{', '.join(spec.stages)}. Export the checkpoint again."
            )
