"""What a bundle says of itself: the records of `manifest.json`, whose keys are the fields' names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from glam_deploy.networks import Stage
from glam_deploy.precision import Precision, Recipe


@dataclass(frozen=True, kw_only=True)
class NetworkEntry:
    """Which network it is (`glam_deploy.networks`), and what the export chose."""

    name: str
    aggregation: str
    patches: int
    """Patches of an image where no option says otherwise."""
    precisions: tuple[Precision, ...]
    """What there are graphs in."""


@dataclass(frozen=True, kw_only=True)
class CheckpointEntry:
    """The file of weights that was exported."""

    name: str
    sha256: str
    parameters: int
    """How many numbers the network has."""
    ignored_keys: tuple[str, ...]
    key: str | None = None
    """Which of several networks in the file; None where it holds one."""


@dataclass(frozen=True, kw_only=True)
class TensorEntry:
    """One input or output of a graph."""

    dtype: str
    shape: tuple[str | int, ...]
    """The first axis is "batch"."""


@dataclass(frozen=True, kw_only=True)
class GraphEntry:
    """The graphs of a stage, for those who read a bundle without this package; here the network's contract counts."""

    files: Mapping[Precision, str]
    inputs: Mapping[str, TensorEntry]
    outputs: Mapping[str, TensorEntry]


@dataclass(frozen=True, kw_only=True)
class Golden:
    """The case that `glam-deploy verify` runs again."""

    file: str
    patches: int
    """How many patches its answers were computed with."""


@dataclass(frozen=True, kw_only=True)
class SearchPoint:
    """One mixture of one stage, as a precision search measured it."""

    stage: Stage
    kind: Recipe
    wide: tuple[str, ...]
    """The blocks that are not in 8 bits, where the others are."""
    narrow_share: float
    """Of the convolutions' multiplications, those in 8 bits, 0..1."""
    latency_ms: float
    """Least over the images, for one image or one patch: whatever else the machine does only adds to it."""
    dice_median: float
    dice_worst: float
    """Over the images, of the lowest of all maps, classes and thresholds; 0 where a lesion is lost or new."""
    same_patches: float
    """Share of the images whose patches lie where FP32 puts them, or tied with it; 1 for the local stage."""
    passed: bool
    taken: bool
    """Whether the bundle's mixture has it."""


@dataclass(frozen=True, kw_only=True)
class ParityRow:
    """One output of a graph or engine compared with the PyTorch reference."""

    output: str
    precision: Precision
    max_abs: float | None
    """Largest absolute difference; None where it is not finite."""
    mean_abs: float | None
    """Mean absolute difference, likewise."""
    limit: float
    """Of the largest difference in fp32, of the mean difference in other precisions."""
    passed: bool
    tied: int = 0
    """Of patch places: how many lie elsewhere, where the reference could have chosen them."""


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
    """The GPU on which kernels were timed; None where nothing was timed and any of that capability will do."""
    driver: str | None


@dataclass(frozen=True, kw_only=True)
class StageEntry:
    """The TensorRT engine of one stage."""

    file: str
    graph: str
    """The ONNX file that it was built from."""
    graph_sha256: str
    confirmed_share: float | None
    """Share of the multiply-adds that the library's layer report confirms to be of the precision; None without one."""
    report: str | None = None
    """The layer report, kept where it confirms too little."""


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
    """The library's version, all four numbers."""
    made_for: MadeFor
    options: Mapping[str, object]
    """The builder's options, JSON-ready; only ever compared."""
    kernels_sha256: str
    """Of the kernels' source."""
    key: str
    """SHA-256 of all that the engines are made from and for; see `engines.tensorrt.identity`."""
    built: str
    """ISO 8601."""
    stages: Mapping[Stage, StageEntry]
    kernels: Mapping[str, KernelEntry]
    """Architecture, such as "sm_89" -> its kernels."""
    timing_cache: str | None
    """File of what the builder measured; None for a library that measures nothing."""

    @property
    def files(self) -> tuple[str, ...]:
        """All files of these engines."""
        stages, kernels = self.stages.values(), self.kernels.values()
        kept = [*(stage.report for stage in stages), self.timing_cache]
        return (*(stage.file for stage in stages), *(kernel.file for kernel in kernels), *filter(None, kept))


@dataclass(frozen=True, kw_only=True)
class GateMachine:
    """What latencies of an engine depend on."""

    processor: str
    cores: int
    device: str
    """"cpu", or the name of the GPU."""


@dataclass(frozen=True, kw_only=True)
class GateEntry:
    """The verdict of one gate: an engine compared with the reference on a set of images."""

    id: str
    """First 12 hexadecimal digits of the SHA-256 of all the rest."""
    engine: str
    digest: str
    """Of the engine as it was opened; see `engines.identity.EngineIdentity`."""
    reference: str
    passed: bool
    failures: tuple[str, ...]
    """Which limits were not kept."""
    limits: Mapping[str, object]
    figures: Mapping[str, Any]
    """The metrics over all images, as the release that ran the gate wrote them; empty where no image was compared."""
    images: int
    images_sha256: str
    patches: int
    when: str
    """ISO 8601."""
    machine: GateMachine
    latency_ms: float
    times_onnx: float | None = None
    """The engine's time over that of "onnx", on the same images in turns; None where it was not measured."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that `manifest.json` holds, but for the version of its schema."""

    created: str
    """ISO 8601."""
    licence: str
    network: NetworkEntry
    checkpoint: CheckpointEntry
    graphs: Mapping[Stage, GraphEntry] = field(default_factory=dict)
    versions: Mapping[str, str]
    """Package -> version, of those that took part in the export."""
    golden: Golden
    mixture: Mapping[Stage, Recipe] | None = None
    """What the precision search chose for each stage; None where no search was made."""
    frontier: tuple[SearchPoint, ...] = ()
    """All that the search tried."""
    parity: tuple[ParityRow, ...]
    files: Mapping[str, FileEntry]
    """Every file but the manifest."""
    engines: tuple[EngineEntry, ...] = ()
    gates: tuple[GateEntry, ...] = ()
    """The newest last."""
