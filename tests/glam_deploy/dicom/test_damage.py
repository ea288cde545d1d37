"""Streams and files cut and changed at random: refused, or read as they were; what no decoder can see is counted."""

from collections.abc import Callable, Iterable
from pathlib import Path

import gdcm
import numpy as np
import pytest
from hostile import start_of
from mammograms import breast, transcode
from pydicom import uid
from pydicom.dataset import Dataset
from support.streams import ENCODERS, changed, cut, other_pixels, tissue

from glam_deploy.dicom.read import read_view
from glam_deploy.errors import InputError
from glam_deploy.records import Pixels, View

Write = Callable[..., Path]
LARGE = (256, 200)
UNSEEN = {
    "jpeg-lossless": (0.65, 0.47),
    "jpeg-lossless-p6": (0.70, 0.53),
    "jpeg-ls": (0.01, 0.005),
    "jpeg-2000": (0.06, 0.06),
    "htj2k": (0.88, 0.87),
}
"""Most of the changes, of one byte and of three, that decode to other pixels; docs/inputs.md has the measured share."""


@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("name", ENCODERS)
def test_no_cut_stream_is_read_with_other_pixels(name: str, bits: int) -> None:
    pixels = tissue(bits=bits)
    assert other_pixels(name, cut(ENCODERS[name](pixels, bits), 20), pixels) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_no_cut_stream_in_a_thousand_is_read_with_other_pixels(name: str) -> None:
    pixels = tissue(LARGE)
    assert other_pixels(name, cut(ENCODERS[name](pixels, 12), 1000, seed=3), pixels) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", UNSEEN)
def test_share_of_changed_streams_that_no_decoder_sees(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = tissue(LARGE)
    stream = ENCODERS[name](pixels, 12)
    for length, most in zip((1, 3), UNSEEN[name], strict=True):
        share = other_pixels(name, changed(stream, 1000, length=length), pixels) / 1000
        with capsys.disabled():
            print(f"\n{name}: {share:.1%} of 1000 changes of {length} bytes decode to other pixels")
        assert share <= most


def _read_otherwise(path: Path, head: bytes, damaged: Iterable[bytes], pixels: Pixels) -> int:
    """How many damaged data sets behind the head of a file are read with other pixels instead of being refused."""
    found = 0
    for data in damaged:
        path.write_bytes(head + data)
        try:
            found += not np.array_equal(read_view(path).pixels, pixels)
        except InputError:
            continue
    return found


@pytest.mark.slow
def test_share_of_changed_deflated_data_sets_that_nothing_shows(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """Deflated data sets have no checksum (PS3.5 A.5): most changes give other literals, and the same length."""
    pixels = tissue(LARGE)

    def edit(dataset: Dataset) -> None:
        dataset.Rows, dataset.Columns, dataset.PixelData = *LARGE, pixels.tobytes()

    path = write(edit, syntax=uid.DeflatedExplicitVRLittleEndian)
    content = path.read_bytes()
    head, data = content[: start_of(content)], content[start_of(content) :]
    assert _read_otherwise(path, head, cut(data, 1000, seed=3), pixels) == 0
    for length, most in ((1, 0.60), (3, 0.40)):
        share = _read_otherwise(path, head, changed(data, 1000, length=length), pixels) / 1000
        with capsys.disabled():
            print(f"\ndeflated: {share:.1%} of 1000 changes of {length} bytes are read with other pixels")
        assert share <= most


SYNTAXES = (
    uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian,
    uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless, uid.JPEGLosslessSV1,
)  # fmt: skip


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
def test_no_cut_file_is_read_with_other_pixels(write: Write, syntax: uid.UID) -> None:
    path = (
        transcode(write(), gdcm.TransferSyntax.JPEGLosslessProcess14_1)
        if syntax == uid.JPEGLosslessSV1
        else write(syntax=syntax)
    )
    content, rng = path.read_bytes(), np.random.default_rng(1)
    for place in [*range(len(content) - 16, len(content)), *rng.integers(0, len(content), 20)]:
        path.write_bytes(content[:place])
        try:
            np.testing.assert_array_equal(read_view(path).pixels, breast(View.L_CC))
        except InputError:
            continue
