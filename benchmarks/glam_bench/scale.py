"""What a number of images a year needs on 1, 10 or 1,000 nodes, computed from measured figures.

    python -m glam_bench.scale --images 160e6 --nodes 1 --nodes 10 --nodes 1000 --codec jpeg-2000 --engine h200

All figures are in this module, each with its source; docs/scale.md has the output and its limits.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import click

YEAR_S = 365.25 * 86400
RAW_MB = 3328 * 2560 * 2 / 1e6
"""A view of 3328 x 2560 pixels of 16 bits without compression; 4096 x 3328 and larger detectors have up to 33 MB."""


@dataclass(frozen=True, kw_only=True)
class Codec:
    """A lossless codec of the stored views."""

    core_s: float
    """CPU time to decode a view of `RAW_MB`, in seconds of one core."""
    mb: float
    """Size of the same view, a phantom with noise, in megabytes."""


CODECS: Mapping[str, Codec] = MappingProxyType(
    {
        "jpeg-2000": Codec(core_s=0.558, mb=2.5),
        "htj2k": Codec(core_s=0.143, mb=2.6),
        "jpeg-lossless": Codec(core_s=0.077, mb=3.8),
        "jpeg-ls": Codec(core_s=0.072, mb=2.4),
        "rle": Codec(core_s=0.008, mb=3.6),
        "none": Codec(core_s=0.0, mb=RAW_MB),
    }
)
"""docs/performance.md, "The codecs beside each other": one thread of an Intel Xeon at 2.5 GHz; without compression,
reading is "too small to be measured" there."""

HOST_CORE_S = 0.065 + 0.0022
"""CPU time of preprocessing, npz and report of a view; docs/performance.md, "Steps outside the network"."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """An engine, K = 1: the time of one view that it occupies cores or a GPU."""

    core_s: float = 0.0
    gpu_s: float = 0.0
    source: str


ENGINES: Mapping[str, Engine] = MappingProxyType(
    {
        "onnx": Engine(core_s=2 * 4.6, source="two cores of an AMD EPYC with AVX2, 4.6 s a view"),
        "openvino-winograd": Engine(core_s=2 * 2.1, source="two cores of an AMD EPYC with AVX2, 2.1 s a view"),
        "h200": Engine(gpu_s=1 / 165, source="one NVIDIA H200, fp16@onnx-cuda, 8 threads, 165 images/s (soak)"),
    }
)
"""docs/performance.md, "Engines side by side" (benchmarks/results/bench_avx2.json) and "On a GPU"
(benchmarks/results/nvidia-h200-2026-11-28.json)."""


@dataclass(frozen=True, kw_only=True)
class ArchiveFigures:
    """Measured figures of `glam-deploy archive`; None for those that were not measured yet."""

    two_nodes_over_one: float | None = None
    """Views a second of two nodes divided by those of one, with the real network."""
    two_nodes_over_one_simulated: float | None = None
    """The same with a simulated network of 0.2 s."""
    files_per_s: float | None = None
    """Rate over 100,000 tiny files with the simulated network, on the machine named in docs/scale.md."""
    scheduling_s: float | None = None
    """Time of the driver for each view; its inverse is the largest rate of one run, whatever the number of nodes."""
    row_bytes: float | None = None
    """Bytes of a view in the Parquet tables, in parts of some ten rows; larger ones are compressed better."""


ARCHIVE = ArchiveFigures(
    two_nodes_over_one=1.881,
    two_nodes_over_one_simulated=1.998,
    files_per_s=171,
    scheduling_s=0.00173,
    row_bytes=1540,
)
"""`python -m glam_bench.archive_scale` on two cores of an AMD EPYC, 2026-11-29; `files` with other work beside it; the
bytes of the run over 500 files that docs/scale.md describes.
"""


@dataclass(frozen=True, kw_only=True)
class Load:
    """Images to be processed in a year, and how."""

    images: float
    codec: Codec
    engine: Engine
    busy: float
    """Share of the year in which the nodes work, 0..1."""

    @property
    def rate(self) -> float:
        """Images per second while the nodes work."""
        return self.images / (YEAR_S * self.busy)


@dataclass(frozen=True, kw_only=True)
class Need:
    """What each of several nodes needs; cores and GPUs are fractions of time, not rounded."""

    rate: float
    decode_cores: float
    host_cores: float
    inference_cores: float
    gpus: float
    read_mb_s: float


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine."""

    cores: int
    gpus: int
    gbit_s: float
    """Rate at which it reads from the archive."""


def need_of(load: Load, nodes: int) -> Need:
    """What each of `nodes` nodes needs for an equal share of the load."""
    rate = load.rate / nodes
    return Need(
        rate=rate,
        decode_cores=rate * load.codec.core_s,
        host_cores=rate * HOST_CORE_S,
        inference_cores=rate * load.engine.core_s,
        gpus=rate * load.engine.gpu_s,
        read_mb_s=rate * load.codec.mb,
    )


def rates_of(load: Load, node: Node) -> Mapping[str, float]:
    """Resource -> images per second that one node can do with it; the smallest is that of the node."""
    rates = {
        "cores": node.cores / (load.codec.core_s + HOST_CORE_S + load.engine.core_s),
        "reading": node.gbit_s * 1000 / 8 / load.codec.mb,
    }
    return rates | ({"GPU": node.gpus / load.engine.gpu_s} if load.engine.gpu_s else {})


def days(load: Load, node: Node, nodes: int, archive: ArchiveFigures = ARCHIVE) -> tuple[float, str]:
    """Days in which `nodes` nodes process all images once, and the resource that limits them.

    The rates of the nodes are added; if the driver's time for a view was measured, one run cannot be faster than it.
    """
    limit, rate = min(rates_of(load, node).items(), key=lambda item: item[1])
    total = rate * nodes
    if archive.scheduling_s is not None and total > 1 / archive.scheduling_s:
        total, limit = 1 / archive.scheduling_s, "driver"
    return load.images / total / 86400, limit


def report(load: Load, node: Node, counts: Sequence[int], archive: ArchiveFigures = ARCHIVE) -> Iterator[str]:
    """The lines of the output."""
    yield f"{load.images:,.0f} images a year, nodes busy {load.busy:.0%} of the time: {load.rate:.2f} images/s"
    yield f"stored: {load.images * load.codec.mb / 1e6:,.0f} TB to read a year"
    yield ""
    yield "nodes  images/s each  decode cores  other cores  inference cores    GPUs  read MB/s"
    for count in counts:
        n = need_of(load, count)
        yield (
            f"{count:5d}  {n.rate:13.4f}  {n.decode_cores:12.3f}  {n.host_cores:11.3f}  {n.inference_cores:15.3f}  "
            f"{n.gpus:6.4f}  {n.read_mb_s:9.3f}"
        )
    yield ""
    gpus = f"GPUs: {node.gpus}, " if load.engine.gpu_s else ""
    yield f"all of them once, on nodes that are always busy (cores: {node.cores}, {gpus}Gbit/s: {node.gbit_s:g}):"
    for count in counts:
        time, limit = days(load, node, count, archive)
        yield f"nodes: {count:<5d} {time:10.2f} days, limited by {limit}"
    yield ""
    yield from (f"{name.replace('_', ' ')}: {_measured(value)}" for name, value in vars(archive).items())


def _measured(value: float | None) -> str:
    return "not measured yet" if value is None else f"{value:g}"


@click.command()
@click.option("--images", type=click.FloatRange(min=1), default=160e6, show_default=True, help="Images a year.")
@click.option("--nodes", type=click.IntRange(min=1), multiple=True, default=(1, 10, 1000), show_default=True)
@click.option("--codec", type=click.Choice(list(CODECS)), default="jpeg-2000", show_default=True)
@click.option("--engine", type=click.Choice(list(ENGINES)), default="h200", show_default=True)
@click.option("--busy", type=click.FloatRange(0, 1, min_open=True), default=0.7, show_default=True)
@click.option("--cores", type=click.IntRange(min=1), default=16, show_default=True, help="Of a node.")
@click.option("--gpus", type=click.IntRange(min=1), default=1, show_default=True, help="Of a node.")
@click.option("--gbit", type=click.FloatRange(0, min_open=True), default=10, show_default=True, help="Of a node.")
def main(
    *, images: float, nodes: tuple[int, ...], codec: str, engine: str, busy: float, cores: int, gpus: int, gbit: float
) -> None:
    """Print what a number of images a year needs on each of several nodes."""
    load = Load(images=images, codec=CODECS[codec], engine=ENGINES[engine], busy=busy)
    click.echo(f"{codec}, {engine}: {load.engine.source}")
    click.echo("\n".join(report(load, Node(cores=cores, gpus=gpus, gbit_s=gbit), nodes)))


if __name__ == "__main__":
    main()
