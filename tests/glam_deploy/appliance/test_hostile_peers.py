"""The whole appliance, processes and sockets, among peers that mean no good: others are served, memory is bounded."""

import os
import re
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from hostile import ITEM, MG, closed, store, with_elements
from mammograms import breast, write_mg
from pydicom.filereader import read_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGLSLossless
from pynetdicom import AE, build_context
from support.commands import PLAIN, start_process
from support.orthanc import free_port
from support.tiny_bundle import write_tiny_bundle
from support.until import until

from glam_deploy.appliance.config import parse_config
from glam_deploy.dicom.mammography import Exam, write_view
from glam_deploy.records import View

ANSWER_S = 2.0
"""Within which an honest peer is answered where this test has a core for itself."""
RECEIVER_MB, READER_MB = 250, 300
"""Most memory, as docs/appliance.md tells it."""


@dataclass
class Serving:
    process: subprocess.Popen[str]
    folder: Path
    port: int
    http: int

    def pids(self) -> dict[str, int]:
        """By role; `reading` is the worker's process that reads."""
        found: dict[str, int] = {}
        for pid in _children(self.process.pid):
            role = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[-2].decode()
            found[role] = pid
            if role == "worker":
                (found["reading"],) = _children(pid)
        return found

    def rows(self, query: str) -> list[tuple[object, ...]]:

        with closing(sqlite3.connect(self.folder / "data/state.db", timeout=30)) as connection:
            return connection.execute(query).fetchall()


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def most_mb(pid: int) -> float:
    """The most memory that a process has held (VmHWM)."""
    return int(re.findall(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())[0]) / 1024


def patience() -> float:
    """How much longer than alone everything takes on this machine now."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Serving]:
    write_tiny_bundle(tmp_path / "bundle")
    token = tmp_path / "token"
    token.touch(0o600)
    token.write_text("0123456789abcdef0123456789abcdef")
    port, http = free_port(), free_port()
    config = tmp_path / "glam.toml"
    config.write_text(
        f"""
license_acknowledged = true
data = "data"
[receive]
port = {port}
reserve_bytes = 0
senders = [{{ ae_title = "STORESCU", hosts = ["127.0.0.1"] }}]
[web]
port = {http}
token_file = "token"
[assemble]
quiet_s = 0.1
[worker]
bundle = "bundle"
threads = 1
[results]
seg = false
sc = false
"""
    )
    parse_config(config.read_text(), folder=tmp_path)
    with (tmp_path / "log").open("w") as log:
        process = start_process("serve", "--config", config, code=PLAIN, stdout=log, stderr=log)
        try:
            until(lambda: _is_ready(http), seconds=120)
            yield Serving(process, tmp_path, port, http)
        finally:
            process.kill()
            process.wait()


def _is_ready(http: int) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{http}/health/ready", timeout=5).status_code == 200
    return False


def send(port: int, path: Path, syntax: str = ExplicitVRLittleEndian) -> int:
    """Status of a C-STORE."""
    entity = AE("STORESCU")
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 120
    association = entity.associate("127.0.0.1", port, [build_context(MG, syntax)], "GLAM")
    assert association.is_established
    status = association.send_c_store(path)
    association.release()
    return int(status.Status)


def bombs(folder: Path) -> list[tuple[Path, str]]:
    """For the receiver: in front of all that it reads, before the pixels, and deflated; for the worker: a stream of
    8 GB that the receiver, which decodes nothing, takes.
    """
    items = closed(ITEM * 500_000)
    late = closed(ITEM * 500_000, b"\x00\x54\x00\x01")
    deflated = closed(ITEM * 5_000_000)
    return [
        (with_elements(folder / "a.dcm", items), ExplicitVRLittleEndian),
        (with_elements(folder / "b.dcm", late, before=b"\xe0\x7f\x10\x00"), ExplicitVRLittleEndian),
        (
            with_elements(folder / "c.dcm", deflated, syntax=DeflatedExplicitVRLittleEndian),
            DeflatedExplicitVRLittleEndian,
        ),
        (with_lying_stream(folder / "d.dcm"), JPEGLSLossless),
    ]


def with_lying_stream(path: Path) -> Path:
    """A mammogram whose JPEG-LS stream states 65500 x 65500 pixels in its frame header (T.87 C.2.2)."""
    file = write_mg(path, syntax=JPEGLSLossless).read_bytes()
    shape = file.index(b"\xff\xf7") + 5
    path.write_bytes(file[:shape] + b"\xff\xdc\xff\xdc" + file[shape + 4 :])
    return path


@contextmanager
def hostile_peers(served: Serving, files: list[tuple[Path, str]]) -> Iterator[None]:
    """Eight senders of costly objects, and 300 connections to both ports that say nothing."""
    stop = threading.Event()

    def send_again(number: int) -> None:
        path, syntax = files[number % len(files)]
        file = path.read_bytes()
        uid = str(read_file_meta_info(path).MediaStorageSOPInstanceUID)
        while not stop.is_set():
            with suppress(OSError, AssertionError, IndexError):
                store(served.port, file, syntax, uid)

    threads = [threading.Thread(target=send_again, args=(number,), daemon=True) for number in range(8)]
    with ExitStack() as stack:
        for thread in threads:
            thread.start()
        for number in range(300):
            port = served.port if number % 2 else served.http
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))
            with suppress(OSError):
                peer.sendall(b"\x01\x00" if number % 3 else b"")
        yield
        stop.set()
        for thread in threads:
            thread.join(60)


@pytest.mark.slow
def test_honest_peers_are_served_among_hostile_ones(served: Serving, tmp_path: Path) -> None:
    files = bombs(tmp_path)
    exam, slowest = Exam(seed="honest"), 0.0
    with hostile_peers(served, files):
        for view in View:
            path = tmp_path / f"{view}.dcm"
            write_view(path, breast(view), view=view, exam=exam)
            started = time.monotonic()
            assert send(served.port, path) == 0
            assert httpx.get(f"http://127.0.0.1:{served.http}/health/live", timeout=30).status_code == 200
            slowest = max(slowest, time.monotonic() - started)
        until(lambda: ("done",) in served.rows("SELECT state FROM job"), seconds=120)
        lying = "states 65500 rows and 65500 columns"
        until(lambda: any(lying in str(row) for row in served.rows("SELECT reason FROM job_view")), seconds=120)
        audit = "".join(path.read_text() for path in (served.folder / "data/audit").iterdir())
        assert "more than 20000 elements and items" in audit
        pids = served.pids()
        memory = {role: most_mb(pid) for role, pid in pids.items()}
        started = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(60) == 0
        stopped = time.monotonic() - started
    print(f"answer in {slowest:.2f} s, stopped in {stopped:.1f} s, patience {patience():.1f}, most memory {memory} MB")
    assert slowest < ANSWER_S * patience()
    assert stopped < 10 * patience()
    assert memory["receiver"] < RECEIVER_MB
    assert memory["reading"] < READER_MB
    assert not Path(f"/proc/{pids['reading']}").exists()
