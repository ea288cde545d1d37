"""Values outside the standard: unknown, noticed, completed by the options; what is told in proper terms still counts.

Elements are put into the bytes of a written file, as senders write them: past pydicom's checks.
"""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from glam_deploy.dicom.read import read_view
from glam_deploy.errors import DicomError, GlamError, NotForThisNetwork
from glam_deploy.records import Mammogram, View

Write = Callable[..., Path]

# element, value representation, value: none of these may stop a view
INFORMING = [
    ("ImagerPixelSpacing", "DS", b"0,07\\0,07 "),
    ("ImagerPixelSpacing", "DS", b"0.07"),
    ("ImagerPixelSpacing", "DS", b"0.07\\0.07\\0.07"),
    ("ImagerPixelSpacing", "DS", b"0\\0 "),
    ("ImagerPixelSpacing", "DS", b"NaN\\inf "),
    ("ImagerPixelSpacing", "DS", b"-0.07\\0.07"),
    ("ImagerPixelSpacing", "LO", b"0,07 mm "),
    ("EstimatedRadiographicMagnificationFactor", "DS", b"1,07"),
    ("EstimatedRadiographicMagnificationFactor", "DS", b"nan "),
    ("EstimatedRadiographicMagnificationFactor", "DS", b"about 1 "),
    ("EstimatedRadiographicMagnificationFactor", "DS", b"1\\1.1 "),
    ("NumberOfFrames", "IS", b"one "),
    ("NumberOfFrames", "IS", b"1.5 "),
    ("LossyImageCompression", "CS", b"NO"),
    ("LossyImageCompression", "CS", b"00\\XX "),
    ("PartialView", "CS", b"MAYBE "),
    ("BreastImplantPresent", "CS", b"UNKNOWN "),
    *(("BreastImplantPresent", "CS", word) for word in (b"N ", b"FALSE ", b"0 ", b"NEIN", b"NON ", b"LEFT")),
    *(
        ("BreastImplantPresent", "CS", text)
        for text in (b"NO YES", b"YESTERDAY ", b"NOT YES ", b"10", b"TBD ", b"? YES ")
    ),
    ("EstimatedRadiographicMagnificationFactor", "DS", b"1.07x "),
    ("EstimatedRadiographicMagnificationFactor", "DS", b"100%"),
    ("EstimatedRadiographicMagnificationFactor", "DS", b"12.03.1965"),
    ("EstimatedRadiographicMagnificationFactor", "DS", b"12345678 A"),
    ("PresentationLUTShape", "CS", b"LINEAR"),
    ("PresentationIntentType", "CS", b"FOR PRESENTATION PURPOSES "),
    ("Modality", "CS", b"MAMMO "),
    ("Modality", "CS", "MAMMOGRAPHIE \u00e9".encode()),
    ("ViewPosition", "CS", b"LEFT CC "),
    ("ViewPosition", "CS", b"RIGHT CRANIOCAUDAL VIEW "),
    ("Laterality", "CS", b"LEFT"),
    ("FieldOfViewHorizontalFlip", "CS", b"Y "),
    ("PixelPaddingValue", "DS", b"none"),
    ("RescaleSlope", "DS", b"1,0 "),
]


LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")


def put(path: Path, keyword: str, vr: str, value: bytes) -> Path:
    """Put an element into a file in explicit little endian, in place of the one that is there."""
    tag, content = tag_for_keyword(keyword), path.read_bytes()
    at = 144 + int.from_bytes(content[140:144], "little")
    while (found := _element(content, at))[0] < tag:
        at = found[1]
    value += b"\0" * (len(value) % 2)
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    size = struct.pack("<HI", 0, len(value)) if vr.encode() in LONG else struct.pack("<H", len(value))
    path.write_bytes(content[:at] + head + size + value + content[found[1] if found[0] == tag else at :])
    return path


def _element(content: bytes, at: int) -> tuple[int, int]:
    """Tag of the element that begins there, and where the next one does; sequences have explicit lengths."""
    group, element, vr = struct.unpack_from("<HH2s", content, at)
    size, place = ("<I", at + 8) if vr in LONG else ("<H", at + 6)
    (length,) = struct.unpack_from(size, content, place)
    return group << 16 | element, place + struct.calcsize(size) + length


@pytest.mark.parametrize(("keyword", "vr", "value"), INFORMING, ids=lambda value: str(value)[:50])
def test_what_informs_never_stops_a_view(write: Write, keyword: str, vr: str, value: bytes) -> None:
    mammogram = read_view(put(write(), keyword, vr, value))
    (notice,) = mammogram.notices
    assert notice.code == "unknown-value"
    assert notice.message.startswith(f"{keyword} ")
    assert mammogram.source.facts["imager_pixel_spacing_mm"] == (None if "Spacing" in keyword else [0.07, 0.07])


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("EstimatedRadiographicMagnificationFactor", b"+1.07\0"),
        ("EstimatedRadiographicMagnificationFactor", b" 1.07 "),
        ("ImagerPixelSpacing", b"0.07000000000000000001\\0.07 "),
        ("ImageLaterality", b"L\0"),
        ("ImageLaterality", b"l "),
        ("PhotometricInterpretation", b"MONOCHROME2 \0"),
        ("NumberOfFrames", b"1.0 "),
        ("NumberOfFrames", b"\0\0"),
        ("SpecificCharacterSet", b"ISO_IR 999"),
        ("SpecificCharacterSet", b"UTF8\\nonsense "),
        ("KVP", b"27,5"),
        ("StudyDate", b"31.12.2020"),
    ],
)
def test_padding_in_excess_changes_nothing(write: Write, keyword: str, value: bytes) -> None:
    vr = {"NumberOfFrames": "IS", "KVP": "DS", "StudyDate": "DA"}.get(keyword, "DS" if b"0" in value else "CS")
    mammogram = read_view(put(write(), keyword, vr, value))
    assert (mammogram.view, mammogram.notices) == (View.L_CC, ())
    assert mammogram.source.facts["imager_pixel_spacing_mm"] == [0.07, 0.07]


@pytest.mark.parametrize(
    ("keyword", "value", "words"),
    [
        ("EstimatedRadiographicMagnificationFactor", b"1,8 ", "magnified 1.8 times"),
        ("EstimatedRadiographicMagnificationFactor", b"+1.8\0", "magnified 1.8 times"),
        ("EstimatedRadiographicMagnificationFactor", b"1.8x", "magnified 1.8 times"),
        ("EstimatedRadiographicMagnificationFactor", b"x1,8", "magnified 1.8 times"),
        ("EstimatedRadiographicMagnificationFactor", b"180%", "magnified 1.8 times"),
        ("EstimatedRadiographicMagnificationFactor", b"180 % ", "magnified 1.8 times"),
        ("EstimatedRadiographicMagnificationFactor", b"1.8mm ", "magnified 1.8 times"),
        ("BreastImplantPresent", b"yes ", "implant"),
        *(("BreastImplantPresent", word, "implant") for word in (b"Y ", b"TRUE", b"T ", b"1 ", b"ja", b"OUI ", b"SI")),
        ("BreastImplantPresent", b"N\\Y ", "implant"),
        ("BreastImplantPresent", b"NO\\YES", "implant"),
        ("BreastImplantPresent", b"YES\0", "implant"),
        *(
            ("BreastImplantPresent", text, "implant")
            for text in (b"YES BILATERAL ", b"yes, left", b"Y(R)", b"YES_SALINE")
        ),
        ("BreastImplantPresent", b"NO\\YES BILATERAL ", "implant"),
        ("ImageType", b"derived\\primary\\tomo_2d\\generated_2d ", "tomosynthesis"),
        ("ImageType", b"DERIVED\\PRIMARY\\\\GENERATED_2D\0", "synthesized"),
    ],
)
def test_another_kind_is_refused_however_it_is_written(write: Write, keyword: str, value: bytes, words: str) -> None:
    vr = "DS" if "Factor" in keyword else "CS"
    with pytest.raises(NotForThisNetwork, match=words):
        read_view(put(write(), keyword, vr, value))


def test_a_partial_view_and_loss_are_told_beside_other_values(write: Write) -> None:
    for keyword, value, code in (
        ("PartialView", b"NO\\YES", "partial-view"),
        ("LossyImageCompression", b"01\\00 ", "lossy"),
        *(("PartialView", word, "partial-view") for word in (b"Y ", b"TRUE", b"1 ", b"YES LATERAL ")),
        *(("LossyImageCompression", word, "lossy") for word in (b"1 ", b"YES ", b"01 JPEG ", b"YES, 1:10")),
    ):
        assert code in [notice.code for notice in read_view(put(write(), keyword, "CS", value)).notices]


@pytest.mark.parametrize(
    ("keyword", "vr", "value"),
    [
        ("Rows", "DS", b"9,6 "),
        ("Columns", "DS", b"many"),
        ("BitsStored", "DS", b"12\\12 0"),
        ("PixelRepresentation", "US", b""),
        ("PixelRepresentation", "CS", b"UNSIGNED"),
    ],
)
def test_what_the_pixels_need_is_refused_by_its_name(write: Write, keyword: str, vr: str, value: bytes) -> None:
    with pytest.raises(DicomError, match=keyword):
        read_view(put(write(), keyword, vr, value))


def _untagged(dataset: Dataset) -> None:
    del dataset.ViewCodeSequence
    del dataset.ImageLaterality
    dataset.PatientOrientation = ""


@pytest.mark.parametrize(
    "values",
    [
        {"ViewPosition": "RIGHT CC"},
        {"ViewPosition": "Mediolateral oblique"},
        {"ViewPosition": "CC", "ImageLaterality": "RIGHT "},
        {"ViewPosition": "RCC ", "Laterality": "R "},
        {"ViewPosition": "CC", "ImageLaterality": "L\\R "},
        {"ViewPosition": "R\u00c9CC"},
    ],
    ids=str,
)
def test_an_unknown_view_is_asked_for_and_taken_from_the_option(write: Write, values: dict[str, str]) -> None:
    path = write(_untagged)
    for keyword, value in values.items():
        put(path, keyword, "CS", value.encode())
    with pytest.raises(DicomError, match="view is unknown: pass view=") as caught:
        read_view(path)
    assert any(f"{keyword} " in str(caught.value) for keyword in values)
    mammogram = read_view(path, view=View.R_CC)
    assert mammogram.view is View.R_CC
    assert "unknown-value" in [notice.code for notice in mammogram.notices]


def test_an_unknown_view_code_beside_a_known_position(write: Write) -> None:
    def edit(dataset: Dataset) -> None:
        dataset.ViewCodeSequence[0].CodeValue = "X1"
        dataset.ViewPosition = "CC"

    (notice,) = read_view(write(edit)).notices
    assert "ViewCodeSequence holds a code outside CID 4014" in notice.message


def test_sequences_of_another_type_are_unknown(write: Write) -> None:
    def edit(dataset: Dataset) -> None:
        dataset[0x00540220] = DataElement(0x00540220, "LO", "CC")
        dataset.ViewPosition = "CC"

    assert "ViewCodeSequence" in read_view(write(edit)).notices[0].message


@pytest.mark.parametrize(
    "value",
    [b"UNKNOWN\\UNKNOWN ", b"A\\UNKNOWN ", b"1\\0\\0\\0\\1\\0 ", b"ANTERIOR\\FOOT ", b"A\\N/A ", b"???\\??? "],
)
def test_an_unknown_orientation_is_missing(write: Write, value: bytes) -> None:
    path = put(write(), "PatientOrientation", "CS", value)
    (notice,) = read_view(path).notices
    assert notice.code == "orientation-unknown"
    assert notice.message.startswith(("PatientOrientation holds ", "PatientOrientation does not hold "))
    assert "defined term" in notice.message
    assert read_view(path, horizontal_flip=True).horizontal_flip


@pytest.mark.parametrize("value", [b"A ", b"P ", b"A\\", b"\\R", b"A\\R\\F ", b"A\\R\\"])
def test_an_orientation_that_is_not_two_values_is_missing(write: Write, value: bytes) -> None:
    path = put(write(), "PatientOrientation", "CS", value)
    (notice,) = read_view(path).notices
    assert notice.code == "orientation-unknown"
    assert "is not two values" in notice.message
    assert read_view(path, horizontal_flip=True).horizontal_flip


@pytest.mark.parametrize("value", [b"a\\r ", b"A\\R\0", b" A \\ R"])
def test_an_orientation_in_another_spelling_is_known(write: Write, value: bytes) -> None:
    assert read_view(put(write(), "PatientOrientation", "CS", value)).notices == ()


def test_an_orientation_of_the_other_breast_is_a_wrong_laterality(write: Write) -> None:
    """In a CC view the columns run to the medial side, which tells the breast."""

    def untagged(dataset: Dataset) -> None:
        del dataset.ImageLaterality

    with pytest.raises(DicomError, match=r"laterality wrong.*: .* an L-CC view, not in an R-CC view: pass the correct"):
        read_view(write(untagged), view=View.R_CC)
    with pytest.raises(DicomError, match=r"laterality wrong.*: .*dcmodify"):
        read_view(put(write(), "ImageLaterality", "CS", b"R "))


def test_the_flip_of_the_detector_is_read_and_mirrors_nothing(write: Write) -> None:
    mammogram = read_view(put(write(), "FieldOfViewHorizontalFlip", "CS", b"YES "))
    assert mammogram.source.facts["field_of_view_horizontal_flip"] == "YES"
    assert (mammogram.horizontal_flip, mammogram.notices) == (False, ())


UIDS = [
    b"0123456789abcdef0123456789abcdef", b"1.2.03.4", b"1." + b"2" * 63, b"", b"1.2..3", b"../../etc/passwd", b"1.2.3.",
    b"1.2.3\\1.2.4",
]  # fmt: skip


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", UIDS)
def test_a_uid_that_is_none_is_told_and_left_out(write: Write, keyword: str, value: bytes) -> None:
    mammogram = read_view(put(write(), keyword, "UI", value))
    (notice,) = mammogram.notices
    assert (notice.code, keyword in notice.message) == ("uid-invalid", True)
    assert keyword not in mammogram.source.uids
    assert len(mammogram.source.uids) == 2


@pytest.mark.parametrize("value", [b"1.2.840.99\0", b"1.2.840.99  ", b"1.2.840.99\0\0\0\0", b" 1.2.840.99 "])
def test_the_padding_of_a_uid_is_no_part_of_it(write: Write, value: bytes) -> None:
    mammogram = read_view(put(write(), "SOPInstanceUID", "UI", value))
    assert (mammogram.source.uids["SOPInstanceUID"], mammogram.notices) == ("1.2.840.99", ())


def test_every_element_survives_every_kind_of_damage(write: Write) -> None:
    """A mammogram or an error of ours; and where the element only informs, a mammogram."""
    from glam_deploy.dicom.header import KEYWORDS

    for keyword in KEYWORDS:
        for vr, value in (("UN", b"\xff\xfe\0"), ("OB", b"\0\1"), ("FD", bytes(7)), ("LO", b"x" * 70), ("SQ", b"zz")):
            if keyword == "PixelData":
                continue
            path = put(write(), keyword, vr, value)
            try:
                assert isinstance(read_view(path, view=View.L_CC), Mammogram)
            except GlamError:
                continue
