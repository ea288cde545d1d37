"""How `glam-deploy archive` scales on this machine: two Ray nodes against one, and many tiny files.

    python -m glam_bench.archive_scale nodes --views 200                                 # a network that waits 0.2 s
    python -m glam_bench.archive_scale nodes --views 60 --bundle demo/bundle --images demo/exam
    python -m glam_bench.archive_scale files --files 100000

Needs the extra `ray`; `nodes` needs two cores, and pins each node to one of them. `nodes` takes two minutes, with a
bundle about ten; `files` ten. Prints JSON. Bars: two nodes are `RATIO_BAR` times as fast as one, scheduling costs less
than `DRIVER_BAR_MS` of the driver's processor time for each view, and its memory grows by less than `GROWTH_BAR_MB`
after the first tenth of the files.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from glam_bench import machine
from glam_bench.simulated_pipeline import Simulation
from glam_deploy import reading
from glam_deploy.archive.actors import EnginePlan, OpenPipeline, open_pipeline
from glam_deploy.archive.cluster import joined_cluster, local_cluster
from glam_deploy.archive.driver import Driver
from glam_deploy.archive.plan import RunPlan
from glam_deploy.archive.reader import EntryReader
from glam_deploy.archive.shipping import ShippedBundle, shipped
from glam_deploy.archive.sources import open_source
from glam_deploy.archive.sources.base import Entry, OnPassedOver, Source, ignored
from glam_deploy.installation import require

RATIO_BAR = {"simulated": 1.95, "real": 1.8}
DRIVER_BAR_MS = 5.0
GROWTH_BAR_MB = 32.0
WAIT_S = 0.2
"""Duration of a view in the simulated network."""
WARM_UP = 5
"""Views whose time is not counted: processes start meanwhile."""


@dataclass(frozen=True, kw_only=True)
class RepeatedViews:
    """A source of as many distinct DICOM views as needed, from a few files: each has its own SOPInstanceUID."""

    files: tuple[Path, ...]
    count: int

    def entries(self, on_passed_over: OnPassedOver = ignored) -> Iterator[Entry]:
        """As `Source.entries`."""
        for number in range(self.count):
            yield Entry(location=f"view {number}", name=f"{number}.dcm", version="1")

    def read(self, entry: Entry) -> bytes:
        """As `Source.read`."""
        number = int(entry.location.split()[1])
        file = self.files[number % len(self.files)]
        uid = reading.read_uids(file)["SOPInstanceUID"].encode()
        return file.read_bytes().replace(uid, uid[:-6] + f"{number + 100_000:06}".encode())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m glam_bench.archive_scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="what", required=True)
    nodes = commands.add_parser("nodes")
    nodes.add_argument("--views", type=int, default=200)
    nodes.add_argument("--bundle", type=Path, help="run its network with the engine onnx, instead of waiting")
    nodes.add_argument("--images", type=Path, default=Path("demo/exam"), help="DICOM views that are repeated")
    files = commands.add_parser("files")
    files.add_argument("--files", type=int, default=100_000)
    given = parser.parse_args(arguments)
    require("ray", "dicom")
    with tempfile.TemporaryDirectory(prefix="glam-scale-") as room:
        found = _nodes(given, Path(room)) if given.what == "nodes" else _files(given.files, Path(room))
    sys.stdout.write(json.dumps({"machine": machine.facts(), "commit": machine.commit(), **found}, indent=2) + "\n")


def _nodes(given: argparse.Namespace, room: Path) -> dict[str, Any]:
    """Views a second on one node and on two."""
    kind = "real" if given.bundle else "simulated"
    images = tuple(sorted(given.images.glob("*.dcm")))
    source = RepeatedViews(files=images, count=given.views + WARM_UP)
    opener: OpenPipeline = open_pipeline if given.bundle else Simulation(wait_s=WAIT_S)
    rates = []
    with _cluster() as (address, add_node):
        for count in (1, 2):
            if count == 2:
                add_node()
            plan = _plan(
                source,
                room / str(count),
                bundle=shipped(given.bundle) if given.bundle else _no_bundle(room),
                engine=EnginePlan(engine="onnx", threads=1),
                opener=opener,
            )
            with joined_cluster(address) as ray:
                rates.append(_rate(ray, plan, warm_up=WARM_UP * count))
    ratio = rates[1] / rates[0]
    bar = RATIO_BAR[kind]
    return {"network": kind, "views_per_s": rates, "ratio": round(ratio, 3), "bar": bar, "passed": ratio >= bar}


def _rate(ray: Any, plan: RunPlan, *, warm_up: int) -> float:
    """Views a second, from the end of the warm-up to the last view."""
    began: list[float] = []

    def progress(driver: Driver) -> None:
        if driver.counts.total() == warm_up and not began:
            began.append(time.monotonic())
        if driver.counts.total() > warm_up:
            ended[0] = time.monotonic()

    ended = [0.0]
    counts = Driver(ray, plan, shared=False, progress=progress).run()
    return (counts.total() - warm_up) / (ended[0] - began[0])


@contextmanager
def _cluster() -> Iterator[tuple[str, Callable[[], object]]]:
    """Context with the address of a cluster on loopback with one node of one core, and what adds another."""
    os.environ |= {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": os.urandom(32).hex(),
    }
    from ray.cluster_utils import Cluster

    cores = sorted(os.sched_getaffinity(0))
    with _pinned(cores[0]):
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})

    def add_node() -> None:
        with _pinned(cores[1]):
            cluster.add_node(num_cpus=1)

    try:
        yield cluster.address, add_node
    finally:
        cluster.shutdown()


@contextmanager
def _pinned(core: int) -> Iterator[None]:
    """Context in which processes that are started run on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _files(count: int, room: Path) -> dict[str, Any]:
    """Files a second, cost of scheduling and memory of the driver, over `count` distinct tiny files."""
    folder = room / "in"
    _write_tiny(folder, count)
    megabytes: list[float] = []

    def progress(driver: Driver) -> None:
        if driver.counts.total() >= (len(megabytes) + 1) * count // 10:
            megabytes.append(_resident_mb())

    plan = _plan(open_source([str(folder)]), room / "out", bundle=_no_bundle(room), opener=Simulation(wait_s=0))
    with local_cluster() as ray:
        driver = Driver(ray, plan, progress=progress)
        wall, busy = time.monotonic(), time.process_time()
        counts = driver.run()
        wall, busy = time.monotonic() - wall, time.process_time() - busy
    cost, growth = 1e3 * busy / count, megabytes[-1] - megabytes[0]
    return {
        "files": dict(counts),
        "files_per_s": round(count / wall, 1),
        "driver_ms_per_view": round(cost, 2),
        "driver_mb": [round(value, 1) for value in megabytes],
        "passed": cost < DRIVER_BAR_MS and growth < GROWTH_BAR_MB and counts["done"] == count,
    }


def _write_tiny(folder: Path, count: int) -> None:
    """Distinct PNG files of 16 x 16 pixels, a thousand in a folder."""
    for number in range(count):
        place = folder / f"{number // 1000:03}"
        if number % 1000 == 0:
            place.mkdir(parents=True)
        pixels = np.zeros((16, 16), np.uint16)
        pixels[4:12, :8] = 1000
        pixels[5, :2] = number % 50_000 + 1, number // 50_000 + 1
        _, data = cv2.imencode(".png", pixels)
        (place / f"{number:06}_L-CC.png").write_bytes(data.tobytes())


def _plan(source: Source, dest: Path, **options: Any) -> RunPlan:
    return RunPlan(source=source, dest=dest, reader=EntryReader(source=source), **options)


def _no_bundle(room: Path) -> ShippedBundle:
    return ShippedBundle(folder=room, id="0" * 64, digest="0" * 32)


def _resident_mb() -> float:
    """Resident memory of this process in 10^6 bytes, by proc(5), "/proc/pid/statm"."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
