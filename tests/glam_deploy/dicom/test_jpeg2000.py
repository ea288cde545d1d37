"""The decoder of JPEG 2000, beside pylibjpeg's, which is another build of the same library."""

import numpy as np
import pytest
from openjpeg import utils as openjpeg
from support_lock import MANY, turns_during

from glam_deploy.dicom.jpeg2000 import decode


def noise(bits: int, shape: tuple[int, int] = (512, 384)) -> np.ndarray:
    return np.random.default_rng(bits).integers(0, 1 << bits, shape).astype(np.uint8 if bits == 8 else np.uint16)


def encoded(pixels: np.ndarray, bits: int, **options: object) -> bytes:
    return bytes(openjpeg.encode_array(pixels, bits_stored=bits, **options))


@pytest.mark.parametrize("bits", [8, 9, 10, 12, 14, 16])
def test_lossless_gives_back_every_bit(bits: int) -> None:
    pixels = noise(bits)
    found = decode(encoded(pixels, bits))
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, pixels)


def test_lossy_is_as_pylibjpeg_has_it() -> None:
    stream = encoded(np.sort(noise(12)), 12, signal_noise_ratios=[50])
    np.testing.assert_array_equal(decode(stream), openjpeg.decode(stream))
    assert (decode(stream) != np.sort(noise(12))).any()


@pytest.mark.parametrize("lost", [1, 2, 50, 10_000])
def test_a_stream_that_ends_early_is_refused_without_a_word(lost: int, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="refuses"):
        decode(encoded(noise(12), 12)[:-lost])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "stream", [b"", b"\xff\x4f\xff", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", encoded(noise(12), 12)[4:]]
)
def test_another_kind_of_stream_is_refused(stream: bytes) -> None:
    with pytest.raises(ValueError, match="no codestream"):
        decode(stream)


def test_signed_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="refuses"):
        decode(encoded(noise(12).astype(np.int16), 13))


def test_python_goes_on_meanwhile() -> None:
    stream = encoded(noise(16, (1024, 1024)), 16)
    assert turns_during(lambda: decode(stream)) > MANY
