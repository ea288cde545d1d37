"""What `gpu_check` measures, in which order: its options, its plan, and the engines that a record has results of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from glam_bench.record import Record
from glam_bench.runner import Context, Measurement, Options
from glam_deploy.precision import Precision

GROUPS = ("kernels", "engines", "times", "soak")
BROKEN = frozenset({"refused", "failed", "crashed"})
"""Ways in which a measurement of an engine ends after which no other is begun with it; a slow one may go on."""
FLAVOURS = ("tensorrt", "tensorrt-rtx")
HALF_FIRST: tuple[Precision, ...] = ("fp16", "bf16", "fp32")
GATED = {"fp16@onnx-cuda-fp16": "onnx-cuda-fp16"}
"""Engines that are also gated by the command line, because they need no build -> their names there."""
BUILD_S = {"tensorrt": 300.0, "tensorrt-rtx": 90.0}
"""For the engines of one precision. Full TensorRT times kernels on the GPU, for two profiles of two large networks;
TensorRT-RTX times nothing, and built two precisions in 7 s on an H200."""


@dataclass(frozen=True, kw_only=True)
class GpuOptions(Options):
    """The options of `gpu_check`."""

    groups: tuple[str, ...] = GROUPS
    device: int = 0
    """Index of the GPU."""
    images: int = 10_000
    """Of the soak."""
    threads: int = 8
    """Of the soak."""
    minutes: float = 20.0
    """For all measurements together."""
    quick: bool = False
    """Fewer cases, runs and images: to see that everything works."""


GpuContext = Context[GpuOptions]


def plan(options: GpuOptions, record: Record) -> Iterator[Measurement]:
    """The measurements in order. What the bars are about comes first: if time runs out, other engines go without."""
    yield Measurement(module="facts", limit_s=60, required=True)
    wanted = set(options.groups)
    if wanted != {"kernels"}:
        yield from (Measurement(module="library", argument=flavour, limit_s=120) for flavour in FLAVOURS)
    yield Measurement(module="ceilings", limit_s=60)
    if "kernels" in wanted:
        yield Measurement(module="kernels", limit_s=120)
        yield Measurement(module="kernel_times", limit_s=60)
        yield Measurement(module="gpu_tests", limit_s=120)
    if wanted != {"kernels"}:
        yield from _of_engines(wanted, record)


def _of_engines(wanted: set[str], record: Record) -> Iterator[Measurement]:
    """Each precision to its end before the next is built: the half ones, which bars are about, do not wait for fp32."""
    first = [Measurement(module="reference", limit_s=90)] if "engines" in wanted else []
    last = [Measurement(module="baselines", limit_s=60)] if "times" in wanted else []
    for precision in HALF_FIRST:
        yield from _builds(precision, record)
        yield from first
        first = []
        for engine in (name for name in engines(record) if name.startswith(f"{precision}@")):
            if "engines" in wanted:
                yield Measurement(module="parity", argument=engine, limit_s=90)
            if "times" in wanted:
                yield Measurement(module="chain_times", argument=engine, limit_s=120)
            if best_engine(record) == engine:
                if "soak" in wanted:
                    yield Measurement(module="soak", argument=engine, limit_s=150)
                yield from last
                last = []
            if engine in GATED and "engines" in wanted:
                yield Measurement(module="gate_command", argument=GATED[engine], limit_s=120)
    yield from last


def _builds(precision: Precision, record: Record) -> Iterator[Measurement]:
    """Builds with each flavour that is installed, where the bundle has graphs of the precision."""
    if precision in _graphs(record):
        for flavour in FLAVOURS:
            if record.steps.get(f"library:{flavour}", {}).get("status") != "refused":
                yield Measurement(module="build", argument=f"{precision}@{flavour}", limit_s=BUILD_S[flavour])


def _graphs(record: Record) -> list[str]:
    """Precisions of which the bundle has graphs."""
    found: list[str] = record.results("facts").get("bundle", {}).get("precisions", [])
    return found


def engines(record: Record) -> list[str]:
    """Names of the engines to be opened, half precisions first, in the order in which a user would prefer them.

    "fp16@tensorrt" is an engine that was built, "fp16@onnx-cuda-fp16", "fp32@onnx-cuda" and "fp16@torch" run the
    graphs of the bundle.
    """
    graphs = _graphs(record)
    having: dict[str, Sequence[str]] = {
        flavour: [p for p in HALF_FIRST if record.results(f"build:{p}@{flavour}").get("library")]
        for flavour in FLAVOURS
    }
    half = [p for p in graphs if p == "fp16"]
    having |= {"onnx-cuda-fp16": half, "onnx-cuda": [p for p in graphs if p not in half], "torch": half}
    return [f"{precision}@{library}" for precision in HALF_FIRST for library in having if precision in having[library]]


def best_engine(record: Record) -> str | None:
    """The first of `engines` with which no measurement has failed; None where there is none."""
    for engine in engines(record):
        about = [step["status"] for name, step in record.steps.items() if name.endswith(f":{engine}")]
        if not BROKEN.intersection(about):
            return engine
    return None
