"""Objects whose UIDs are none (VinDr-Mammo: 32 hexadecimal digits): kept under derived UIDs, referred to exactly."""

import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import UID
from support.jobs import config_of, made, pixels_of, stub
from support.receive import Box, box, listening, split
from support.receive import config_of as receiving

from glam_deploy.appliance.folder import process_folder
from glam_deploy.appliance.ingest import Status
from glam_deploy.dicom.mammography import Exam, write_view
from glam_deploy.records import View

IDENTIFIERS = ["0123456789abcdef0123456789abcdef", "1.2.03.4", "1." + "2" * 63, "1..2", "IMG_0001.a-b"]


def named(path: Path, identifier: str, *, view: View = View.L_CC) -> Path:
    """A view whose instance, study and series have identifiers of the same length that are no UIDs; the head's is one.

    In the bytes, for pydicom would not write them.
    """
    write_view(path, pixels_of(view), view=view, exam=Exam(seed=f"exam {len(identifier)}"))
    content, dataset = path.read_bytes(), dcmread(path, stop_before_pixels=True)
    head = 144 + int.from_bytes(content[140:144], "little")
    body = content[head:]
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        tag = struct.pack("<HH", *divmod(tag_for_keyword(keyword), 1 << 16)) + b"UI"
        stored = dataset[keyword].value.encode()
        old = tag + (len(stored) + len(stored) % 2).to_bytes(2, "little") + stored + b"\0" * (len(stored) % 2)
        assert body.count(old) == 1
        value = identifier.encode() + b"\0" * (len(identifier) % 2)
        body = body.replace(old, tag + len(value).to_bytes(2, "little") + value)
    path.write_bytes(content[:head] + body)
    return path


@pytest.fixture
def inbox(tmp_path: Path) -> Iterator[Box]:
    with box(receiving(tmp_path)) as found:
        yield found


@pytest.mark.parametrize("identifier", IDENTIFIERS)
def test_an_object_is_kept_under_a_derived_uid(inbox: Box, tmp_path: Path, identifier: str) -> None:
    file = named(tmp_path / "a.dcm", identifier).read_bytes()
    claim, data_set = split(file)
    by_command = replace(claim, sop_uid=identifier)
    for content, said in ((data_set, by_command), (file, None), (data_set, by_command)):
        receipt = inbox.take(content, said)
        assert (receipt.status, receipt.sop_uid, receipt.study_uid) == (Status.SUCCESS, identifier, identifier)
    ((sop_uid, study_uid, series_uid, state, path),) = inbox.rows(
        "SELECT sop_uid, study_uid, series_uid, state, path FROM instance"
    )
    assert state == "candidate"
    assert len({sop_uid, study_uid, series_uid}) == 3
    assert all(UID(each).is_valid and each.startswith("2.25.") for each in (sop_uid, study_uid, series_uid))
    kept = inbox.data.root / path
    assert kept.read_bytes().endswith(data_set)
    assert dcmread(kept).file_meta.MediaStorageSOPInstanceUID.is_valid


def test_other_bytes_under_the_same_identifier_collide(inbox: Box, tmp_path: Path) -> None:
    file = named(tmp_path / "a.dcm", IDENTIFIERS[0]).read_bytes()
    assert inbox.take(file).status == Status.SUCCESS
    assert inbox.take(file[:-1] + bytes([file[-1] ^ 1])).status == Status.UID_COLLISION


@pytest.mark.parametrize("identifier", ["../../etc/passwd", "a/b", "..", ".", "DOE^JANE", "x" * 129, "a b"])
def test_what_names_no_object_leads_nowhere(inbox: Box, tmp_path: Path, identifier: str) -> None:
    file = named(tmp_path / "a.dcm", identifier).read_bytes()
    claim, data_set = split(file)
    for content, said in ((file, None), (data_set, claim), (data_set, replace(claim, sop_uid=identifier))):
        receipt = inbox.take(content, said)
        assert receipt.status == Status.NOT_UNDERSTOOD
        assert identifier not in receipt.reason or not identifier.strip(".")
    assert inbox.files() == []


def test_a_command_that_says_another_identifier_is_refused(inbox: Box, tmp_path: Path) -> None:
    claim, data_set = split(named(tmp_path / "a.dcm", IDENTIFIERS[0]).read_bytes())
    other = replace(claim, sop_uid=IDENTIFIERS[0][::-1])
    assert inbox.take(data_set, other).status == Status.NOT_UNDERSTOOD


@pytest.mark.skipif(not shutil.which("storescu"), reason="storescu (Debian package dcmtk) is not installed")
@pytest.mark.parametrize("identifier", IDENTIFIERS)
def test_another_vendors_sender_is_answered_with_success(inbox: Box, tmp_path: Path, identifier: str) -> None:
    named(tmp_path / "a.dcm", identifier)
    with listening(inbox) as (_, port):
        command = ["storescu", "-aet", "STORESCU", "-aec", "GLAM", "127.0.0.1", str(port), str(tmp_path / "a.dcm")]
        subprocess.run(command, check=True, timeout=60)
    assert inbox.rows("SELECT state FROM instance") == [("candidate",)]


def _uids(dataset: Dataset) -> Iterator[tuple[str, str]]:
    for element in dataset.iterall():
        if element.VR == "UI":
            yield element.keyword, str(element.value)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("identifier", IDENTIFIERS)
def test_results_are_valid_and_refer_to_the_image_as_it_calls_itself(tmp_path: Path, identifier: str) -> None:
    config = config_of(tmp_path, "[results]\ngsps = true\nseg_fractional = true\n")
    made(config)
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    path = named(tmp_path / "in" / "a.dcm", identifier)
    # a window that cannot be read only informs
    window = b"\x28\x00\x50\x10DS\x06\x002048.0"
    content = path.read_bytes()
    assert window in content
    path.write_bytes(content.replace(window, window.replace(b".", b",")))
    result = process_folder(tmp_path / "in", tmp_path / "out", stub(config), config)
    (study,) = result.studies
    (view,) = study.views
    assert view.status == "done", view.reason
    assert {"uid-invalid", "uid-derived"} <= {each["code"] for each in view.warnings or ()}
    assert {each.kind for each in study.objects} == {"seg", "seg_fractional", "sc", "gsps", "cad_sr", "sr"}
    for each in study.objects:
        found = dcmread(tmp_path / "out" / each.file)
        assert UID(found.SOPInstanceUID).is_valid and UID(found.SeriesInstanceUID).is_valid
        assert found.StudyInstanceUID == identifier
        stored = {(keyword, uid) for keyword, uid in _uids(found) if not UID(uid).is_valid}
        assert ("ReferencedSOPInstanceUID", identifier) in stored
        assert {uid for _, uid in stored} == {identifier}
        assert view.sop_uid not in {uid for keyword, uid in _uids(found) if keyword == "ReferencedSOPInstanceUID"}
