"""kill -9 of the receiver in the middle of transfers: what was acknowledged is there, whole, with its row."""

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pynetdicom import AE, evt
from support.commands import PATHS, ROOT
from support.receive import Box, box, close_sockets, same_rows_and_files
from support.until import until

from glam_deploy.appliance.config import Config, parse_config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.keeper import UNTOUCHED_S, Sweep
from glam_deploy.appliance.state.database import open_database
from glam_deploy.dicom.mammography import Exam, write_view
from glam_deploy.records import View

KILLS = 8
STUDIES = 3
MG = "1.2.840.10008.5.1.4.1.1.1.2"


@pytest.fixture(autouse=True)
def sockets_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    close_sockets(monkeypatch)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "glam.toml").write_text(
        f'license_acknowledged = true\ndata = "data"\n[worker]\nbundle = "bundle"\n[receive]\nport = {port}\n'
        'reserve_bytes = 0\nsenders = [{ ae_title = "STORESCU", hosts = ["127.0.0.1"] }]\n'
    )
    return parse_config((tmp_path / "glam.toml").read_text(), folder=tmp_path)


@pytest.fixture
def lives(config: Config) -> Iterator["subprocess.Popen[str]"]:
    command = [
        sys.executable,
        "-P",
        str(ROOT / "tests/support/receiver_lives.py"),
        str(config.data.parent / "glam.toml"),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, PATHS))}
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, env=environment, **pipes) as process:
        yield process
        process.stdin.close()


def born(lives: "subprocess.Popen[str]", port: int) -> int:
    """The process id of a receiver that listens."""
    lives.stdin.write("\n")
    lives.stdin.flush()
    pid = int(lives.stdout.readline())
    until(lambda: _listens(port))
    return pid


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True


def exams(folder: Path) -> list[Path]:
    """Views of about 1 MB, so that each is sent in several PDUs."""
    pixels = np.random.default_rng(0).integers(1, 4096, (1000, 700)).astype(np.uint16)
    paths = [folder / f"{study}-{view.value}.dcm" for study in range(STUDIES) for view in View]
    for path in paths:
        study, _, view = path.stem.partition("-")
        write_view(path, pixels, view=View(view), exam=Exam(seed=study))
    return paths


def send(paths: list[Path], port: int, *, kill: int | None = None, at: int = 0) -> list[Path]:
    """Those that were acknowledged; the process `kill` dies when the PDU number `at` of data has gone out."""
    count = iter(range(1 << 30))

    def sent(event: evt.Event) -> None:
        if next(count) == at and kill:
            os.kill(kill, signal.SIGKILL)

    sender = AE("STORESCU")
    sender.add_requested_context(MG)
    sender.acse_timeout = sender.dimse_timeout = sender.network_timeout = 20
    association = sender.associate(
        "127.0.0.1", port, ae_title="GLAM", max_pdu=1 << 18, evt_handlers=[(evt.EVT_DATA_SENT, sent)]
    )
    acknowledged = []
    for path in paths:
        if not association.is_established or association.send_c_store(path).get("Status") != 0x0000:
            break
        acknowledged.append(path)
    if association.is_established:
        association.release()
    return acknowledged


def whole(here: Box) -> set[str]:
    """Names of the views that have a row, after each row was found to have its whole file."""
    names = set()
    for sop_uid, path, size in here.rows("SELECT sop_uid, path, bytes FROM instance"):
        file = here.data.root / path
        assert file.name == f"{sop_uid}.dcm"
        assert file.stat().st_size > size
        names.add(sop_uid)
    return names


def test_acknowledged_rows_and_whole_files_are_the_same(
    config: Config, lives: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    paths = exams(tmp_path)
    uid = {path: str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in paths}
    port, dice, acknowledged = config.receive.port, random.Random(5), set()
    assert port
    for _ in range(KILLS):
        order, pid = dice.sample(paths, len(paths)), born(lives, port)
        acknowledged |= {uid[path] for path in send(order, port, kill=pid, at=dice.randrange(4, 90))}
        # where it sent less than that
        os.kill(pid, signal.SIGKILL)
        with box(config) as here:
            assert acknowledged <= whole(here)
    assert len(acknowledged) > 0
    born(lives, port)
    assert send(paths, port) == paths
    data = DataFolder(root=config.data)
    connection = open_database(data.database)
    sweep = Sweep(data, connection)
    for now in (0.0, UNTOUCHED_S):
        sweep(now)
    connection.close()
    with box(config) as here:
        assert same_rows_and_files(here) == len(paths)
        assert whole(here) == set(uid.values())
        assert here.files("quarantine") == []
