"""docs/operations.md, "What only the first node has": the printed commands bring every image to the second node."""

import re
import subprocess
import sys
from pathlib import Path

from mammograms import write_mg
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from support.commands import ROOT
from support.receive import box, config_of, data_set_of, listening, same_rows_and_files

from glam_deploy.dicom.part10 import TRANSFER_SYNTAXES

SPOOL = "/var/lib/glam-deploy/spool/studies"
MANUAL = (ROOT / "docs/operations.md").read_text("utf-8")


def commands(folder: Path, port: int) -> str:
    """The printed lines, for this Python and these places."""
    (text,) = re.findall(r"1\. Send its images.+?```\n(.+?)```", MANUAL, re.DOTALL)
    for printed, here in (
        ("/opt/glam-deploy/bin/python", sys.executable),
        ("-aet PACS", "-aet STORESCU"),
        ("second 11112", f"127.0.0.1 {port}"),
        (SPOOL, str(folder)),
    ):
        assert printed in text
        text = text.replace(printed, here)
    return text


def images(folder: Path) -> None:
    """One image in each accepted transfer syntax; nobody decodes the pixels of the compressed ones."""
    for syntax in TRANSFER_SYNTAXES:
        is_plain = syntax.is_deflated or not syntax.is_encapsulated
        path = write_mg(folder / f"{syntax}.dcm", new_uid, syntax=syntax if is_plain else ExplicitVRLittleEndian)
        if not is_plain:
            made = dcmread(path)
            made.file_meta.TransferSyntaxUID = syntax
            made.PixelData = encapsulate([b"\xff\xd8" + bytes(200)])
            made["PixelData"].VR = "OB"
            made.save_as(path)


def new_uid(dataset: Dataset) -> None:
    dataset.SOPInstanceUID = generate_uid()


def content(folder: Path) -> dict[str, tuple[str, bytes]]:
    """SOP Instance UID -> transfer syntax and data set."""
    found = {}
    for path in folder.rglob("*.dcm"):
        meta = dcmread(path, stop_before_pixels=True).file_meta
        found[str(meta.MediaStorageSOPInstanceUID)] = (str(meta.TransferSyntaxUID), data_set_of(path.read_bytes()))
    return found


def sent(folder: Path, port: int) -> list[str]:
    """The two numbers that the commands print."""
    done = subprocess.run(
        ["bash", "-c", commands(folder, port)], cwd=folder.parent, capture_output=True, text=True, check=False
    )
    return done.stdout.split()


def test_every_accepted_transfer_syntax_arrives_as_it_was_received(tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    studies.mkdir()
    images(studies)
    before, count = content(studies), str(len(TRANSFER_SYNTAXES))
    with box(config_of(tmp_path / "second")) as second, listening(second) as (_, port):
        for _ in range(2):  # the second time they are there already
            assert sent(studies, port) == [count, count]
        assert content(second.data.root / "spool/studies") == before
        assert same_rows_and_files(second) == len(TRANSFER_SYNTAXES)
