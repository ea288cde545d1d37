"""Two versions of one image: which is used, what a person decides, and that neither is lost."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import gdcm
import pytest
from mammograms import transcode, write_mg
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian
from support.receive import CANARY, Box, same_rows_and_files, sha256, split

from glam_deploy.appliance.config import Assemble
from glam_deploy.appliance.ingest import Status
from glam_deploy.appliance.keeper import UNTOUCHED_S, Sweep
from glam_deploy.appliance.state import studies
from glam_deploy.appliance.state.database import open_database


def version(path: Path, edit: Callable[[Dataset], object] = lambda _: None, **options: Any) -> bytes:
    return write_mg(path, edit, **options).read_bytes()


def compressed(path: Path, syntax: int = gdcm.TransferSyntax.JPEGLSLossless) -> bytes:
    """The same image, by another program."""
    return transcode(write_mg(path), syntax).read_bytes()


def damaged(path: Path) -> bytes:
    """All lengths are right, the JPEG-LS stream is not."""
    content = compressed(path)
    at = content.index(b"\xff\xd8")
    return content[:at] + bytes(200) + content[at + 200 :]


def untagged(dataset: Dataset) -> None:
    dataset.ImageLaterality = ""


def renamed(dataset: Dataset) -> None:
    dataset.PatientID = CANARY


def brighter(dataset: Dataset) -> None:
    pixels = bytearray(dataset.PixelData)
    pixels[20 * 70 * 2 + 20] ^= 1
    dataset.PixelData = bytes(pixels)


def one(inbox: Box) -> tuple[Any, ...]:
    (row,) = inbox.rows("SELECT state, sha256 FROM instance")
    return row


def digest_of(file: bytes) -> str:
    return sha256(split(file)[1])


@pytest.mark.parametrize("bad", ["stream", "header", "view"])
def test_one_that_gives_no_result_gives_way(inbox: Box, tmp_path: Path, bad: str) -> None:
    whole = version(tmp_path / "a.dcm")
    first = {"stream": damaged, "header": lambda path: version(path, untagged), "view": compressed}[bad](
        tmp_path / "b.dcm"
    )
    assert inbox.take(first).status == Status.SUCCESS
    if bad == "view":
        fail_the_view(inbox)
    assert inbox.take(whole).status == Status.SUCCESS
    assert one(inbox) == ("candidate", digest_of(whole))
    assert same_rows_and_files(inbox) == 1
    ((digest, replaced, path),) = inbox.rows("SELECT sha256, replaced, path FROM quarantine")
    assert (digest, replaced) == (digest_of(first), 1)
    assert (inbox.data.root / path).read_bytes().endswith(split(first)[1])
    assert inbox.rows("SELECT state FROM study") == [("receiving",)]
    assert inbox.audit()[-1]["event"] == "replaced"
    ((what, detail),) = inbox.rows("SELECT what, detail FROM event ORDER BY id DESC LIMIT 1")
    assert (what, detail.partition(":")[0]) == ("replaced", "L-CC")
    # and the other way round it changes nothing
    for later in (damaged(tmp_path / "b.dcm"), version(tmp_path / "c.dcm", brighter)):
        assert inbox.take(later).status == Status.UID_COLLISION
    assert one(inbox) == ("candidate", digest_of(whole))


def fail_the_view(inbox: Box) -> None:
    """As the network would, of an image that can be decoded."""
    with closing(open_database(inbox.data.database)) as connection:
        studies.assemble_complete(connection, Assemble(quiet_s=0), 1e9)
        connection.execute("UPDATE job SET state = 'done'")
        connection.execute("UPDATE job_view SET outcome = 'failed', reason = 'no breast was found'")


@pytest.mark.parametrize("encode", [
    compressed,
    lambda path: compressed(path, gdcm.TransferSyntax.JPEG2000Lossless),
    lambda path: version(path, syntax=ImplicitVRLittleEndian),
    lambda path: version(path, syntax=DeflatedExplicitVRLittleEndian),
])  # fmt: skip
def test_another_transfer_syntax_is_the_same_image(inbox: Box, tmp_path: Path, encode: Callable[[Path], bytes]) -> None:
    first = version(tmp_path / "a.dcm")
    assert inbox.take(first).status == Status.SUCCESS
    with closing(open_database(inbox.data.database)) as connection:
        studies.assemble_complete(connection, Assemble(quiet_s=0), 1e9)
    for _ in range(2):
        assert inbox.take(encode(tmp_path / "b.dcm")).status == Status.SUCCESS
    assert one(inbox) == ("candidate", digest_of(first))
    assert inbox.rows("SELECT state FROM study") == [("assembled",)]
    assert inbox.files("quarantine") == []
    assert [line["event"] for line in inbox.audit()] == ["received", "same_image", "same_image"]
    assert inbox.rows("SELECT detail FROM event WHERE what = 'same image'") == [
        ("L-CC: in another encoding, from TEST@here",)
    ]


@pytest.mark.parametrize(("edit", "told"), [(renamed, "equal pixels, but other PatientID"), (brighter, "other pixels")])
def test_what_changes_results_waits_for_a_person(
    inbox: Box, tmp_path: Path, edit: Callable[[Dataset], None], told: str
) -> None:
    first, second = version(tmp_path / "a.dcm"), version(tmp_path / "b.dcm", edit)
    assert inbox.take(first).status == Status.SUCCESS
    receipt = inbox.take(second)
    assert receipt.status == Status.UID_COLLISION
    assert f"in quarantine: {told}." in receipt.reason
    assert one(inbox) == ("candidate", digest_of(first))
    assert inbox.rows("SELECT reason, replaced FROM quarantine") == [(told, 0)]
    assert inbox.rows("SELECT detail FROM event WHERE what = 'conflict'") == [
        (f"another version from TEST@here: {told}",)
    ]


def test_files_of_versions_that_no_row_names_are_removed(inbox: Box, tmp_path: Path) -> None:
    """As a process that is killed between file and row leaves them."""
    first, second = damaged(tmp_path / "a.dcm"), version(tmp_path / "b.dcm")
    assert [inbox.take(each).status for each in (first, second)] == [0, 0]
    kept = [*inbox.files(), *inbox.files("quarantine")]
    assert len(kept) == 2
    for path in kept:
        path.with_name(f"1.2.3_{path.name}").write_bytes(b"left")
    with closing(open_database(inbox.data.database)) as connection:
        sweep = Sweep(inbox.data, connection)
        for now in (0.0, UNTOUCHED_S):
            sweep(now)
    assert [*inbox.files(), *inbox.files("quarantine")] == kept


def test_a_version_of_another_study_cannot_be_accepted(inbox: Box, tmp_path: Path) -> None:
    """So nothing advises to accept it; it is listed with the study of the stored one."""
    first = version(tmp_path / "a.dcm")
    other = version(tmp_path / "b.dcm", lambda dataset: setattr(dataset, "StudyInstanceUID", "1.2.3"))
    assert inbox.take(first).status == Status.SUCCESS
    receipt = inbox.take(other)
    stored, refused = inbox.audit()
    assert refused["study"] == stored["study"] and refused["event"] == "uid_collision"
    assert f"The first one, of study {stored['study']}, is kept: have this one sent under" in receipt.reason
    assert "accept-correction" not in receipt.reason
