"""Phantom exams: what a detector delivers, and truths that can be seen in the pixels."""

import cv2
import numpy as np
import pytest

from glam_deploy.errors import UsageError
from glam_deploy.records import View
from glam_export.demo.anatomy import power_law_noise
from glam_export.demo.phantom import LABEL, PhantomView, phantom_exam

SMALL = (832, 640)


@pytest.fixture(scope="module")
def exams() -> list[list[PhantomView]]:
    return [phantom_exam(seed, shape=SMALL) for seed in range(4)]


def test_an_exam_has_the_four_views_as_a_detector_delivers_them(exams):
    for exam in exams:
        assert [v.view for v in exam] == list(View)
        for v in exam:
            assert v.pixels.dtype == np.uint16 and v.pixels.shape == SMALL and v.pixels.max() < 2**12
            assert v.mask.dtype == np.uint8 and v.mask.shape == SMALL


def test_background_is_exactly_zero_and_the_breast_never_is(exams):
    for v in (v for exam in exams for v in exam):
        _, labels, stats, _ = cv2.connectedComponentsWithStats((v.pixels > 0).astype(np.uint8))
        breast = (labels == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))).astype(np.uint8)
        outline, _ = cv2.findContours(breast, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        assert len(outline) == 1
        assert np.array_equal(cv2.drawContours(np.zeros_like(breast), outline, -1, 1, cv2.FILLED), breast)


def test_left_views_lie_on_the_left_edge(exams):
    for v in (v for exam in exams for v in exam):
        left, right = (v.pixels[:, c] > 0 for c in (0, -1))
        assert (right if v.view.is_right else left).sum() > SMALL[0] // 2
        assert not (left if v.view.is_right else right).any()


def test_the_label_does_not_touch_the_breast(exams):
    for v in (v for exam in exams for v in exam):
        _, labels, stats, _ = cv2.connectedComponentsWithStats((v.pixels > 0).astype(np.uint8))
        breast = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
        apart = v.pixels[(labels > 0) & (labels != breast)]
        assert apart.size > 50 and (apart == LABEL).all()


def test_mask_and_lesions_agree(exams):
    for v in (v for exam in exams for v in exam):
        assert set(np.unique(v.mask)) - {0} == {("benign", "malignant").index(x.label) + 1 for x in v.lesions}
        for lesion in v.lesions:
            rows, columns = np.nonzero(v.mask)
            assert abs(rows.mean() - lesion.row) < 0.4 * lesion.radius_px
            assert abs(columns.mean() - lesion.column) < 0.4 * lesion.radius_px
            assert 0.3 < v.mask.astype(bool).sum() / (np.pi * lesion.radius_px**2) < 1.4


def test_both_views_of_a_breast_hold_the_same_kind_of_lesion(exams):
    for left_cc, right_cc, left_mlo, right_mlo in exams:
        for cc, mlo in ((left_cc, left_mlo), (right_cc, right_mlo)):
            assert [(x.label, x.radius_px) for x in cc.lesions] == [(x.label, x.radius_px) for x in mlo.lesions]
    assert {x.label for exam in exams for v in exam for x in v.lesions} == {"benign", "malignant"}
    assert any(not v.lesions for exam in exams for v in exam)


def test_masses_are_brighter_than_their_surroundings(exams):
    for v in (exams[0][0], exams[0][1]):
        inside = v.mask > 0
        ring = (cv2.dilate(v.mask, np.ones((41, 41), np.uint8)) > 0) & ~(cv2.dilate(v.mask, np.ones((9, 9))) > 0)
        assert np.median(v.pixels[inside]) > 1.2 * np.median(v.pixels[ring])


def test_a_seed_gives_the_same_exam_and_another_seed_another(exams):
    again = phantom_exam(1, shape=SMALL)
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(exams[1], again, strict=True))
    assert not any(np.array_equal(a.pixels, b.pixels) for a, b in zip(exams[1], exams[2], strict=True))


@pytest.mark.parametrize(("seed", "shape"), [(-1, SMALL), (0, (415, 900)), (0, (900, 100))])
def test_unusable_arguments_are_refused(seed, shape):
    with pytest.raises(UsageError, match="seed >= 0 and sides >= 416"):
        phantom_exam(seed, shape=shape)


def test_texture_power_falls_with_the_cube_of_frequency():
    noise = power_law_noise(np.random.default_rng(0), (1024, 1024), 3.0)
    power = np.abs(np.fft.fft2(noise)) ** 2
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(1024), np.fft.fftfreq(1024)))
    low, high = ((f > a) & (f < 1.1 * a) for a in (0.01, 0.08))
    slope = np.log(power[low].mean() / power[high].mean()) / np.log(8)
    # linear enlargement to full size takes a little off the high end
    assert slope == pytest.approx(3, abs=0.3)
