"""Ingest: what is taken, what is not and in which words, and that nothing half-written stays."""

import os
import sqlite3
import threading
import warnings
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mammograms import breast, write_mg
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from support.receive import CANARY, Box, box, config_of, same_rows_and_files, sha256, split, write_exam

from glam_deploy.appliance.audit import load_key
from glam_deploy.appliance.ingest import Status
from glam_deploy.appliance.state import senders
from glam_deploy.appliance.state.database import open_database
from glam_deploy.dicom.part10 import Claim, write_head
from glam_deploy.dicom.read import read_view
from glam_deploy.errors import UsageError
from glam_deploy.records import View

SR_CLASS = "1.2.840.10008.5.1.4.1.1.88.33"


def one_row(inbox: Box) -> tuple[Any, ...]:
    (row,) = inbox.rows("SELECT state, view, reason, is_mammogram, sha256, bytes, sender, path FROM instance")
    return row


def study(inbox: Box) -> tuple[Any, ...]:
    (row,) = inbox.rows("SELECT state, opened, touched, reason FROM study")
    return row


def file_of(data_set: bytes, claim: Claim) -> bytes:
    return write_head(claim) + data_set


def edited(path: Path, **elements: Any) -> bytes:
    """A view with other values of some elements; nothing else of it changes, its file meta neither."""

    def edit(dataset: Dataset) -> None:
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return write_mg(path, edit).read_bytes()


# taken


def test_a_view_is_on_the_disk_as_it_came(inbox: Box, tmp_path: Path) -> None:
    sent = write_exam(tmp_path, views=(View.R_MLO,))[0]
    claim, data_set = split(sent.read_bytes())
    receipt = inbox.take(data_set, claim)
    assert (receipt.status, receipt.reason) == (Status.SUCCESS, "")
    state, view, reason, is_mammogram, digest, size, sender, path = one_row(inbox)
    assert (state, view, reason, is_mammogram) == ("candidate", "R-MLO", None, 1)
    assert (digest, size, sender) == (sha256(data_set), len(data_set), "TEST@here")
    kept = inbox.data.root / path
    assert kept.read_bytes().endswith(data_set)
    assert dcmread(kept) == dcmread(sent)
    assert (read_view(kept).pixels == breast(View.R_MLO)).all()
    assert study(inbox)[0] == "receiving"
    assert inbox.files("spool/incoming") == []


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_the_same_object_by_both_ways_is_one(inbox: Box, tmp_path: Path, syntax: UID) -> None:
    file = write_mg(tmp_path / "a.dcm", syntax=syntax).read_bytes()
    claim, data_set = split(file)
    assert inbox.take(file, step=7).status == Status.SUCCESS
    assert inbox.take(data_set, claim).status == Status.SUCCESS
    assert same_rows_and_files(inbox) == 1
    assert [line["event"] for line in inbox.audit()] == ["received", "duplicate"]


def test_the_spool_has_no_head_but_ours(inbox: Box, tmp_path: Path) -> None:
    """A preamble can be a program, and file meta can name a patient."""
    file = bytearray(write_exam(tmp_path, views=(View.L_CC,))[0].read_bytes())
    file[:2] = b"MZ"
    assert inbox.take(bytes(file)).status == Status.SUCCESS
    kept = inbox.files()[0].read_bytes()
    assert kept[:128] == bytes(128)
    assert kept == file_of(split(bytes(file))[1], split(bytes(file))[0])


def test_other_objects_are_kept_and_skipped(inbox: Box, tmp_path: Path) -> None:
    file = edited(tmp_path / "a.dcm", SOPClassUID=SR_CLASS, Modality="not a code string " * 9)
    _, data_set = split(file)
    claim = Claim(sop_class=SR_CLASS, sop_uid=split(file)[0].sop_uid, transfer_syntax=ExplicitVRLittleEndian)
    assert inbox.take(data_set, claim).status == Status.SUCCESS
    state, view, reason, is_mammogram, *_ = one_row(inbox)
    assert (state, view, is_mammogram) == ("skipped", None, 0)
    assert reason.startswith("the object is Comprehensive SR Storage")


@pytest.mark.parametrize(
    ("elements", "state", "view", "words"),
    [
        ({"BreastImplantPresent": "YES"}, "skipped", "L-CC", "implant"),
        ({"BitsStored": 30}, "refused", "L-CC", "BitsAllocated"),
        ({"ImageLaterality": ""}, "refused", None, "ImageLaterality is missing"),
        ({"PatientOrientation": ["H", "F"]}, "refused", "L-CC", "not an upright"),
        ({"PhotometricInterpretation": CANARY}, "refused", "L-CC", "code string"),
    ],
)
def test_a_mammogram_against_the_rules_is_kept_with_its_reason(
    inbox: Box, tmp_path: Path, elements: dict[str, Any], state: str, view: str | None, words: str
) -> None:
    assert inbox.take(edited(tmp_path / "a.dcm", **elements)).status == Status.SUCCESS
    row = one_row(inbox)
    assert (row[0], row[1], row[3]) == (state, view, 1)
    assert words in row[2]
    assert CANARY not in row[2]


def test_for_processing_is_a_matter_of_the_configuration(tmp_path: Path) -> None:
    file = write_mg(tmp_path / "a.dcm", for_processing=True).read_bytes()
    for allowed, state in ((False, "skipped"), (True, "candidate")):
        config = config_of(tmp_path / str(allowed))
        config = config.model_copy(update={"accept": config.accept.model_copy(update={"for_processing": allowed})})
        with box(config) as inbox:
            assert inbox.take(file).status == Status.SUCCESS
            assert one_row(inbox)[0] == state


# refused


def test_other_bytes_under_a_known_uid_go_to_quarantine_once(inbox: Box, tmp_path: Path) -> None:
    claim, data_set = split(write_exam(tmp_path, views=(View.L_CC,))[0].read_bytes())
    other = data_set[:-1] + bytes([data_set[-1] ^ 1])
    assert inbox.take(data_set, claim).status == Status.SUCCESS
    before = study(inbox)
    for _ in range(2):
        receipt = inbox.take(other, claim)
        assert receipt.status == Status.UID_COLLISION
        assert "quarantine" in receipt.reason
    assert one_row(inbox)[4] == sha256(data_set)
    assert study(inbox) == before
    ((digest, path),) = inbox.rows("SELECT sha256, path FROM quarantine")
    assert inbox.files("quarantine") == [inbox.data.root / path]
    assert (inbox.data.root / path).read_bytes().endswith(other)
    assert digest == sha256(other)
    assert [line["event"] for line in inbox.audit()] == ["received", "uid_collision", "uid_collision"]
    (name,) = {line["study"] for line in inbox.audit()}
    assert f"glam-deploy queue accept-correction {name}" in receipt.reason
    assert inbox.take(data_set, claim).status == Status.SUCCESS


@pytest.mark.parametrize("uid", ["../../../etc/passwd", "/etc/passwd", "..", "", "1.2/3", "1.2\n", "1" * 65, "1..2"])
def test_a_uid_that_is_none_leads_nowhere(inbox: Box, tmp_path: Path, uid: str) -> None:
    claim, data_set = split(write_exam(tmp_path, views=(View.L_CC,))[0].read_bytes())
    by_command = Claim(sop_class=claim.sop_class, sop_uid=uid, transfer_syntax=claim.transfer_syntax)
    receipt = inbox.take(data_set, by_command)
    assert (receipt.status, receipt.sop_uid) == (Status.NOT_UNDERSTOOD, "")
    assert uid not in receipt.reason or not uid.strip(".")
    everything = sorted(path for path in tmp_path.rglob("*") if path.is_file() and path.suffix == ".dcm")
    assert everything == [tmp_path / "exam-L-CC.dcm"]
    assert inbox.audit()[0]["status"] == "0xC000"


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
@pytest.mark.parametrize("uid", ["../../x", "", CANARY])
def test_a_uid_in_the_data_set_that_is_none(inbox: Box, tmp_path: Path, keyword: str, uid: str) -> None:
    claim, _ = split(write_mg(tmp_path / "a.dcm").read_bytes())
    dataset = dcmread(tmp_path / "a.dcm")
    dataset[keyword]._value = uid
    dataset.save_as(tmp_path / "b.dcm")
    receipt = inbox.take(split((tmp_path / "b.dcm").read_bytes())[1], claim)
    assert receipt.status == Status.NOT_UNDERSTOOD
    assert keyword in receipt.reason
    assert "/" not in receipt.reason
    assert CANARY not in receipt.reason
    assert (inbox.files(), inbox.rows("SELECT * FROM study")) == ([], [])


def test_another_object_than_said(inbox: Box, tmp_path: Path) -> None:
    first, second = write_exam(tmp_path, views=(View.L_CC, View.R_CC))
    claim, _ = split(first.read_bytes())
    assert inbox.take(split(second.read_bytes())[1], claim).status == Status.MISMATCH
    assert same_rows_and_files(inbox) == 0


def test_another_study_than_it_was_sent_to(inbox: Box, tmp_path: Path) -> None:
    file = write_exam(tmp_path, views=(View.L_CC,))[0].read_bytes()
    for of, status in (("1.2.3", Status.MISMATCH), (dcmread(tmp_path / "exam-L-CC.dcm").StudyInstanceUID, 0)):
        with inbox.ingest.open(sender="stow@here", study=of) as upload:
            upload.write(file)
            assert upload.finish().status == status


def test_another_instance_than_the_one_that_was_asked_for(inbox: Box, tmp_path: Path) -> None:
    file = write_exam(tmp_path, views=(View.L_CC,))[0].read_bytes()
    for asked, status in (("1.2.3", Status.MISMATCH), (dcmread(tmp_path / "exam-L-CC.dcm").SOPInstanceUID, 0)):
        with inbox.ingest.open(sender="fetch@here", instance=asked) as upload:
            upload.write(file)
            assert upload.finish().status == status


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"sop_class": "1.2.840.113619.4.27"}, Status.CLASS_NOT_SUPPORTED),
        ({"sop_class": "1.2.840.10008.1.1"}, Status.CLASS_NOT_SUPPORTED),
        ({"transfer_syntax": "1.2.840.113619.5.2"}, Status.SYNTAX_NOT_SUPPORTED),
        ({"transfer_syntax": "1.2.840.10008.1.2.4.94"}, Status.SYNTAX_NOT_SUPPORTED),
    ],
)
def test_private_classes_and_syntaxes(inbox: Box, tmp_path: Path, changes: dict[str, str], status: Status) -> None:
    claim, data_set = split(write_exam(tmp_path, views=(View.L_CC,))[0].read_bytes())
    facts = {"sop_class": claim.sop_class, "sop_uid": claim.sop_uid, "transfer_syntax": claim.transfer_syntax}
    assert inbox.take(data_set, Claim(**facts | changes)).status == status
    assert inbox.files() == []


@pytest.mark.parametrize("file", [b"", b"x", b"\0" * 132, b"\0" * 128 + b"DICM", b"%PDF-1.4" * 100, b"\0" * 200_000])
def test_what_is_no_dicom_file(inbox: Box, file: bytes) -> None:
    receipt = inbox.take(file)
    assert receipt.status == Status.NOT_UNDERSTOOD
    assert receipt.reason
    assert inbox.files("spool") == []


def test_a_file_meta_without_end_is_not_collected(inbox: Box) -> None:
    with inbox.ingest.open(sender="stow@here") as upload:
        upload.write(b"\0" * 128 + b"DICM\2\0\0\0UL\4\0" + (1 << 31).to_bytes(4, "little"))
        for _ in range(10):
            upload.write(bytes(1 << 20))
        assert len(upload._head) < 1 << 16
        assert upload.finish().status == Status.NOT_UNDERSTOOD


def test_more_than_the_largest_object(tmp_path: Path) -> None:
    claim, data_set = split(write_exam(tmp_path, views=(View.L_CC,))[0].read_bytes())
    with box(config_of(tmp_path, max_object_bytes=1 << 20)) as inbox:
        with inbox.ingest.open(sender="a", claim=claim) as upload:
            upload.write(data_set)
            upload.write(bytes(1 << 20))
            assert inbox.files("spool") == []
            upload.write(b"more")
            receipt = upload.finish()
        assert receipt.status == Status.TOO_LARGE
        assert str(1 << 20) in receipt.reason


def test_a_sender_that_breaks_off_leaves_nothing_but_a_line(inbox: Box, tmp_path: Path) -> None:
    claim, data_set = split(write_exam(tmp_path, views=(View.L_CC,))[0].read_bytes())
    with inbox.ingest.open(sender="a", claim=claim) as upload:
        upload.write(data_set[:1000])
        assert len(inbox.files("spool/incoming")) == 1
    upload.write(b"late")
    assert inbox.files("spool") == []
    (line,) = inbox.audit()
    assert (line["event"], line["reason"], line["bytes"]) == (
        "refused",
        "the sender stopped before the end of the instance",
        1000,
    )


def test_refusals_are_counted_by_sender_and_status(inbox: Box, tmp_path: Path) -> None:
    claim, data_set = split(write_exam(tmp_path, views=(View.L_CC,))[0].read_bytes())
    other = Claim(sop_class=SR_CLASS, sop_uid=claim.sop_uid, transfer_syntax=claim.transfer_syntax)
    for content, said in ((b"x", claim), (data_set[:-99], claim), (data_set[:-98], claim), (data_set, other)):
        inbox.take(content, said, sender="MODALITY@10.0.0.7")
    for _ in range(2):
        assert inbox.take(data_set, claim, sender="MODALITY@10.0.0.7").status == Status.SUCCESS
    with closing(open_database(inbox.data.database)) as connection:
        assert senders.refusals_by_code(connection) == {"A900": 1, "C000": 1, "C113": 2}
        (found,) = senders.senders(connection)
    assert (found.name, found.instances, found.refused, found.rejected) == ("MODALITY@10.0.0.7", 2, 4, 0)
    assert found.last_at
    assert found.refused_at
    assert "differ from those announced" in found.reason


def test_senders_without_end_take_no_space_without_end(inbox: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(senders, "MOST_REFUSALS", 10)
    for number in range(50):
        inbox.ingest.spool.record_refusal(f"ROGUE{number}@10.0.0.9", senders.ASSOCIATION, "unknown", times=2)
    with closing(open_database(inbox.data.database)) as connection:
        assert senders.refusals_by_code(connection) == {senders.ASSOCIATION: 100}
        assert [found.name for found in senders.senders(connection)] == [f"ROGUE{n}@10.0.0.9" for n in range(40, 50)]


# studies


def test_mammograms_open_a_study_again_and_other_objects_do_not(inbox: Box, tmp_path: Path) -> None:
    first, second = write_exam(tmp_path, views=(View.L_CC, View.R_CC))
    assert inbox.take(first.read_bytes()).status == Status.SUCCESS
    opened = study(inbox)[1]
    connection = sqlite3.connect(inbox.data.database)
    connection.execute("UPDATE study SET state = 'assembled', reason = 'views'")
    connection.commit()
    dataset = dcmread(first)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SR_CLASS
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    dataset.save_as(tmp_path / "sr.dcm")
    assert inbox.take((tmp_path / "sr.dcm").read_bytes()).status == Status.SUCCESS
    assert study(inbox) == ("assembled", opened, opened, "views")
    assert inbox.take(second.read_bytes()).status == Status.SUCCESS
    state, again, touched, reason = study(inbox)
    assert (state, reason) == ("receiving", None)
    assert again == touched > opened
    connection.close()


def test_own_results_that_come_back_are_skipped(inbox: Box, tmp_path: Path) -> None:
    path = write_exam(tmp_path, views=(View.L_CC,))[0]
    connection = sqlite3.connect(inbox.data.database)
    connection.execute(
        "INSERT INTO parcel_object VALUES ('pacs', ?, 1, 'class', 'path', 'sent', NULL)",
        (str(dcmread(path).SOPInstanceUID),),
    )
    connection.commit()
    connection.close()
    assert inbox.take(path.read_bytes()).status == Status.SUCCESS
    assert one_row(inbox)[:3] == ("skipped", None, "a result object of this appliance, received back")


def test_many_senders_of_the_same_things_at_once(inbox: Box, tmp_path: Path) -> None:
    files = [path.read_bytes() for seed in "abc" for path in write_exam(tmp_path, seed=seed)]
    results: list[int] = []

    def send(offset: int) -> None:
        results.extend(inbox.take(file).status for file in files[offset:] + files[:offset])

    threads = [threading.Thread(target=send, args=(offset,)) for offset in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [Status.SUCCESS] * 96
    assert same_rows_and_files(inbox) == 12
    assert len(inbox.audit("received")) == 12
    assert len(inbox.audit("duplicate")) == 84


def test_a_study_of_two_patients_is_told(inbox: Box, tmp_path: Path) -> None:
    (first,) = write_exam(tmp_path, views=(View.L_CC,))
    assert inbox.take(first.read_bytes()).status == Status.SUCCESS
    dataset = dcmread(write_exam(tmp_path, views=(View.R_CC,))[0])
    dataset.PatientID = "MERGED"
    dataset.save_as(tmp_path / "merged.dcm")
    assert inbox.take((tmp_path / "merged.dcm").read_bytes()).status == Status.SUCCESS
    told = "its Patient ID, or the issuer, differs from that of another object of the study"
    assert [line.get("reason") for line in inbox.audit("received")] == [None, told]
    assert inbox.rows("SELECT detail FROM event WHERE what = 'patient differs'") == [(f"R-CC: {told}",)]
    first_patient, second_patient = (patient for (patient,) in inbox.rows("SELECT patient FROM instance"))
    assert first_patient != second_patient
    assert all(len(patient) == 16 and patient not in ("MERGED", CANARY) for patient in (first_patient, second_patient))


# who is called what


def test_names_are_nowhere_but_in_the_spool(inbox: Box, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    claim, data_set = split(write_exam(tmp_path, views=(View.L_CC,))[0].read_bytes())
    caplog.set_level(0)
    inbox.take(data_set, claim)
    inbox.take(data_set[:-2] + b"xx", claim)
    inbox.take(data_set.replace(b"L\x00", b"Q\x00").replace(b"\x08\x00\x18\x00UI", b"\x08\x00\x18\x00PN"), claim)
    inbox.take(data_set[:300], claim)
    inbox.take(b"CANARY" * 1000)
    uid = claim.sop_uid.encode()
    for path in [*inbox.files("audit"), *inbox.data.root.glob("state.db*")]:
        assert b"CANARY" not in path.read_bytes(), path
        assert uid not in path.read_bytes() or path.name.startswith("state.db")
    assert "CANARY" not in caplog.text
    assert claim.sop_uid not in caplog.text
    assert len(inbox.audit()) == 5


def test_the_key_of_pseudonyms_is_made_once_and_for_us_alone(inbox: Box) -> None:
    path = inbox.data.root / "audit.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_key(inbox.data) == load_key(inbox.data) == path.read_bytes()
    path.write_bytes(b"short")
    with pytest.raises(UsageError, match="5 bytes, expected 32"):
        load_key(inbox.data)
    path.unlink()
    inbox.ingest.audit.write("received")
    with pytest.raises(UsageError, match=r"audit.key is gone, .*: restore it from a backup.*audit away"):
        load_key(inbox.data)
    assert not path.exists()
    os.mkfifo(path)
    with pytest.raises(UsageError, match=r"audit.key cannot be read \(it is a pipe"):
        load_key(inbox.data)
