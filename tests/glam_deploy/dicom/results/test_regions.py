"""Regions against what can be counted, and outlines against every pixel that they enclose."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mammograms import write_mg
from scipy import ndimage
from support.results import ALGORITHM, finding, saliency

from glam_deploy.dicom.results.records import Reference, ViewSummary
from glam_deploy.dicom.results.regions import MOST, MOST_POINTS, outline, pieces_of, summarize
from glam_deploy.json_records import from_json, to_json
from glam_deploy.networks import GLAM
from glam_deploy.outputs.panel import COLOURS
from glam_deploy.preprocess import SourceMaps

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))
EIGHT = np.ones((3, 3))


def test_regions_are_what_was_painted(source):
    summary = summarize(finding(source), ALGORITHM, segmentation=None)
    square, bar, lesion = summary.regions
    assert [(r.label, r.pixels, r.box) for r in summary.regions] == [
        ("benign", 100, (10, 5, 20, 15)),
        ("benign", 2, (30, 8, 32, 9)),
        ("malignant", 54, (12, 6, 30, 9)),
    ]
    assert set(square.outline) == {(10, 5), (10, 15), (20, 5), (20, 15)} and square.outline[0] == square.outline[-1]
    assert (square.centre, square.peak, square.peak_at) == ((15, 10), 0.75, (10.5, 5.5))
    assert (lesion.centre, lesion.peak, lesion.peak_at) == ((21, 7.5), 0.9375, (20.5, 8.5))
    assert bar.area_mm2 == pytest.approx(2 * 0.07 * 0.07)
    assert summary.spacing_mm == (0.07, 0.07) and summary.regions_left_out == 0


@pytest.mark.parametrize("spacing", [None, [0.07, 0], [float("nan"), 1]])
def test_without_a_sound_spacing_there_is_no_area(tmp_path, spacing):
    path = write_mg(tmp_path / "image.dcm", lambda dataset: setattr(dataset, "ImagerPixelSpacing", spacing))
    summary = summarize(finding(path), ALGORITHM, segmentation=None)
    assert summary.spacing_mm is None and {region.area_mm2 for region in summary.regions} == {None}


def test_what_equals_the_threshold_is_not_above_it():
    maps = saliency()
    maps[0, 0, 0], maps[1, 0, 0] = 0.5, np.float32(0.4)
    masks = SourceMaps.of(maps).above([ALGORITHM.thresholds[name] for name in GLAM.classes])
    assert not masks[:, 0, 0].any() and masks.sum(axis=(1, 2)).tolist() == [102, 54]


@given(mask=MASKS)
@settings(max_examples=100)
def test_pieces_are_those_of_another_library(mask):
    values = np.where(mask, np.linspace(0.6, 1, mask.size).reshape(mask.shape), 0.1).astype(np.float32)
    pieces = pieces_of(SourceMaps.of(np.stack([values, values])), 1, "malignant", 0.5)
    labels, count = ndimage.label(mask, EIGHT)
    regions = [pieces.region(n, None) for n in pieces.by_peak()]
    assert len(regions) == count
    for region in regions:
        row, column = (int(place) for place in region.peak_at)
        piece = labels == labels[row, column]
        assert region.pixels == piece.sum() and region.peak == values[piece].max()
        assert np.allclose(region.centre, np.argwhere(piece).mean(axis=0) + 0.5)
    assert [region.peak for region in regions] == sorted((region.peak for region in regions), reverse=True)


@given(mask=MASKS)
@settings(max_examples=100)
def test_an_outline_encloses_its_pixels_and_their_holes_and_nothing_else(mask):
    labels, count = ndimage.label(mask, EIGHT)
    for n in range(1, count + 1):
        filled = ndimage.binary_fill_holes(labels == n)  # a hole that only a corner joins to the outside is one too
        found = outline(labels == n, 100, 200)
        assert found[0] == found[-1] and all(isinstance(value, float) for point in found for value in point)
        polygon = np.array([(column - 200, row - 100) for row, column in found], np.float32)
        inside = [
            [cv2.pointPolygonTest(polygon, (c + 0.5, r + 0.5), False) > 0 for c in range(mask.shape[1])]
            for r in range(mask.shape[0])
        ]
        np.testing.assert_array_equal(inside, filled)


def test_a_long_outline_is_thinned_and_stays_near():
    comb = np.zeros((200, 4000), bool)
    comb[100:] = comb[:, ::2] = True
    found = outline(comb, 0, 0)
    assert 4 <= len(found) <= MOST_POINTS
    rows, columns = np.array(found).T
    assert rows.max() == 200 and columns.min() <= 4 and columns.max() >= 3996


def test_only_the_highest_peaks_are_told(source):
    maps = np.zeros((2, 96, 70), np.float32)
    maps[0, ::2, ::2] = np.linspace(0.6, 0.9, 48 * 35).reshape(48, 35)
    summary = summarize(finding(source, saliency=maps), ALGORITHM, segmentation=None)
    assert len(summary.regions) == MOST and summary.regions_left_out == 48 * 35 - MOST
    assert summary.regions[0].peak_at == (94.5, 68.5)


def test_a_summary_survives_json(source):
    segmentation = Reference(sop_class="1.2", sop_uid="1.3", series_uid="1.4")
    summary = summarize(finding(source), ALGORITHM, segmentation=segmentation)
    assert from_json(ViewSummary, json.loads(json.dumps(to_json(summary)))) == summary
    bare = summarize(finding(source, saliency=np.zeros((2, 96, 70), np.float32)), ALGORITHM, segmentation=None)
    assert from_json(ViewSummary, json.loads(json.dumps(to_json(bare)))) == bare


def test_colours_are_those_of_the_picture():
    from glam_deploy.dicom.results import records

    assert records.COLOURS == COLOURS
