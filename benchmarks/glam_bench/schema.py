"""The form of bench.json, version 1. None (JSON null) is a figure that was not measured; `notices` may say why.

Keys that may be missing were added to this version: what earlier releases have written is still read.

Times are milliseconds of wall time, memory is MiB, energy joules for one image, rates a second.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NotRequired, TypedDict, Union, get_args, get_origin, get_type_hints, is_typeddict

from glam_deploy.errors import UsageError

SCHEMA_VERSION = 1

ByThreshold = dict[str, float | None]
""""0.1" .. "0.9" -> Dice; None where no image has a cell of the class above that threshold."""


class Latency(TypedDict):
    """One image that is standardized and in memory -> predictions and the fused map at full size."""

    p50: float
    p90: float
    p95: float
    p99: float
    n: int
    windows: list[list[float]]
    """Every run, window by window, in the order of the rounds; all rungs have as many windows."""
    stable: bool
    """At least three windows, and their medians within 10 % of each other."""
    noise: float
    """How far a median of another such run may be off, as a share: see `windows.noise`."""


class Memory(TypedDict):
    """The most that the rung's process ever held."""

    rss: float
    device: float | None
    """On the GPU; None where there is none."""


class Case(TypedDict):
    """One image: the result of this rung compared with that of the published way."""

    case: str
    same_patches: bool
    moved_pixels: int
    dice: dict[str, float | None]
    """Class -> Dice of the fused maps at 0.5; None where both are empty there."""


class Parity(TypedDict):
    """Results of a rung compared with those of the published way, over all images; Dice of the fused maps by class."""

    dice: dict[str, ByThreshold]
    """Class -> threshold -> median over the images."""
    worst_dice: dict[str, ByThreshold]
    """The same, the worst image."""
    same_patches: int
    cases: int
    max_difference: dict[str, float]
    """Output -> largest absolute difference of any image."""
    per_case: list[Case]


class Clocks(TypedDict):
    """Mean over the cores, before and after the rung's windows; None where the system does not tell."""

    before: float | None
    after: float | None


class Gate(TypedDict):
    """The newest verdict in the bundle's manifest on an engine as it ran: this library, these graphs."""

    verdict: str
    """"passed", "failed", "none" (no gate was run), or "reference" (it needs no gate)."""
    id: str | None
    failures: list[str]
    """Limits that were not kept."""


class Rung(TypedDict):
    """One way to run the network. Where `unavailable` says why it does not run here, all figures are None."""

    name: str
    key: str
    engine: dict[str, Any] | None
    """Provenance: name, library, device, precision and other properties of the engine."""
    unavailable: str | None
    latency_ms: Latency | None
    throughput_per_s: float | None
    """Images one after another in one process."""
    stages_ms: dict[str, float] | None
    """Medians: preprocess, global, patches, local, fusion on a CPU; preprocess, gpu, fusion on a GPU."""
    cold_start_ms: float | None
    """From the start of a process to its first result, with all caches warm."""
    first_start_ms: float | None
    """The same the first time, when caches may be empty."""
    build_s: float | None
    """What compiling took in the first start, where that is a step of its own (torch.compile)."""
    peak_memory_mb: Memory | None
    energy_j: float | None
    """Of the processor packages; of all that ran there meanwhile."""
    gpu_energy_j: NotRequired[float | None]
    """Of the first GPU, which also draws power when it waits."""
    ratio_to: dict[str, float] | None
    """Key of a baseline -> how many times as fast as it, the median of the ratios of each round."""
    parity: Parity | None
    clock_mhz: Clocks | None
    gate: NotRequired[Gate | None]
    """None where it did not run, and for a rung that is not an engine of this package."""


class Peaks(TypedDict):
    """What this machine can reach: the best of large matrix products, its instruction set, and the rungs; a copy."""

    flop_per_s: dict[str, float | None]
    """"fp32", "bf16", "int8" -> operations a second; None where the machine has no instructions for it."""
    bytes_per_s: float
    """Read and written together."""


class RooflineStage(TypedDict):
    """One network of one rung against the roof."""

    stage: str
    """"global" (one image) or "local" (one patch)."""
    engine: str
    """Key of the rung."""
    precision: str
    """Which of the peaks is its roof."""
    flop: float
    """Of the graph's convolutions, an addition and a multiplication are two; other algorithms may need fewer."""
    bytes: float
    """Read and written by the convolutions: inputs, weights, outputs, each once, in FP32."""
    ms: float
    share_of_peak: float
    """Rate reached over the roof: the lower of the arithmetic peak and bandwidth x flop / bytes; the arithmetic peak
    alone where the rate is above the latter, because then the data stayed in caches. At most 1 where `algorithm` is
    "direct"."""
    algorithm: NotRequired[str]
    """"direct", or "winograd", which multiplies less than `flop` says: its share may pass 1."""


class Roofline(TypedDict):
    peaks: Peaks
    stages: list[RooflineStage]


class Files(TypedDict):
    """From files to results on disk. Steps are sums over the files one after another, the total is that of `run`."""

    views: int
    decode_ms: float
    preprocess_ms: float
    network_ms: float
    output_ms: float
    total_ms: float
    slowest_ms: float
    """The larger of decode_ms and network_ms: what remains where everything else overlaps it."""
    ratio: float
    """total_ms / slowest_ms."""


class Mixture(TypedDict):
    """One point of the bundle's precision search (`bundle.SearchPoint`): a stage, and what it was made of."""

    stage: str
    kind: str
    wide: list[str]
    narrow_share: float
    latency_ms: float
    """For one image or one patch, on the machine and at the time of the export."""
    dice_median: float
    dice_worst: float
    same_patches: float
    passed: bool
    taken: bool


class Noise(TypedDict):
    relative: float
    how: str


class Load(TypedDict):
    """Load of the machine; averages over one minute."""

    before: float
    after: float
    stolen: float | None
    """Share of processor time that the machine beneath a virtual one took away meanwhile."""


class Results(TypedDict):
    """The whole file."""

    schema: int
    when: str
    machine: dict[str, Any]
    bundle: dict[str, str]
    """id, folder, checkpoint (SHA-256 of the weights)."""
    settings: dict[str, Any]
    """patches, images (names), engines, threads, windows, runs, seed, quick, environment."""
    ladder: list[Rung]
    roofline: Roofline | None
    files: dict[str, Files] | None
    """"one view", "exam", "folder"."""
    frontier: NotRequired[list[Mixture] | None]
    """None where the bundle was exported without a precision search."""
    noise: Noise
    """Of the noisiest rung."""
    load: Load
    notices: list[str]
    """Sentences for the reader: a busy machine, what was left out and why."""


def read(path: Path) -> Results:
    """A file of results. Raises UsageError where it cannot be read, is none, or is of another version."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{path}: cannot be read as JSON ({error}). Give a bench.json of `glam-deploy bench`."
        ) from error
    version = content.get("schema") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise UsageError(
            f"{path}: schema {version!r}, expected {SCHEMA_VERSION}. Give a bench.json that this release has written."
        )
    if fault := next(faults(content), None):
        raise UsageError(f"{path}: {fault}. Give a bench.json as `glam-deploy bench` has written it.")
    results: Results = content
    return results


def faults(value: object, expected: Any = Results, place: str = "") -> Iterator[str]:
    """Messages about each place where a JSON value is not of the type `expected`."""
    if not any(_is(value, kind) for kind in _kinds(expected)):
        yield f"{place or 'the file'} is {type(value).__name__}, expected {expected}"
    elif is_typeddict(kind := next(k for k in _kinds(expected) if _is(value, k))):
        yield from _keys(value, kind, place)
    elif isinstance(value, dict | list) and (arguments := get_args(kind)):
        items: Any = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from faults(item, arguments[-1], f"{place}.{key}")


def _keys(value: Any, kind: Any, place: str) -> Iterator[str]:
    hints = get_type_hints(kind)
    missing, unknown = kind.__required_keys__ - value.keys(), value.keys() - hints.keys()
    if odd := sorted(missing | unknown):
        yield f"{place or 'the file'}: {', '.join(odd)} missing or unknown"
        return
    for key, hint in ((key, hint) for key, hint in hints.items() if key in value):
        yield from faults(value[key], hint, f"{place}.{key}".lstrip("."))


def _kinds(expected: Any) -> tuple[Any, ...]:
    return get_args(expected) if get_origin(expected) in (Union, UnionType) else (expected,)


def _is(value: object, kind: Any) -> bool:
    if kind is Any:
        return True
    plain: Mapping[Any, type | tuple[type, ...]] = {float: (float, int), None: NoneType}
    wanted = dict if is_typeddict(kind) else plain.get(kind, get_origin(kind) or kind)
    return isinstance(value, wanted) and (kind is bool or not isinstance(value, bool))
