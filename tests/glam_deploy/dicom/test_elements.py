"""The reader of listed elements: it agrees with pydicom on what is sound, and what is costly or lies costs little."""

import struct
import tracemalloc
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
from hostile import (
    ITEM,
    ITEM_END,
    OPEN_ITEM,
    PATIENT,
    SEQUENCE_END,
    UNLISTED,
    VIEW,
    closed,
    nested,
    sequence,
    start_of,
    with_elements,
)
from mammograms import breast, write_mg
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
)

from glam_deploy.dicom.elements import MAX_BUILT, MAX_DEPTH, MAX_ELEMENTS
from glam_deploy.dicom.header import KEYWORDS
from glam_deploy.dicom.read import read_elements, read_view
from glam_deploy.dicom.received import examine
from glam_deploy.dicom.results.source import read_source
from glam_deploy.errors import DicomError, GlamError
from glam_deploy.records import View

SYNTAXES = (
    ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian, JPEGLSLossless,
)  # fmt: skip
MOST = 20 << 20
"""Bytes that reading may take: 4 MiB of header, what is built of it, and the inflater's buffers."""


def rich(undefined: bool) -> Callable[[Dataset], None]:
    """Sequences within sequences, private ones and empty ones, listed and not."""

    def edit(dataset: Dataset) -> None:
        for keyword in ("ReferencedImageSequence", "OtherPatientIDsSequence", "ReferencedStudySequence"):
            inner, item = Dataset(), Dataset()
            inner.CodeValue, inner.CodeMeaning = "1", "x" * 30
            item.PatientID, item.PurposeOfReferenceCodeSequence = "7", [inner, Dataset(), inner]
            item.private_block(0x0011, "VENDOR", create=True).add_new(1, "SQ", Sequence([inner]))
            setattr(dataset, keyword, [item, item])
        dataset.SourceImageSequence = []
        dataset.private_block(0x0019, "VENDOR", create=True).add_new(1, "SQ", Sequence([Dataset(), item]))
        for element in dataset.iterall():
            if element.VR == "SQ":
                element.is_undefined_length = undefined
                for each in element.value:
                    each.is_undefined_length_sequence_item = undefined

    return edit


@pytest.mark.parametrize("undefined", [False, True])
@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_agrees_with_pydicom(tmp_path: Path, syntax: UID, undefined: bool) -> None:
    path = write_mg(tmp_path / "a.dcm", rich(undefined), syntax=syntax)
    keywords = [*KEYWORDS, "OtherPatientIDsSequence", "PatientName", "ReferencedStudySequence"]
    expected = dcmread(path, stop_before_pixels=True, specific_tags=keywords)
    assert len(expected.OtherPatientIDsSequence[1].PurposeOfReferenceCodeSequence) == 3
    assert read_elements(path, keywords) == Dataset(expected)
    assert (read_view(path).pixels == breast(View.L_CC)).all()


def test_items_in_another_encoding_than_their_data_set(tmp_path: Path) -> None:
    """PS3.5 section 6.2.2: a sequence of unknown VR is implicit, whatever the data set is."""
    code = b"\x08\x00\x00\x01\x0a\x00\x00\x00399162004 "
    scheme = b"\x08\x00\x02\x01\x04\x00\x00\x00SCT "
    for length in (None, 0xFFFFFFFF):
        item = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(code + scheme)) + code + scheme
        body = item if length is None else item + SEQUENCE_END
        path = with_elements(tmp_path / "a.dcm", sequence(body, VIEW, length=length, vr=b"UN"), before=VIEW)
        file = path.read_bytes()
        again = file.index(VIEW + b"SQ")
        end = file.index(b"\x50\x20\x20\x00CS", again)
        path.write_bytes(file[:again] + file[end:])
        assert read_view(path).view is View.L_CC
        assert dcmread(path).ViewCodeSequence[0].CodeValue == "399162004"


@pytest.mark.parametrize("told", [0, 1, 100, 60_000, 0xFFFFFFFF])
def test_a_group_length_that_lies_is_passed_over(tmp_path: Path, told: int) -> None:
    path = write_mg(tmp_path / "a.dcm")
    file = path.read_bytes()
    path.write_bytes(file[:140] + struct.pack("<I", told) + file[144:])
    assert (read_view(path).pixels == breast(View.L_CC)).all()


@pytest.mark.parametrize("letters", [b"??", b"--", b"  "])
def test_letters_that_are_no_value_representation(tmp_path: Path, letters: bytes) -> None:
    """As in fo-dicom's issues 179 and 1660: of the first element, of a listed and an unlisted one, and in an item."""
    path = write_mg(tmp_path / "a.dcm", lambda dataset: setattr(dataset, "PatientComments", "G0000"))
    expected, file = read_elements(path, KEYWORDS), path.read_bytes()
    view = file.index(VIEW)
    places = start_of(file), file.index(PATIENT), file.index(b"\x20\x00\x62\x00CS"), file.index(b"\x10\x00\x00\x40LT")
    for place in (*places, file.index(b"\x08\x00\x00\x01SH", view)):
        file = file[: place + 4] + letters + file[place + 6 :]
    path.write_bytes(file)
    assert read_elements(path, KEYWORDS) == expected
    assert (read_view(path).pixels == breast(View.L_CC)).all()


def told(path: Path) -> str:
    """Why the object is refused, and that this took little memory; the receiver and the results refuse it too."""
    tracemalloc.start()
    try:
        read_view(path)
        reason = ""
    except DicomError as error:
        reason = str(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < MOST
    with nullcontext() if not reason else suppress(GlamError):
        examine(path, for_processing=False)
        assert read_source(path).header.rows == 96
    return reason


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_items_are_counted_and_not_built(tmp_path: Path, syntax: UID) -> None:
    for count, tag in ((200_000, UNLISTED), (200_000, VIEW), (MAX_ELEMENTS, UNLISTED)):
        path = with_elements(tmp_path / "a.dcm", closed(ITEM * count, tag), syntax=syntax)
        assert f"more than {MAX_ELEMENTS} elements and items" in told(path) or "more than 5000" in told(path)


def test_items_of_a_known_length_cost_nothing(tmp_path: Path) -> None:
    path = with_elements(tmp_path / "a.dcm", sequence(ITEM * 1_000_000, length=None))
    assert told(path) == ""


def test_a_sequence_that_is_read_has_a_limit_of_its_own(tmp_path: Path) -> None:
    extra = sequence(ITEM * (MAX_BUILT + 1), VIEW, length=None)
    assert f"more than {MAX_BUILT} elements and items" in told(with_elements(tmp_path / "a.dcm", extra, before=VIEW))


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (sequence(ITEM * 3), "ends within|contains data other"),
        (sequence(OPEN_ITEM + UNLISTED + b"LO\4\0abcd"), "end"),
        (sequence(b"abcdefgh" + SEQUENCE_END), "contains data other than items"),
        (closed(nested(MAX_DEPTH + 1)[12:-8]), f"nested more than {MAX_DEPTH} deep"),
        (nested(100_000), f"nested more than {MAX_DEPTH} deep"),
        (sequence(b"", length=0x7FFFFFF0), "before the end of an element"),
        (b"\x09\x00\x01\x10OB\0\0" + struct.pack("<I", 0xFFFFFFF0), "before the end of an element"),
        (b"\x08\x00\x60\x00CS\x02\x00MG", "occurs twice"),
        (b"\x09\x00\x01\x10LO\0\0" * 200_000, "more than 20000"),
        (b"\x08\x00\x08\x00UT\0\0" + struct.pack("<I", 1 << 20) + b"\\" * (1 << 20), "1048576 bytes|occurs twice"),
    ],
    ids=range(10),
)
def test_what_lies_is_refused_with_its_reason(tmp_path: Path, extra: bytes, reason: str) -> None:
    path = with_elements(tmp_path / "a.dcm", extra)
    with pytest.raises(DicomError, match=reason):
        read_view(path)
    told(path)


def test_a_value_with_more_bytes_than_any_has(tmp_path: Path) -> None:
    value = b"\x08\x00\x08\x00UT\0\0" + struct.pack("<I", 1 << 20) + b"\\" * (1 << 20)
    path = write_mg(tmp_path / "a.dcm", lambda dataset: delattr(dataset, "ImageType"))
    file = path.read_bytes()
    path.write_bytes(file[: start_of(file)] + value + file[start_of(file) :])
    assert "(0008,0008) has 1048576 bytes, expected up to 65536" in told(path)


def test_fragments_are_counted(tmp_path: Path) -> None:
    path = write_mg(tmp_path / "a.dcm", syntax=JPEGLSLossless)
    file = path.read_bytes()
    at = file.index(b"\xe0\x7f\x10\x00OB") + 12
    path.write_bytes(file[:at] + ITEM * 100_000 + file[at:])
    assert f"more than {MAX_ELEMENTS}" in told(path)
    path.write_bytes(file[:-8])
    assert "ends within an element" in told(path)


def test_pixels_that_are_longer_than_the_file(tmp_path: Path) -> None:
    path = write_mg(tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:-100])
    assert "ends within an element" in told(path)


def test_the_item_delimiter_of_another_level(tmp_path: Path) -> None:
    for extra in (ITEM_END, SEQUENCE_END, ITEM, closed(OPEN_ITEM + SEQUENCE_END)):
        path = with_elements(tmp_path / "a.dcm", extra, before=PATIENT)
        with pytest.raises(DicomError):
            read_view(path)
