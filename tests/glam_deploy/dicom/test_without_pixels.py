"""A DICOM file without its pixels has every other byte of the header."""

import zlib
from pathlib import Path

import pytest
from mammograms import write_mg
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.uid import UID

from glam_deploy.dicom.part10 import without_pixels
from glam_deploy.errors import DicomError

LIMIT = 1 << 24
NAME = b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B"
"""PS3.5 example H.3.1, as `rich` has it."""
SYNTAXES = (
    uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.RLELossless,
    uid.DeflatedExplicitVRLittleEndian,
)  # fmt: skip


def rich(dataset: Dataset) -> None:
    """A name in another character set, private elements of known and unknown kind, a nested sequence."""
    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    dataset.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    dataset.add_new(0x00290010, "LO", "MAKER")
    dataset.add_new(0x00291001, "UN", b"\0\1\2\3")
    dataset.add_new(0x00291002, "LT", "free text")
    dataset.RequestAttributesSequence = [Dataset()]
    dataset.RequestAttributesSequence[0].ScheduledProcedureStepID = "1"
    dataset.add_new(0xFFFCFFFC, "OB", b"\0" * 8)  # after the pixels


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_every_element_before_the_pixels_is_there(tmp_path: Path, syntax: UID) -> None:
    data = write_mg(tmp_path / "a.dcm", rich, syntax=syntax).read_bytes()
    (tmp_path / "header.dcm").write_bytes(without_pixels(data, limit=LIMIT))
    found, whole = dcmread(tmp_path / "header.dcm"), dcmread(tmp_path / "a.dcm", stop_before_pixels=True)
    assert found.file_meta == whole.file_meta
    tags = sorted(whole.keys())
    assert sorted(found.keys()) == tags and 0x00291001 in tags and 0xFFFCFFFC not in tags
    assert [found.get_item(tag).value for tag in tags] == [whole.get_item(tag).value for tag in tags]


def test_the_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    data = write_mg(tmp_path / "a.dcm", rich).read_bytes()
    header = without_pixels(data, limit=LIMIT)
    assert data.startswith(header) and data[len(header) :].startswith(b"\xe0\x7f\x10\x00OW")
    assert NAME in header and b"free text" in header


def test_the_inflated_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    path = write_mg(tmp_path / "a.dcm", rich, syntax=uid.DeflatedExplicitVRLittleEndian)
    data, start = path.read_bytes(), 144 + int.from_bytes(path.read_bytes()[140:144], "little")
    header = without_pixels(data, limit=LIMIT)
    inflated, whole = (zlib.decompress(each[start:], wbits=-zlib.MAX_WBITS) for each in (header, data))
    assert header[:start] == data[:start] and whole.startswith(inflated)
    assert whole[len(inflated) :].startswith(b"\xe0\x7f\x10\x00OW") and len(header) < 4096


def test_a_header_that_is_cut_is_refused(tmp_path: Path) -> None:
    data = write_mg(tmp_path / "a.dcm").read_bytes()
    for wrong in (data[: data.index(b"\x28\x00\x10\x00US") + 9], b"no DICOM" * 40):
        with pytest.raises(DicomError):
            without_pixels(wrong, limit=LIMIT)
