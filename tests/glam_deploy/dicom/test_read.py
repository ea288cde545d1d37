"""Pixels, facts and failures of reading; what went in is the truth."""

import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import gdcm
import imagecodecs
import numpy as np
import pytest
from mammograms import breast, transcode
from pydicom import dcmread, uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from glam_deploy.dicom.completeness import require_complete
from glam_deploy.dicom.read import read_view
from glam_deploy.errors import (
    BackendUnavailable,
    DicomError,
    GlamError,
    IncompleteObject,
    InputError,
    NotForThisNetwork,
)
from glam_deploy.preprocess import place
from glam_deploy.records import Mammogram, View

LOSSLESS = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEGLSLossless,
    uid.JPEG2000Lossless,
)
JPEG_LOSSLESS = (gdcm.TransferSyntax.JPEGLosslessProcess14, gdcm.TransferSyntax.JPEGLosslessProcess14_1)

Write = Callable[..., Path]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda syntax: syntax.keyword)
def test_a_lossless_syntax_gives_back_the_pixels_that_went_in(
    write: Write, syntax: uid.UID, bits: int, photometric: str
) -> None:
    mammogram = read_view(write(syntax=syntax, bits=bits, photometric=photometric))
    assert mammogram.pixels.dtype == (np.uint8 if bits == 8 else np.uint16)
    np.testing.assert_array_equal(mammogram.pixels, breast(View.L_CC, bits=bits))
    assert mammogram.source.facts["transfer_syntax"] == syntax.name
    assert mammogram.notices == ()


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("syntax", JPEG_LOSSLESS)
def test_jpeg_lossless_gives_back_the_pixels_that_went_in(write: Write, syntax: int, bits: int) -> None:
    path = transcode(write(bits=bits), syntax)
    assert dcmread(path).file_meta.TransferSyntaxUID in (uid.JPEGLossless, uid.JPEGLosslessSV1)
    np.testing.assert_array_equal(read_view(path).pixels, breast(View.L_CC, bits=bits))


def test_near_lossless_jpeg_ls_stays_within_its_stated_error(write: Write, tmp_path: Path) -> None:
    dataset = dcmread(write())
    dataset.compress(uid.JPEGLSNearLossless, jls_error=3, generate_instance_uid=False)
    dataset.LossyImageCompression = "01"
    dataset.save_as(tmp_path / "lossy.dcm")
    mammogram = read_view(tmp_path / "lossy.dcm")
    assert np.abs(mammogram.pixels.astype(int) - breast(View.L_CC)).max() <= 3
    assert [notice.code for notice in mammogram.notices] == ["lossy"]


def test_lossy_jpeg_2000_is_read_with_a_notice(write: Write, tmp_path: Path) -> None:
    dataset = dcmread(write())
    dataset.compress(uid.JPEG2000, j2k_psnr=[60], generate_instance_uid=False)
    dataset.LossyImageCompression = "01"
    dataset.save_as(tmp_path / "lossy.dcm")
    mammogram = read_view(tmp_path / "lossy.dcm")
    # 60 dB below the full 12-bit range is a root mean square of about 4
    assert np.sqrt(np.mean((mammogram.pixels.astype(float) - breast(View.L_CC)) ** 2)) < 10
    assert [notice.code for notice in mammogram.notices] == ["lossy"]


def _compressed(path: Path, syntax: uid.UID, **options: object) -> Path:
    """Like an archive that compresses with loss and omits LossyImageCompression."""
    dataset = dcmread(path)
    del dataset.LossyImageCompression
    dataset.compress(syntax, generate_instance_uid=False, **options)
    if "LossyImageCompression" in dataset:
        del dataset.LossyImageCompression
    dataset.save_as(path)
    return path


def test_loss_is_told_where_only_the_transfer_syntax_does(write: Write) -> None:
    (notice,) = read_view(_compressed(write(), uid.JPEGLSNearLossless, jls_error=3)).notices
    assert notice.code == "lossy"
    assert "compressed with loss (transfer syntax JPEG-LS Lossy" in notice.message
    (notice,) = read_view(_compressed(write(), uid.JPEG2000, j2k_psnr=[60])).notices
    assert notice.code == "lossy"
    assert "lossy compression is possible" in notice.message


@pytest.mark.parametrize("syntax", [uid.JPEGLSLossless, uid.JPEG2000Lossless])
def test_no_loss_is_told_of_a_lossless_syntax(write: Write, syntax: uid.UID) -> None:
    assert read_view(_compressed(write(), syntax)).notices == ()


def test_jpeg_2000_that_is_tagged_without_loss_is_believed(write: Write) -> None:
    path = write(syntax=uid.JPEG2000Lossless)
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = uid.JPEG2000
    dataset.save_as(path)
    assert dataset.LossyImageCompression == "00"
    assert read_view(path).notices == ()


def test_monochrome1_is_inverted_within_bits_stored(write: Write) -> None:
    path = write(photometric="MONOCHROME1", bits=10)
    stored = dcmread(path).pixel_array
    np.testing.assert_array_equal(read_view(path).pixels, 1023 - stored)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_becomes_background(write: Write, photometric: str) -> None:
    pixels = breast(View.L_CC)
    pixels[0, 0], pixels[0, 1], pixels[0, 2] = 100, 104, 105

    def pad(dataset: Dataset) -> None:
        stored = pixels if photometric == "MONOCHROME2" else 4095 - pixels
        dataset.PixelData = stored.astype("<u2").tobytes()
        dataset.PixelPaddingValue, dataset.PixelPaddingRangeLimit = int(stored[0, 0]), int(stored[0, 1])

    expected = np.where((pixels >= 100) & (pixels <= 104), 0, pixels)
    np.testing.assert_array_equal(read_view(write(pad, photometric=photometric)).pixels, expected)


def test_bits_above_bits_stored_are_no_part_of_the_pixel(write: Write) -> None:
    """PS3.5 section 8.1.1: older objects keep overlays there."""

    def overlay(dataset: Dataset) -> None:
        dataset.PixelData = (breast(View.L_CC) | 0x8000).astype("<u2").tobytes()

    mammogram = read_view(write(overlay))
    np.testing.assert_array_equal(mammogram.pixels, breast(View.L_CC))
    assert "bits-above-stored" in [notice.code for notice in mammogram.notices]


def _signed(lowest: int) -> Callable[[Dataset], None]:
    def edit(dataset: Dataset) -> None:
        pixels = (breast(View.L_CC) // 2).astype("<i2")
        pixels[0, 0] = lowest
        dataset.PixelRepresentation, dataset.PixelData = 1, pixels.tobytes()

    return edit


def test_signed_pixels_are_read_while_none_is_negative(write: Write) -> None:
    np.testing.assert_array_equal(read_view(write(_signed(0))).pixels, breast(View.L_CC) // 2)
    with pytest.raises(DicomError, match="smallest pixel is -5"):
        read_view(write(_signed(-5)))


def test_what_is_known_of_the_source(write: Write) -> None:
    path = write(view=View.R_MLO)
    mammogram, dataset = read_view(path), dcmread(path)
    assert mammogram.view is View.R_MLO
    assert mammogram.source.name == "image.dcm"
    assert mammogram.source.uids == {
        "SOPInstanceUID": dataset.SOPInstanceUID,
        "SeriesInstanceUID": dataset.SeriesInstanceUID,
        "StudyInstanceUID": dataset.StudyInstanceUID,
    }
    assert mammogram.source.facts == {
        "transfer_syntax": "Explicit VR Little Endian",
        "bits_stored": 12,
        "imager_pixel_spacing_mm": [0.07, 0.07],
        "photometric_interpretation": "MONOCHROME2",
        "sop_class": "Digital Mammography X-Ray Image Storage - For Presentation",
        "presentation_intent": "FOR PRESENTATION",
        "voi": "none",
    }


def _as_syntax(path: Path, syntax: uid.UID) -> Path:
    dataset = dcmread(path)
    dataset.PixelData = encapsulate([dataset.PixelData])
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    return path


@pytest.mark.parametrize(
    ("syntax", "remedy"),
    [
        (uid.JPEGExtended12Bit, "dcmdjpeg"),
        (uid.JPEGBaseline8Bit, "dcmdjpeg"),
        (uid.MPEG2MPML, "request the image uncompressed"),
    ],
)
def test_a_syntax_without_a_decoder_is_named_with_the_remedy(write: Write, syntax: uid.UID, remedy: str) -> None:
    with pytest.raises(DicomError) as caught:
        read_view(_as_syntax(write(), syntax))
    assert syntax.name in str(caught.value)
    assert remedy in str(caught.value)


def test_a_missing_decoder_package_is_named(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(syntax=uid.JPEGLSLossless)
    monkeypatch.setattr("glam_deploy.dicom.pixels.find_spec", lambda name: None)
    with pytest.raises(BackendUnavailable, match=r"imagecodecs.*\[dicom\]"):
        read_view(path)


@pytest.mark.parametrize("keep", [0, 3, 100, 132, 140, 400, 0.5, -1])
def test_a_cut_off_file_is_refused(write: Write, keep: float) -> None:
    path = write()
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(DicomError):
        read_view(path)


def test_a_file_that_ends_between_two_elements_of_its_header_is_told_as_truncated(write: Write) -> None:
    path = write()
    content, head = path.read_bytes(), dcmread(path, stop_before_pixels=True)
    for keyword in ("SOPInstanceUID", "PatientID", "Rows", "BitsStored"):
        tag = head[keyword].tag
        start = struct.pack("<HH", tag.group, tag.element) + head[keyword].VR.encode()
        path.write_bytes(content[: content.rindex(start)])
        with pytest.raises(IncompleteObject, match="ends before its pixels, so it is truncated"):
            read_view(path)


def test_a_file_that_is_not_there_and_a_file_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(DicomError, match="cannot be opened"):
        read_view(tmp_path / "absent.dcm")
    (tmp_path / "text.dcm").write_text("no image at all" * 50)
    with pytest.raises(DicomError, match="not a readable DICOM file"):
        read_view(tmp_path / "text.dcm")


def test_an_object_without_pixels_is_refused(write: Write) -> None:
    with pytest.raises(DicomError, match="PixelData is missing"):
        read_view(write(lambda dataset: dataset.__delattr__("PixelData")))


@pytest.mark.parametrize(("keyword", "dtype"), [("FloatPixelData", "<f4"), ("DoubleFloatPixelData", "<f8")])
@pytest.mark.parametrize("states_integers", [True, False])
def test_pixels_that_are_floats_are_named(write: Write, keyword: str, dtype: str, states_integers: bool) -> None:
    """PS3.3 C.7.6.24: in place of PixelData, without BitsStored, HighBit and PixelRepresentation."""

    def as_floats(dataset: Dataset) -> None:
        setattr(dataset, keyword, breast(View.L_CC).astype(dtype).tobytes())
        del dataset.PixelData
        if not states_integers:
            dataset.BitsAllocated = 8 * np.dtype(dtype).itemsize
            del dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation

    path = write(as_floats)
    with pytest.raises(DicomError, match="the pixels are in FloatPixelData or DoubleFloatPixelData, expected integers"):
        read_view(path)
    require_complete(path)


def test_padding_that_covers_the_breast_is_named(write: Write) -> None:
    """PS3.3 C.7.5.1.1.2; what is above 0 and stated as padding is the likely cause of an empty image."""

    def pad(lowest: int, highest: int) -> Path:
        return write(lambda dataset: dataset.update({"PixelPaddingValue": lowest, "PixelPaddingRangeLimit": highest}))

    above = int(np.count_nonzero(breast(View.L_CC)))
    message = rf"^PixelPaddingValue 0 and PixelPaddingRangeLimit 4095 make {above} pixels above 0 background: correct"
    with pytest.raises(InputError, match=f"{message}.*The image is empty"):
        place(read_view(pad(0, 4095)))
    with pytest.raises(InputError, match=r"^PixelPaddingValue 2000 and .* 4095 make .*nowhere thicker than 200"):
        place(read_view(pad(2000, 4095)))
    with pytest.raises(InputError, match=r"^No part of the foreground"):
        place(read_view(pad(0, 0)))


def _append_pixels(path: Path, length: int) -> None:
    """A last element PixelData of `length` bytes, all 0 and sparse on the disk."""
    with path.open("ab") as file:
        file.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, length))
        file.truncate(file.tell() + length)


def _without_pixels(**values: object) -> Callable[[Dataset], None]:
    def edit(dataset: Dataset) -> None:
        del dataset.PixelData
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return edit


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"SOPClassUID": uid.BreastTomosynthesisImageStorage, "NumberOfFrames": 60}, NotForThisNetwork),
        ({"BreastImplantPresent": "YES"}, NotForThisNetwork),
        ({"Rows": 60_000, "Columns": 60_000}, DicomError),
        ({"ImageLaterality": "R", "Laterality": "L"}, DicomError),
        ({"PatientOrientation": ["P", "L"]}, DicomError),
    ],
    ids=str,
)
def test_what_is_turned_away_costs_no_more_than_its_header(
    write: Write, values: dict[str, object], error: type[GlamError]
) -> None:
    path = write(_without_pixels(**values))
    _append_pixels(path, 600_000_000)
    tracemalloc.start()
    with pytest.raises(error):
        read_view(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5_000_000


def test_more_bytes_than_a_mammogram_has_are_not_read(write: Write) -> None:
    path = write(_without_pixels())
    _append_pixels(path, 2_000_000_000)
    with pytest.raises(DicomError, match="more than 400000000 bytes"):
        read_view(path)


def test_what_has_too_many_bytes_is_named(tmp_path: Path) -> None:
    """Zeros after the prefix are elements of the file meta information, of 8 bytes each."""
    path = tmp_path / "a.dcm"
    path.write_bytes(bytes(128) + b"DICM" + bytes(500_000))
    with pytest.raises(DicomError, match=r"file meta information \(PS3.10 section 7.1\) has more than 65536 bytes"):
        read_view(path)


@pytest.mark.parametrize(
    ("syntax", "sound", "claimed"),
    [
        (uid.JPEG2000Lossless, struct.pack(">II", 70, 96), struct.pack(">II", 60_000, 60_000)),
        (uid.JPEGLSLossless, struct.pack(">BHH", 12, 96, 70), struct.pack(">BHH", 12, 60_000, 60_000)),
    ],
)
def test_no_decoder_is_given_a_stream_of_another_size(
    write: Write, monkeypatch: pytest.MonkeyPatch, syntax: uid.UID, sound: bytes, claimed: bytes
) -> None:
    path = write(syntax=syntax)
    content, start = path.read_bytes(), dcmread(path)["PixelData"].file_tell
    assert sound in content[start : start + 100]
    path.write_bytes(content[:start] + content[start:].replace(sound, claimed, 1))
    for decoder in ("jpeg2k_decode", "jpegls_decode"):
        monkeypatch.setattr(imagecodecs, decoder, lambda *_, **__: pytest.fail("it was decoded"))
    with pytest.raises(DicomError, match="states 60000 rows and 60000 columns"):
        read_view(path)


def test_a_deflated_bomb_is_not_inflated(write: Write, tmp_path: Path) -> None:
    path = write(_without_pixels(), syntax=uid.DeflatedExplicitVRLittleEndian)
    content = path.read_bytes()
    start = 144 + dcmread(path).file_meta.FileMetaInformationGroupLength
    deflater = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    with path.open("wb") as file:
        file.write(content[:start])
        file.write(deflater.compress(zlib.decompress(content[start:], -zlib.MAX_WBITS)))
        file.write(deflater.compress(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 500_000_000)))
        for _ in range(500):
            file.write(deflater.compress(bytes(1_000_000)))
        file.write(deflater.flush())
    tracemalloc.start()
    with pytest.raises(DicomError, match="more than 400000000 bytes"):
        read_view(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000_000


def _mutated(content: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        damaged[int(rng.integers(132, len(damaged)))] = int(rng.integers(256))
    return bytes(damaged[: int(rng.integers(132, len(damaged)))] if rng.random() < 0.2 else damaged)


@pytest.mark.parametrize("syntax", [*LOSSLESS, "gdcm"], ids=str)
def test_damage_gives_a_mammogram_or_an_error_of_ours(write: Write, syntax: uid.UID | str) -> None:
    path = transcode(write(), JPEG_LOSSLESS[1]) if syntax == "gdcm" else write(syntax=syntax)
    content, rng = path.read_bytes(), np.random.default_rng(7)
    for _ in range(60):
        path.write_bytes(_mutated(content, rng))
        try:
            assert isinstance(read_view(path), Mammogram)
        except GlamError:
            continue
