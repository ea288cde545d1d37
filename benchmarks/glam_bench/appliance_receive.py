"""The receiver alone: megabytes a second from one sender, eight senders at once, memory over thousands of instances.

    python -m glam_bench.appliance_receive [--instances 10000]

Needs the extra `appliance`. Files and data folder lie in /var/tmp, whose fsync counts. The senders are
of this software too and share the processors with the receiver. Prints JSON.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from glam_bench import machine
from glam_bench.appliance_processes import echoes, free_port, serve, wait_for
from glam_deploy.dicom.mammography import Exam, write_view
from glam_deploy.dicom.net.delivery import Item, Outcome
from glam_deploy.dicom.net.peer import Peer
from glam_deploy.dicom.net.sender import DimseSession
from glam_deploy.records import View

SHAPE = (4096, 3328)
SMALL = (96, 70)
SENDERS = 8
EXAMS = 4
"""That the one sender sends, one after another."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--instances", type=int, default=10_000, help="small ones, for the memory")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder, port = Path(name), free_port()
        (folder / "glam.toml").write_text(_configuration(port))
        peer = Peer(ae_title="GLAM", host="127.0.0.1", port=port, calling_ae_title="BENCH")
        with serve(folder, "--role", "receiver") as receiver:
            wait_for(lambda: echoes(peer), "the receiver to listen")
            one = [_rate(peer, exam(folder / f"one{n}", f"one{n}")) for n in range(EXAMS)]
            eight = _eight(peer, folder)
            memory = _memory(peer, folder, receiver.pid, options.instances)
    figures = {"one_sender_MB_per_s": one, "eight_senders": eight, "resident_MB": memory}
    sys.stdout.write(json.dumps({"machine": machine.facts(), **figures}, indent=2) + "\n")


def exam(folder: Path, seed: str) -> list[Path]:
    """Four full-size views, uncompressed, 27 MB each; what they show is of no concern to a receiver."""
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 4096, SHAPE, np.uint16)
    paths = [folder / f"{view.value}.dcm" for view in View]
    for path, view in zip(paths, View, strict=True):
        write_view(path, pixels, view=view, exam=Exam(seed=seed))
    return paths


def send(peer: Peer, paths: Sequence[Path]) -> int:
    """In one association; how many were not taken."""
    items = [Item(sop_uid=path.stem, path=path) for path in paths]
    with DimseSession(peer, items) as session:
        return sum(session.store(item).outcome is not Outcome.STORED for item in items)


def _rate(peer: Peer, paths: Sequence[Path]) -> float:
    """Megabytes (10^6) a second, association and all."""
    start, refused = time.perf_counter(), send(peer, paths)
    seconds = time.perf_counter() - start
    assert not refused
    return round(sum(path.stat().st_size for path in paths) / 1e6 / seconds, 1)


def _eight(peer: Peer, folder: Path) -> dict[str, float]:
    exams = [exam(folder / f"eight{n}", f"eight{n}") for n in range(SENDERS)]
    start = time.perf_counter()
    with ThreadPoolExecutor(SENDERS) as senders:
        refused = sum(senders.map(lambda paths: send(peer, paths), exams))
    size = sum(path.stat().st_size for paths in exams for path in paths)
    return {"refused": refused, "MB_per_s": round(size / 1e6 / (time.perf_counter() - start), 1)}


def _memory(peer: Peer, folder: Path, pid: int, count: int) -> dict[int, float]:
    """Instances received -> the receiver's resident memory in MB (10^6)."""
    pixels, step = np.zeros(SMALL, np.uint16), max(1, count // 10)
    found = {0: _resident(pid)}
    (folder / "small").mkdir()
    for begin in range(0, count, step):
        paths = [folder / "small" / f"{n}.dcm" for n in range(begin, min(begin + step, count))]
        for path in paths:
            write_view(path, pixels, view=View.L_CC, exam=Exam(seed=path.stem))
        assert not send(peer, paths)
        found[begin + len(paths)] = _resident(pid)
        for path in paths:
            path.unlink()
    return found


def _resident(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text("ascii")
    (kilobytes,) = (line.split()[1] for line in text.splitlines() if line.startswith("VmRSS:"))
    return round(int(kilobytes) * 1024 / 1e6, 1)


def _configuration(port: int) -> str:
    return f"""
license_acknowledged = true
data = "data"
worker = {{ bundle = "none" }}
receive = {{ port = {port}, senders = [{{ ae_title = "BENCH", hosts = ["127.0.0.1"] }}] }}
"""


if __name__ == "__main__":
    main()
