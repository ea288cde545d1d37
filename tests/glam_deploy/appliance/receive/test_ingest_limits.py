"""Ingest at its limits: bombs, headers without end, a disk without room, a fault of our own."""

import errno
import os
import sqlite3
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import pytest
from mammograms import write_mg
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian
from support.receive import CANARY, Box, box, config_of, same_rows_and_files, split, write_exam

from glam_deploy import durable
from glam_deploy.appliance.ingest import Status
from glam_deploy.dicom.received import MAX_HEADER
from glam_deploy.records import View

# bounded


def test_of_a_deflated_object_no_more_than_a_header_is_inflated(inbox: Box, tmp_path: Path) -> None:
    claim, data_set = split(write_mg(tmp_path / "a.dcm", syntax=DeflatedExplicitVRLittleEndian).read_bytes())
    deflater = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = deflater.compress(zlib.decompress(data_set, -zlib.MAX_WBITS))
    bomb += b"".join(deflater.compress(bytes(1 << 20)) for _ in range(100)) + deflater.flush()
    tracemalloc.start()
    assert inbox.take(bomb, claim).status == Status.SUCCESS
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * MAX_HEADER
    assert inbox.rows("SELECT state FROM instance") == [("candidate",)]


def test_private_elements_are_passed_over_unread(inbox: Box, tmp_path: Path) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.private_block(0x0019, "VENDOR", create=True).add_new(1, "OB", bytes(16 << 20))

    assert inbox.take(write_mg(tmp_path / "a.dcm", edit).read_bytes(), step=1 << 20).status == Status.SUCCESS
    assert inbox.rows("SELECT state FROM instance") == [("candidate",)]


@pytest.mark.parametrize("start", [b"\x08\x00\x05\x00CS\xfe\xff", b"\x08\x00\x06\x00SQ\0\0\xff\xff\xff\xff"])
def test_a_header_without_end_costs_little(inbox: Box, tmp_path: Path, start: bytes) -> None:
    """Sequences of undefined length, nested for ever, and a character set of gigabytes."""
    claim, _ = split(write_mg(tmp_path / "a.dcm").read_bytes())
    nested = b"\xfe\xff\x00\xe0\xff\xff\xff\xff" + b"\x08\x00\x06\x00SQ\0\0\xff\xff\xff\xff"
    receipt = inbox.take(start + nested * (1 << 18), claim, step=1 << 20)
    assert receipt.status in (Status.NOT_UNDERSTOOD, Status.INCOMPLETE)


# the disk


def test_below_the_watermark_nothing_is_taken(tmp_path: Path) -> None:
    file = write_exam(tmp_path, views=(View.L_CC,))[0].read_bytes()
    with box(config_of(tmp_path, reserve_bytes=1 << 60)) as inbox:
        receipt = inbox.take(file)
        assert receipt.status == Status.OUT_OF_RESOURCES
        assert "receive.reserve_bytes" in receipt.reason
        assert inbox.files("spool") == []


def test_the_watermark_holds_while_an_object_comes(inbox: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim, data_set = split(write_exam(tmp_path, views=(View.L_CC,))[0].read_bytes())
    with inbox.ingest.open(sender="a", claim=claim) as upload:
        upload.write(data_set)
        monkeypatch.setattr(type(inbox.data), "free_bytes", lambda _: -1 << 30)
        upload.write(bytes(32 << 20))
        assert inbox.files("spool") == []
        assert upload.finish().status == Status.OUT_OF_RESOURCES
    monkeypatch.undo()
    assert inbox.take(data_set, claim).status == Status.SUCCESS


def test_an_object_that_is_taken_at_the_reserve_is_taken_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `/health/ready` is true then: the free space without the object is not below the reserve."""
    reserve, pixels = 1 << 30, bytes(40 << 20)
    claim, data_set = split(write_exam(tmp_path, views=(View.L_CC,))[0].read_bytes())
    with box(config_of(tmp_path, reserve_bytes=reserve)) as inbox:
        incoming = inbox.data.incoming

        def free(_: object) -> int:
            return reserve - sum(path.stat().st_size for path in incoming.iterdir())

        monkeypatch.setattr(type(inbox.data), "free_bytes", free)
        with inbox.ingest.open(sender="a", claim=claim) as upload:
            for chunk in (data_set, pixels):
                upload.write(chunk)
            assert "receive.reserve_bytes" not in upload.finish().reason
        monkeypatch.setattr(type(inbox.data), "free_bytes", lambda _: reserve - 1)
        assert inbox.take(data_set, claim).status == Status.OUT_OF_RESOURCES


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("where", ["os.fsync", "Path.replace", "sync", "Path.mkdir", "open"])
def test_a_full_disk_at_any_step(inbox: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    claim, data_set = split(write_exam(tmp_path, views=(View.L_CC,))[0].read_bytes())
    owner: Any = {"os.fsync": os, "sync": durable}.get(where, Path)
    monkeypatch.setattr(owner, where.rpartition(".")[2], full)
    receipt = inbox.take(data_set, claim)
    monkeypatch.undo()
    assert receipt.status == Status.OUT_OF_RESOURCES
    assert "No space left" in receipt.reason
    assert inbox.files("spool") == []
    assert inbox.rows("SELECT * FROM study") == []
    assert inbox.take(data_set, claim).status == Status.SUCCESS
    assert same_rows_and_files(inbox) == 1


class BadConnection:
    """A connection whose commits fail as on a full disk: SQLite undoes the transaction by itself."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement == "COMMIT" and self._connection.total_changes:
            self._connection.execute("ROLLBACK")
            raise sqlite3.OperationalError("database or disk is full")
        return self._connection.execute(statement, *values)


def test_a_full_disk_at_the_commit(inbox: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_exam(tmp_path, views=(View.L_CC,))[0].read_bytes()
    spool = inbox.ingest.spool
    monkeypatch.setattr(spool, "_database", BadConnection(spool._database))
    assert inbox.take(file).status == Status.OUT_OF_RESOURCES
    monkeypatch.undo()
    assert inbox.files("spool") == []
    assert inbox.take(file).status == Status.SUCCESS
    assert same_rows_and_files(inbox) == 1


def test_a_fault_of_ours_harms_one_instance(inbox: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_exam(tmp_path, views=(View.L_CC,))[0].read_bytes()

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError(CANARY)

    monkeypatch.setattr("glam_deploy.appliance.ingest.examine", broken)
    receipt = inbox.take(file)
    assert receipt.status == Status.PROCESSING_FAILURE
    assert CANARY not in receipt.reason
    monkeypatch.undo()
    assert inbox.take(file).status == Status.SUCCESS
