"""An appliance that only receives, for tests: its folders, its ingest, its listener, and what it says."""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from mammograms import breast
from pydicom import dcmread
from pynetdicom.transport import AssociationSocket

from glam_deploy.appliance import receiver
from glam_deploy.appliance.audit import open_audit
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.ingest import Ingest, Receipt
from glam_deploy.appliance.receiver import listener_rules
from glam_deploy.appliance.state.database import open_database
from glam_deploy.dicom.mammography import Exam, write_view
from glam_deploy.dicom.net.listener import AuditEvent, Listener
from glam_deploy.dicom.part10 import Claim
from glam_deploy.records import View
from support.until import until

CANARY = "CANARY^NAME"
SENDERS = ({"ae_title": "STORESCU", "hosts": ["127.0.0.1"]},)


def config_of(folder: Path, **receive: Any) -> Config:
    """Loopback, a free port, one sender STORESCU, no watermark."""
    receive = {"port": 0, "senders": SENDERS, "reserve_bytes": 0} | receive
    return Config(license_acknowledged=True, data=folder / "data", worker={"bundle": folder}, receive=receive)


def write_exam(folder: Path, seed: str = "exam", views: tuple[View, ...] = tuple(View)) -> list[Path]:
    """Small views of one study, whose patient has the canary's name."""
    folder.mkdir(exist_ok=True)
    exam = Exam(seed=seed, patient_name=CANARY, patient_id=CANARY)
    paths = [folder / f"{seed}-{view.value}.dcm" for view in views]
    for path, view in zip(paths, views, strict=True):
        write_view(path, breast(view), view=view, exam=exam)
    return paths


def split(file: bytes) -> tuple[Claim, bytes]:
    """What a sender says of the data set in a DICOM file, and that data set (PS3.10 section 7.1)."""
    meta = dcmread(BytesIO(file), stop_before_pixels=True).file_meta
    claim = Claim(
        sop_class=meta.MediaStorageSOPClassUID,
        sop_uid=meta.MediaStorageSOPInstanceUID,
        transfer_syntax=meta.TransferSyntaxUID,
    )
    return claim, data_set_of(file)


def data_set_of(file: bytes) -> bytes:
    """What follows on the file meta information, whose length is its first element."""
    return file[144 + int.from_bytes(file[140:144], "little") :]


@dataclass(frozen=True)
class Box:
    """One data folder."""

    config: Config
    data: DataFolder
    ingest: Ingest

    def take(self, file: bytes, claim: Claim | None = None, *, step: int = 5000, sender: str = "TEST@here") -> Receipt:
        """As over the network: with `claim` the data set alone, in pieces of `step` bytes."""
        with self.ingest.open(sender=sender, claim=claim) as upload:
            for start in range(0, len(file), step):
                upload.write(file[start : start + step])
            return upload.finish()

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        connection = open_database(self.data.database)
        try:
            return [tuple(row) for row in connection.execute(statement)]
        finally:
            connection.close()

    def files(self, folder: str = "spool/studies") -> list[Path]:
        return sorted(path for path in (self.data.root / folder).rglob("*") if path.is_file())

    def audit(self, *events: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for path in self.files("audit") for line in path.read_text("utf-8").splitlines()]
        return [line for line in lines if not events or line["event"] in events]


@contextmanager
def box(config: Config) -> Iterator[Box]:
    data = DataFolder(root=config.data)
    data.make()
    ingest = Ingest(config, data, open_audit(data))
    try:
        yield Box(config, data, ingest)
    finally:
        ingest.close()


@contextmanager
def listening(box: Box, told: list[AuditEvent] | None = None) -> Iterator[tuple[Listener, int]]:
    """A plain listener before the box, and its port."""
    listener = Listener(
        listener_rules(box.config.receive),
        begin=lambda sender, claim: box.ingest.open(sender=sender, claim=claim),
        audit=(told if told is not None else []).append,
    )
    try:
        yield listener, listener.listen("127.0.0.1", 0)
    finally:
        listener.stop()


@contextmanager
def running_receiver(config: Config) -> Iterator[list[int]]:
    """The role itself, in a thread; its ports."""
    stop = threading.Event()
    thread = threading.Thread(target=receiver.run, args=(config, stop))
    thread.start()
    try:
        until(lambda: bool(_ports(config)))
        yield _ports(config)
    finally:
        stop.set()
        thread.join()


def _ports(config: Config) -> list[int]:
    if not (config.data / "state.db").exists():
        return []
    with closing(sqlite3.connect(config.data / "state.db")) as connection:
        try:
            (said,) = connection.execute("SELECT detail FROM component WHERE name = 'receiver'").fetchall()
        except (sqlite3.OperationalError, ValueError):  # not yet
            return []
    return list(json.loads(said[0])["ports"].values())


def close_sockets(patch: pytest.MonkeyPatch) -> None:
    """pynetdicom, as a client whose peer is gone first, leaves its socket to the garbage collector, which complains."""
    shut_down = AssociationSocket._shutdown_socket

    def close(self: AssociationSocket) -> None:
        connection = self.socket
        shut_down(self)
        if connection:
            connection.close()

    patch.setattr(AssociationSocket, "_shutdown_socket", close)


def same_rows_and_files(box: Box) -> int:
    """Every row has its whole file and every file its row; how many."""
    rows = dict(box.rows("SELECT path, sha256 FROM instance"))
    assert set(rows) == {box.data.relative(path) for path in box.files()}
    for path, digest in rows.items():
        assert sha256(data_set_of((box.data.root / path).read_bytes())) == digest
    (problems,) = box.rows("PRAGMA integrity_check")[0]
    assert problems == "ok"
    return len(rows)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
