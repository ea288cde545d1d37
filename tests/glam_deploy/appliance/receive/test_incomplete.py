"""Mammograms that were cut on their way: refused with both lengths, so that the whole one is taken afterwards."""

import struct
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import gdcm
import pytest
from hostile import nested, with_elements
from mammograms import transcode, write_mg
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)
from pynetdicom import AE
from support.receive import Box, close_sockets, listening, same_rows_and_files, split

from glam_deploy.appliance.ingest import Status

PLAIN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
ENCODED = {"rle": gdcm.TransferSyntax.RLELossless, "jpeg-ls": gdcm.TransferSyntax.JPEGLSLossless,
           "jpeg 2000": gdcm.TransferSyntax.JPEG2000Lossless}  # fmt: skip
CUTS = 60
"""Places at which a file is cut."""


def file_in(folder: Path, syntax: UID | str) -> bytes:
    """A view in a transfer syntax; the compressed ones by gdcm."""
    path = folder / "whole.dcm"
    if isinstance(syntax, UID):
        return write_mg(path, syntax=syntax).read_bytes()
    return transcode(write_mg(path), ENCODED[syntax]).read_bytes()


@pytest.mark.parametrize("syntax", [*PLAIN, *ENCODED], ids=str)
def test_a_cut_mammogram_is_refused_wherever_it_was_cut_and_the_whole_one_is_taken(
    inbox: Box, tmp_path: Path, syntax: UID | str
) -> None:
    claim, data_set = split(file_in(tmp_path, syntax))
    # a deflated stream may have all pixels before its last bytes
    end = len(data_set) - (16 if syntax == DeflatedExplicitVRLittleEndian else 1)
    statuses = [inbox.take(data_set[:at], claim).status for at in range(end, 0, -(end // CUTS))]
    assert set(statuses) <= {Status.INCOMPLETE, Status.NOT_UNDERSTOOD}
    assert statuses[: CUTS // 2] == [Status.INCOMPLETE] * (CUTS // 2)
    assert inbox.files() + inbox.files("spool/incoming") + inbox.files("quarantine") == []
    assert inbox.take(data_set, claim).status == Status.SUCCESS
    assert inbox.rows("SELECT state FROM instance") == [("candidate",)]


def test_the_reason_has_both_lengths(inbox: Box, tmp_path: Path) -> None:
    claim, data_set = split(write_mg(tmp_path / "a.dcm").read_bytes())
    receipt = inbox.take(data_set[:-5000], claim)
    assert receipt.reason.startswith(f"PixelData has {96 * 70 * 2 - 5000} of {96 * 70 * 2} bytes: send")
    (line,) = inbox.audit()
    assert (line["status"], line["reason"]) == ("0xC113", receipt.reason)


def test_a_cut_one_after_the_whole_one_changes_nothing(inbox: Box, tmp_path: Path) -> None:
    claim, data_set = split(write_mg(tmp_path / "a.dcm").read_bytes())
    assert inbox.take(data_set, claim).status == Status.SUCCESS
    assert inbox.take(data_set[:-5000], claim).status == Status.INCOMPLETE
    assert same_rows_and_files(inbox) == 1
    assert inbox.rows("SELECT * FROM quarantine") == []


PIXELS = bytes.fromhex("e07f1000")
"""PixelData in little endian."""


@pytest.mark.parametrize("cut", [0, 5000])
def test_one_that_cannot_be_read_to_its_end_stays_with_its_sender(inbox: Box, tmp_path: Path, cut: int) -> None:
    """Its completeness is unknown, and equal errors do not make two objects one image."""
    path = with_elements(tmp_path / "a.dcm", nested(20, bytes.fromhex("400030a7")), before=PIXELS)
    claim, data_set = split(path.read_bytes())
    receipt = inbox.take(data_set[: len(data_set) - cut], claim)
    assert receipt.status == Status.NOT_UNDERSTOOD
    assert "sequences are nested more than 16 deep" in receipt.reason
    assert inbox.files() + inbox.files("spool/incoming") + inbox.files("quarantine") == []


def shorter(dataset: Dataset) -> None:
    dataset.PixelData = dataset.PixelData[:-1000]


def longer(dataset: Dataset) -> None:
    dataset.PixelData += bytes(1000)


def two_frames(dataset: Dataset) -> None:
    dataset.NumberOfFrames = 2


def without_pixels(dataset: Dataset) -> None:
    del dataset.PixelData


def without_rows(dataset: Dataset) -> None:
    del dataset.Rows


@pytest.mark.parametrize(
    ("edit", "status"),
    [
        (shorter, Status.INCOMPLETE),
        (two_frames, Status.INCOMPLETE),
        (without_pixels, Status.INCOMPLETE),
        (longer, Status.SUCCESS),
        (without_rows, Status.SUCCESS),
    ],
)
def test_a_length_field_that_agrees_with_the_file_and_not_with_the_header(
    inbox: Box, tmp_path: Path, edit: Callable[[Dataset], None], status: Status
) -> None:
    assert inbox.take(write_mg(tmp_path / "a.dcm", edit).read_bytes()).status == status


def encapsulated(path: Path, value: bytes, **elements: object) -> bytes:
    """A view whose PixelData is `value`, in the transfer syntax JPEG 2000 Lossless."""
    dataset = dcmread(write_mg(path))
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.PixelData = value
    dataset["PixelData"].is_undefined_length = True
    for keyword, content in elements.items():
        setattr(dataset, keyword, content)
    out = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(out)
    return out.getvalue()


FRAME = bytes(range(256)) * 4


@pytest.mark.parametrize(
    ("value", "elements", "status"),
    [
        (encapsulate([FRAME]), {}, Status.SUCCESS),
        (encapsulate([FRAME], has_bot=False), {}, Status.SUCCESS),
        (encapsulate([FRAME], fragments_per_frame=4), {}, Status.SUCCESS),
        (encapsulate([FRAME, FRAME]), {"NumberOfFrames": 2}, Status.SUCCESS),
        (encapsulate([FRAME]), {"NumberOfFrames": 2}, Status.INCOMPLETE),
        (encapsulate([FRAME, FRAME])[: -len(FRAME) - 8], {}, Status.INCOMPLETE),
        (encapsulate([], has_bot=False), {}, Status.INCOMPLETE),
        (encapsulate_extended([FRAME])[0], dict(zip(("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
         encapsulate_extended([FRAME])[1:], strict=True)), Status.SUCCESS),
        (encapsulate_extended([FRAME])[0], {"ExtendedOffsetTable": bytes(8),
         "ExtendedOffsetTableLengths": struct.pack("<Q", len(FRAME) + 2)}, Status.INCOMPLETE),
    ],
)  # fmt: skip
def test_fragments_and_offset_tables(
    inbox: Box, tmp_path: Path, value: bytes, elements: dict[str, object], status: Status
) -> None:
    receipt = inbox.take(encapsulated(tmp_path / "a.dcm", value, **elements))
    assert receipt.status == status, receipt.reason


def test_the_sender_is_told_over_the_network(inbox: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    close_sockets(monkeypatch)
    path = write_mg(tmp_path / "a.dcm", shorter)
    sender = AE("STORESCU")
    sender.add_requested_context("1.2.840.10008.5.1.4.1.1.1.2", ExplicitVRLittleEndian)
    with listening(inbox) as (_, port):
        association = sender.associate("127.0.0.1", port, ae_title="GLAM")
        answer = association.send_c_store(path)
        association.release()
    assert answer.Status == 0xC113
    assert answer.ErrorComment == "PixelData has 12440 of 13440 bytes: send the object again"


def test_rle_of_another_encoder_without_its_delimiter(inbox: Box, tmp_path: Path) -> None:
    claim, data_set = split(write_mg(tmp_path / "a.dcm", syntax=RLELossless).read_bytes())
    assert inbox.take(data_set[:-8], claim).status == Status.INCOMPLETE
    assert inbox.take(data_set, claim).status == Status.SUCCESS
