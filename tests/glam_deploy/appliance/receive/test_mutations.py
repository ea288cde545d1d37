"""1,000 damaged DICOM files: a reason for each, no crash, no hang, and no name in what is said."""

import os
import random
from collections import Counter
from pathlib import Path

import pytest
from mammograms import breast
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless
from support_receive import CANARY, Box, same_rows_and_files, split

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


def take_mutant(inbox: Box, path: Path, number: int) -> Receipt:
    """A damaged file as STOW-RS or C-STORE would give it."""
    dice = random.Random(number)
    exam = Exam(seed=str(number), patient_name=CANARY, patient_id=CANARY)
    write_view(path, breast(View.L_CC), view=View.L_CC, exam=exam, transfer_syntax=SYNTAXES[number % 4])
    file = path.read_bytes()
    if number % 8 == 0:
        return inbox.take(mutated(file, dice))
    claim, data_set = split(file)
    return inbox.take(mutated(data_set, dice), claim)


@pytest.fixture
def no_waiting(inbox: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the disk: other tests see to that."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    inbox.ingest.spool._database.execute("PRAGMA synchronous = OFF")


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("start", range(0, 1000, 250))
def test_a_reason_for_each(inbox: Box, tmp_path: Path, start: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)
    receipts = [take_mutant(inbox, tmp_path / "a.dcm", number) for number in range(start, start + 250)]
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
