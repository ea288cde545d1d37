"""1,000 damaged DICOM files: a reason for each, no crash, no hang, and no name in what is said."""

import os
import random
import zlib
from collections import Counter
from dataclasses import replace

import pytest
from mammograms import breast
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless
from support.receive import CANARY, Box, same_rows_and_files, split

from glam_deploy.appliance.ingest import Receipt, Status
from glam_deploy.dicom.mammography import Exam, write_view
from glam_deploy.records import View

SYNTAXES = (ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, RLELossless)
LENGTHS = (0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
HEADER = 1400
"""About as many bytes of the data set as lie before its pixels."""


def mutated(data: bytes, dice: random.Random) -> bytes:
    """One to four changes, most of them in the header."""
    bad = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        at = dice.randrange(min(len(bad), HEADER) if dice.random() < 0.9 else len(bad))
        kind = dice.randrange(7)
        if kind == 0:
            bad[at] = dice.randrange(256)
        elif kind == 1:
            bad[at : at + 4] = dice.choice(LENGTHS).to_bytes(4, "little")
        elif kind == 2:
            bad[at : at + 2] = dice.choice(LENGTHS[:3]).to_bytes(2, "little")
        elif kind == 3:
            bad[at:at] = dice.randbytes(dice.randint(1, 40))
        elif kind == 4:
            del bad[at : at + dice.randint(1, 40)]
        elif kind == 5:
            bad[at : at + 2] = dice.choice([b"SQ", b"UN", b"OB", b"UT", b"AT", b"??", b"PN"])
        else:
            del bad[max(1, at) :]
    return bytes(bad)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """A file in each syntax."""
    path, exam = tmp_path_factory.mktemp("sound") / "a.dcm", Exam(patient_name=CANARY, patient_id=CANARY)
    files = []
    for syntax in SYNTAXES:
        write_view(path, breast(View.L_CC), view=View.L_CC, exam=exam, transfer_syntax=syntax)
        files.append(path.read_bytes())
    return files


def renamed(data: bytes, uid: str, number: int) -> bytes:
    """The same under a SOP Instance UID of its own, deflated or not."""
    own = f"{uid[:-5]}1{number:04}".encode()
    if uid.encode() in data:
        return data.replace(uid.encode(), own)
    deflater = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflater.compress(renamed(zlib.decompress(data, -zlib.MAX_WBITS), uid, number)) + deflater.flush()


def take_mutant(inbox: Box, sound: list[bytes], number: int) -> Receipt:
    """A damaged file as STOW-RS or C-STORE would give it."""
    dice, file = random.Random(number), sound[number % 4]
    claim, data_set = split(file)
    if number % 8 == 0:
        return inbox.take(mutated(renamed(file, claim.sop_uid, number), dice))
    said = replace(claim, sop_uid=f"{claim.sop_uid[:-5]}1{number:04}")
    return inbox.take(mutated(renamed(data_set, claim.sop_uid, number), dice), said)


@pytest.fixture
def no_waiting(inbox: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the disk: other tests see to that."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    inbox.ingest.spool._database.execute("PRAGMA synchronous = OFF")


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("start", range(0, 1000, 250))
def test_a_reason_for_each(inbox: Box, sound: list[bytes], start: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    receipts = [take_mutant(inbox, sound, number) for number in range(start, start + 250)]
    assert all(receipt.reason for receipt in receipts if receipt.status != Status.SUCCESS)
    assert Status.PROCESSING_FAILURE not in {receipt.status for receipt in receipts}
    rows = inbox.rows("SELECT state, view, reason FROM instance")
    assert all(view if state == "candidate" else reason for state, view, reason in rows)
    # damage of every kind was met
    fates = Counter(receipt.status for receipt in receipts) + Counter(state for state, *_ in rows)
    assert min(fates[fate] for fate in (Status.NOT_UNDERSTOOD, "candidate", "refused")) > 0, fates
    assert same_rows_and_files(inbox) == fates[Status.SUCCESS]
    assert inbox.files("spool/incoming") == []
    said = [*(receipt.reason for receipt in receipts), *map(str, rows), *map(str, inbox.audit()), caplog.text]
    assert not any("CANARY" in text for text in said)
    assert len(inbox.audit()) == 250
