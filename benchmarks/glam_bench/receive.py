"""How fast the receiver takes views in, from one sender and from eight, and whether its memory stays flat.

    python -m glam_bench.receive

Needs dcmtk's storescu and the extra `appliance`. Starts `glam-deploy serve --role receiver` on loopback, with a data
folder on the disk of --folder: each view is on that disk, whole and with its row, before it is acknowledged. Prints
JSON: megabytes (10^6) a second, errors, and the receiver's resident memory after every thousand instances.
"""

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from glam_bench import machine
from glam_bench.appliance_processes import free_port, serve, wait_for
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.state import overview
from glam_deploy.cli import main as command_line
from glam_deploy.errors import BackendRunError, BackendUnavailable, UsageError
from glam_deploy.installation import require
from glam_deploy.records import View

FULL = (4096, 3328)
"""Rows and columns of a view of 27 MB."""
SMALL = (96, 70)
RATE_BAR = 100.0
"""MB/s from one sender."""
GROWTH_BAR = 16.0
"""MB that the receiver may grow by after its first thousand instances."""

CONFIG = """
license_acknowledged = true
data = "data"
[receive]
port = {port}
reserve_bytes = 0
senders = [{{ ae_title = "STORESCU", hosts = ["127.0.0.1"] }}]
[worker]
bundle = "bundle"
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m glam_bench.receive",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("/var/tmp"), help="folder on the disk to be measured [/var/tmp]"
    )
    parser.add_argument(
        "--views", type=int, default=40, help="full-size views of a single sender; each of several sends a quarter [40]"
    )
    parser.add_argument("--senders", type=int, default=8, help="senders at the same time [8]")
    parser.add_argument("--instances", type=int, default=10_000, help="small instances, for the memory [10000]")
    options = parser.parse_args(arguments)
    require("dicom", "appliance", user="receive")
    if not options.folder.is_dir():
        raise UsageError(f"{options.folder} is not a folder: name one on the disk that is to be measured with --folder")
    if not shutil.which("storescu"):
        raise BackendUnavailable("receive needs dcmtk's storescu: apt-get install dcmtk")
    with tempfile.TemporaryDirectory(dir=options.folder) as name, receiver(Path(name)) as (port, process):
        folder = Path(name)
        found: dict[str, Any] = {
            "machine": machine.facts(),
            "one_sender": rate(folder, port, senders=1, views=options.views),
            "all_senders": rate(folder, port, senders=options.senders, views=max(1, options.views // 4)),
            "memory": memory(folder, port, process.pid, options.instances),
        }
        sent = found["one_sender"]["views"] + found["all_senders"]["views"] + found["memory"]["sent"]
        found |= {"sent": sent, "rows": rows(folder)}
    sys.stdout.write(json.dumps(found | verdict(found), indent=2) + "\n")


def verdict(found: dict[str, Any]) -> dict[str, bool]:
    """Whether each limit was kept."""
    return {
        "rate_kept": found["one_sender"]["mb_per_s"] >= RATE_BAR,
        "errors_kept": found["rows"] == found["sent"] and not found["all_senders"]["errors"],
        "memory_kept": found["memory"]["growth_mb"] <= GROWTH_BAR,
    }


@contextmanager
def receiver(folder: Path) -> Iterator[tuple[int, "subprocess.Popen[bytes]"]]:
    """A receiver on loopback with its data in `folder`: its port and process."""
    port = free_port()
    (folder / "glam.toml").write_text(CONFIG.format(port=port))
    with serve(folder, "--role", "receiver") as process:
        wait_for(lambda: _listens(port), "the receiver to listen", every_s=0.1)
        yield port, process


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def rate(folder: Path, port: int, *, senders: int, views: int) -> dict[str, Any]:
    """`senders` at once, each with an association of its own and `views` full-size views."""
    path = _view(folder / "full.dcm", FULL)
    start = time.monotonic()
    running = [_storescu(port, path, views) for _ in range(senders)]
    errors = sum(sender.wait() != 0 for sender in running)
    seconds = time.monotonic() - start
    rate_now = senders * views * path.stat().st_size / 1e6 / seconds
    return {"views": senders * views, "seconds": round(seconds, 2), "mb_per_s": round(rate_now, 1), "errors": errors}


def memory(folder: Path, port: int, pid: int, instances: int) -> dict[str, Any]:
    """Resident megabytes of the receiver after every thousand (or every tenth part, of fewer) small instances."""
    path, step = _view(folder / "small.dcm", SMALL), min(1000, max(1, instances // 10))
    sizes = []
    for _ in range(instances // step):
        if _storescu(port, path, step).wait() != 0:
            raise BackendRunError("storescu failed while the receiver's memory was measured")
        sizes.append(_resident_mb(pid))
    return {"sent": step * (instances // step), "resident_mb": sizes, "growth_mb": round(max(sizes) - sizes[0], 1)}


def rows(folder: Path) -> int:
    """Number of instances in the database of the appliance."""
    with overview.open_read_only(DataFolder(root=folder / "data").database) as connection:
        return overview.received(connection)


def _view(path: Path, shape: tuple[int, int]) -> Path:
    from glam_deploy.dicom.mammography import write_view

    pixels = np.random.default_rng(0).integers(1, 4096, shape).astype(np.uint16)
    write_view(path, pixels, view=View.L_CC)
    return path


def _storescu(port: int, path: Path, times: int) -> "subprocess.Popen[bytes]":
    """Send a file `times` times, each time with another SOP Instance UID."""
    again = ["--repeat", str(times), "--invent-instance"]
    command = ["storescu", *again, "-aet", "STORESCU", "-aec", "GLAM", "127.0.0.1", str(port), str(path)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _resident_mb(pid: int) -> float:
    with closing(Path(f"/proc/{pid}/status").open("r", encoding="ascii")) as file:
        (line,) = (line for line in file if line.startswith("VmRSS:"))
    return round(int(line.split()[1]) * 1024 / 1e6, 1)


if __name__ == "__main__":
    command_line.run(main)
