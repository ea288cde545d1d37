"""`manifest.json`: its records, whose field names are the keys, and reading and writing it.

Schema 2 is written; schema 1, of earlier releases, is read too.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from glam_deploy.errors import BundleError
from glam_deploy.json_records import JsonFault, from_json, json_sha256, parse_json, to_json
from glam_deploy.networks import Stage, network
from glam_deploy.precision import Precision, Recipe

MANIFEST = "manifest.json"
MANIFEST_LIMIT = 1 << 26
"""Maximum size of a manifest in bytes; without engines a manifest has about ten thousand."""
ENSEMBLE = "ensemble.json"
MOST_MEMBERS = 32
WHOLE_ENSEMBLE = "Copy the whole ensemble again from its source, or export its checkpoints again."
"""Remedy for a damaged ensemble."""
SCHEMA_VERSION = 2
FIRST_VERSION = 1
GATE_ID_DIGITS = 12
VERSION = "schema_version"
NO_MANIFEST = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
"""Exceptions that are raised when a file that is not a manifest, or not JSON, is read as one."""


@dataclass(frozen=True, kw_only=True)
class NetworkEntry:
    """The network (`glam_deploy.networks`) and the choices of the export."""

    name: str
    aggregation: str
    patches: int
    """Default number of patches per image."""
    precisions: tuple[Precision, ...]
    """The precisions of the bundle's graphs."""


@dataclass(frozen=True, kw_only=True)
class CheckpointEntry:
    """The checkpoint file that was exported."""

    name: str
    sha256: str
    parameters: int
    """Number of parameters of the network."""
    ignored_keys: tuple[str, ...]
    key: str | None = None
    """Key of the state dict if the file has several; None if it has one."""


@dataclass(frozen=True, kw_only=True)
class TensorEntry:
    """One input or output of a graph."""

    dtype: str
    shape: tuple[str | int, ...]
    """The first axis is "batch"."""


@dataclass(frozen=True, kw_only=True)
class GraphEntry:
    """The graphs of a stage, for programs that read a bundle without this package, which uses `GraphContract`."""

    files: Mapping[Precision, str]
    inputs: Mapping[str, TensorEntry]
    outputs: Mapping[str, TensorEntry]


@dataclass(frozen=True, kw_only=True)
class Golden:
    """The golden case: input and reference outputs that `glam-deploy verify` compares with."""

    file: str
    patches: int
    """Number of patches for which its outputs were computed."""


@dataclass(frozen=True, kw_only=True)
class SearchPoint:
    """One candidate precision of one stage, with the measurements of the precision search."""

    stage: Stage
    kind: Recipe
    wide: tuple[str, ...]
    """Blocks that stay in floating point, if the others are INT8."""
    narrow_share: float
    """Share of the convolutions' multiplications that are INT8, 0..1."""
    latency_ms: float
    """Minimum over the images, for one image or one patch: other load on the machine only increases a time."""
    dice_median: float
    dice_worst: float
    """Median and minimum over the images of the lowest Dice of all maps, classes and thresholds; 0 for an image with
    a lost or new lesion."""
    same_patches: float
    """Share of the images with the same patches as in FP32, or tied with them, 0..1; 1 for the local stage."""
    passed: bool
    taken: bool
    """Whether the bundle's mixture uses this candidate."""


@dataclass(frozen=True, kw_only=True)
class ParityRow:
    """One output of a graph or engine compared with the PyTorch reference."""

    output: str
    precision: Precision
    max_abs: float | None
    """Largest absolute difference; None if it is not finite."""
    mean_abs: float | None
    """Mean absolute difference; None if it is not finite."""
    limit: float
    """Limit of the largest difference in fp32, of the mean difference in other precisions."""
    passed: bool
    tied: int = 0
    """Number of patches at another location that is tied with the reference's choice."""


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file of the bundle, by its path relative to the bundle's folder."""

    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class MadeFor:
    """The GPUs that TensorRT engines were built for."""

    compute_capabilities: tuple[str, ...]
    """Such as "8.9"; at least one."""
    gpu: str | None
    """Name of the GPU on which TensorRT timed its kernels; None if nothing was timed: the engines then run on every
    GPU of these compute capabilities."""
    driver: str | None


@dataclass(frozen=True, kw_only=True)
class StageEntry:
    """The TensorRT engine of one stage."""

    file: str
    graph: str
    """The ONNX file that it was built from."""
    graph_sha256: str
    confirmed_share: float | None
    """Share of the multiply-adds whose precision the library's layer report confirms, 0..1; None without a report."""
    report: str | None = None
    """File of the layer report; kept only if the confirmed share is too low."""


@dataclass(frozen=True, kw_only=True)
class KernelEntry:
    """The compiled CUDA kernels for one architecture."""

    file: str


@dataclass(frozen=True, kw_only=True)
class EngineEntry:
    """The TensorRT engines of one precision and flavour, with their kernels."""

    precision: Precision
    flavour: str
    """"tensorrt" or "tensorrt-rtx"."""
    library: str
    """The library's version, with all four numbers."""
    made_for: MadeFor
    options: Mapping[str, object]
    """Options of the TensorRT builder, as JSON values; used only for comparison."""
    kernels_sha256: str
    """SHA-256 of the source of the CUDA kernels."""
    key: str
    """SHA-256 of all inputs of the build and of its target GPUs; see `gpu.engines.tensorrt.identity`."""
    built: str
    """ISO 8601."""
    stages: Mapping[Stage, StageEntry]
    kernels: Mapping[str, KernelEntry]
    """Architecture, such as "sm_89" -> its kernels."""
    timing_cache: str | None
    """File with the builder's timing cache; None for a library that has none."""

    @property
    def files(self) -> tuple[str, ...]:
        """All files of these engines."""
        stages, kernels = self.stages.values(), self.kernels.values()
        kept = [*(stage.report for stage in stages), self.timing_cache]
        return (*(stage.file for stage in stages), *(kernel.file for kernel in kernels), *filter(None, kept))


@dataclass(frozen=True, kw_only=True)
class GateMachine:
    """The machine on which a gate measured latencies."""

    processor: str
    cores: int
    device: str
    """"cpu", or the name of the GPU."""


@dataclass(frozen=True, kw_only=True)
class GateEntry:
    """The verdict of one gate: an engine compared with the reference on a set of images."""

    id: str
    """First GATE_ID_DIGITS hexadecimal digits of the SHA-256 of the other fields."""
    engine: str
    digest: str
    """`EngineIdentity.digest` of the opened engine (`engines.base`)."""
    reference: str
    passed: bool
    failures: tuple[str, ...]
    """The limits that were exceeded."""
    limits: Mapping[str, object]
    figures: Mapping[str, Any]
    """The metrics over all images, in the format of the release that ran the gate; empty if no image was compared."""
    images: int
    images_sha256: str
    patches: int
    when: str
    """ISO 8601."""
    machine: GateMachine
    latency_ms: float
    times_onnx: float | None = None
    """Ratio of the engine's time to that of "onnx", measured alternately on the same images; None if not measured."""

    @property
    def computed_id(self) -> str:
        """The id of the other fields."""
        content = {name: value for name, value in to_json(self).items() if name != "id"}
        return json_sha256(content)[:GATE_ID_DIGITS]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of `manifest.json`, except for the schema version."""

    created: str
    """ISO 8601."""
    licence: str
    network: NetworkEntry
    checkpoint: CheckpointEntry
    graphs: Mapping[Stage, GraphEntry] = field(default_factory=dict)
    versions: Mapping[str, str]
    """Package -> version of the packages used by the export."""
    golden: Golden
    mixture: Mapping[Stage, Recipe] | None = None
    """Stage -> recipe that the precision search selected; None if no search was made."""
    frontier: tuple[SearchPoint, ...] = ()
    """All candidates of the precision search."""
    parity: tuple[ParityRow, ...]
    files: Mapping[str, FileEntry]
    """Relative path -> hash and size of every file except the manifest."""
    engines: tuple[EngineEntry, ...] = ()
    gates: tuple[GateEntry, ...] = ()
    """Oldest first."""


_OTHER_RELEASE = "Use the release of glam-deploy that wrote the bundle, or export the checkpoint again."


def read_manifest(text: bytes, path: Path) -> Manifest:
    """Parse the JSON `text` of a manifest; `path` is used in messages.

    Raises BundleError if the text is not a manifest, has an unknown key or a value of another type, is of a newer
    schema, or is of a network that this release does not support.
    """
    try:
        content = dict(parse_json(text))
        version = content.pop(VERSION)
    except JsonFault as fault:
        raise BundleError(f"{path}: {fault}. {_OTHER_RELEASE}") from fault
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
        raise BundleError(f"{path}: {fault}. {_OTHER_RELEASE}") from fault
    _require_network(manifest, path)
    return manifest


@dataclass(frozen=True, kw_only=True)
class Member:
    """One model of an ensemble."""

    folder: str
    """Name of its bundle's folder in the folder of the ensemble."""
    checkpoint_sha256: str
    """As of its manifest. The bundle's id is not recorded, because each gate changes it."""


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """The content of `ensemble.json`: bundles of one network, in their order, whose scores are averaged."""

    schema_version: int
    members: tuple[Member, ...]


def read_ensemble(text: bytes, path: Path) -> Ensemble:
    """Parse the JSON `text` of `ensemble.json`; `path` is used in messages. Raises BundleError."""
    try:
        ensemble = from_json(Ensemble, parse_json(text))
    except NO_MANIFEST as error:
        raise BundleError(f"{path}: does not describe an ensemble ({error}). {WHOLE_ENSEMBLE}") from error
    if ensemble.schema_version != 1:
        raise BundleError(f"{path}: schema version is {ensemble.schema_version}, expected 1. Upgrade glam-deploy.")
    names = [member.folder for member in ensemble.members]
    if not 1 < len(set(names)) == len(names) <= MOST_MEMBERS or not all(map(_is_number, names)):
        raise BundleError(
            f"{path}: its members are {names[: MOST_MEMBERS + 1]}, expected 2 to {MOST_MEMBERS} different folders "
            f"named 1, 2, .... {WHOLE_ENSEMBLE}"
        )
    if len({member.checkpoint_sha256 for member in ensemble.members}) < len(names):
        raise BundleError(f"{path}: two of its members have the same checkpoint; a model counts once. {WHOLE_ENSEMBLE}")
    return ensemble


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def manifest_json(manifest: Manifest) -> bytes:
    """The content of `manifest.json`, in schema 2."""
    content = {VERSION: SCHEMA_VERSION, **to_json(manifest)}
    return (json.dumps(content, indent=2, allow_nan=False) + "\n").encode()


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
