"""Pixels of the picture, and the strip above it."""

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import JPEGLSLossless
from support.lock import MANY, turns_during
from support.results import ALGORITHM, finding, identity, picture

from glam_deploy.dicom.results.objects import save
from glam_deploy.dicom.results.secondary_capture import BANNER_HEIGHT, secondary_capture, with_banner


def test_the_picture_is_kept_bit_for_bit_under_the_banner(source, tmp_path):
    made = secondary_capture(finding(source), picture(), ALGORITHM, identity(3))
    save(made, tmp_path / "sc.dcm")
    read = dcmread(tmp_path / "sc.dcm")
    assert read.file_meta.TransferSyntaxUID == JPEGLSLossless
    np.testing.assert_array_equal(read.pixel_array[BANNER_HEIGHT:], picture())
    assert (read.pixel_array[:BANNER_HEIGHT].astype(int).sum(axis=2) < 100).sum() > 200, "no text in the strip"


@pytest.mark.parametrize("seed", range(3))
def test_a_picture_that_cannot_be_compressed_is_kept_too(source, seed):
    noise = np.random.default_rng(seed).integers(0, 256, (400, 500, 3), np.uint8)
    made = secondary_capture(finding(source), noise, ALGORITHM, identity(3))
    np.testing.assert_array_equal(made.pixel_array[BANNER_HEIGHT:], noise)


@pytest.mark.parametrize("columns", [1, 40, 300, 1600])
def test_the_banner_fits_every_width(columns):
    strip = with_banner(np.zeros((2, columns, 3), np.uint8))[:BANNER_HEIGHT]
    dark = (strip.astype(int).sum(axis=2) < 100).any(axis=0)
    assert strip.shape == (BANNER_HEIGHT, columns, 3) and (columns < 40 or not (dark[0] or dark[-1]))


def test_it_shows_the_breast_of_its_source(source):
    made, image = secondary_capture(finding(source), picture(), ALGORITHM, identity(3)), dcmread(source)
    assert (made.ImageLaterality, made.PatientOrientation) == ("L", image.PatientOrientation)
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID
    assert (made.Modality, made.BurnedInAnnotation) == ("OT", "NO")


def test_python_goes_on_while_the_picture_is_compressed(source):
    noise = np.random.default_rng(0).integers(0, 256, (3000, 2500, 3), np.uint8)
    found = finding(source)
    assert turns_during(lambda: secondary_capture(found, noise, ALGORITHM, identity(3))) > MANY
