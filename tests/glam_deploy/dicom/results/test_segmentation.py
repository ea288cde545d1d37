"""The pixels of SEG objects against the definition of a placement, and what else a display needs of them."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from support.placements import placements
from support.results import ALGORITHM, finding, identity, saliency

from glam_deploy.dicom.mammography import write_view
from glam_deploy.dicom.results.objects import save
from glam_deploy.dicom.results.segmentation import fractional_segmentation, segmentation
from glam_deploy.networks import GLAM, GLAM_CONCATENATION
from glam_deploy.records import NetworkInput, Placement, Source, View
from glam_deploy.runtime.result import Result

ROWS, COLUMNS = GLAM.input_shape


def stored(path: Path) -> np.ndarray:
    """The frames as their bits lie in the file (PS3.5 section 8.1.1): bool [frames, rows, columns]."""
    dataset = dcmread(path)
    count = int(dataset.NumberOfFrames) * dataset.Rows * dataset.Columns
    bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), count=count, bitorder="little")
    return bits.reshape(-1, dataset.Rows, dataset.Columns).astype(bool)


def test_masks_are_what_was_painted(source, tmp_path):
    save(segmentation(finding(source), ALGORITHM, identity(1)), tmp_path / "seg.dcm")
    masks = stored(tmp_path / "seg.dcm")
    np.testing.assert_array_equal(masks, saliency() > 0)
    np.testing.assert_array_equal(dcmread(tmp_path / "seg.dcm").pixel_array.astype(bool), masks)


@pytest.mark.parametrize("maps", [np.zeros((2, 96, 70), np.float32), np.ones((2, 96, 70), np.float32)])
def test_both_segments_are_there_even_where_empty_or_full(source, tmp_path, maps):
    save(segmentation(finding(source, saliency=maps), ALGORITHM, identity(1)), tmp_path / "seg.dcm")
    np.testing.assert_array_equal(stored(tmp_path / "seg.dcm"), maps > 0)


def test_it_says_which_segment_is_which_and_where_it_lies(source):
    seg, image = segmentation(finding(source), ALGORITHM, identity(1)), dcmread(source)
    assert [(s.SegmentNumber, s.SegmentLabel) for s in seg.SegmentSequence] == [(1, "benign"), (2, "malignant")]
    assert "above 0.4" in seg.SegmentSequence[1].SegmentDescription
    orientation = seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0].ImageOrientationPatient
    assert orientation == [1, 0, 0, 0, 1, 0] and "FrameOfReferenceUID" not in seg
    for frame, group in enumerate(seg.PerFrameFunctionalGroupsSequence, start=1):
        assert group.SegmentIdentificationSequence[0].ReferencedSegmentNumber == frame
        derived = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert derived.ReferencedSOPInstanceUID == image.SOPInstanceUID
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == image.SeriesInstanceUID


def test_a_fractional_one_holds_the_saliency_itself(source):
    maps = np.random.default_rng(1).random((2, 96, 70), np.float32)
    seg = fractional_segmentation(finding(source, saliency=maps), ALGORITHM, identity(2))
    assert (seg.SegmentationType, seg.MaximumFractionalValue) == ("FRACTIONAL", 255)
    assert np.abs(seg.pixel_array / 255 - maps).max() <= 0.5 / 255 + 1e-6


def by_definition(placement: Placement, network: np.ndarray) -> np.ndarray:
    """A map of the network frame on the source's grid, by the sentence that defines `Placement`."""
    top, bottom, left, right = placement.crop_window
    r, c = np.indices(placement.source_shape)
    in_crop = (r >= top) & (r < bottom) & (c >= left) & (c < right)
    if placement.half_turn:
        r, c = top + bottom - 1 - r, left + right - 1 - c
    row = r - top - placement.row_shift
    column = (right - 1 - c if placement.mirrored else c - left) - placement.column_shift
    seen = in_crop & (row >= 0) & (row < ROWS) & (column >= 0) & (column < COLUMNS)
    values = network[:, row.clip(0, ROWS - 1), column.clip(0, COLUMNS - 1)]
    return np.where(seen, values, 0)


def result(placement: Placement, seed: int, view: View) -> Result:
    """Noise for saliency, in the whole window and in a patch."""
    rng = np.random.default_rng(seed)
    return Result(
        network=GLAM_CONCATENATION,
        y_global=np.zeros(2, np.float32),
        y_scale=np.zeros((3, 2), np.float32),
        y_local=np.zeros(2, np.float32),
        y_fusion=None,
        attention=None,
        saliency_global=rng.random((2, 184, 120), np.float32),
        saliency_patches=rng.random((1, 2, 128, 128), np.float32),
        patch_locations=np.array([[16 * rng.integers(150), 16 * rng.integers(88)]]),
        input=NetworkInput(
            image=np.zeros((1, 1), np.float32), placement=placement, source=Source(name="", kind="dicom"), view=view
        ),
        notices=(),
        timings_ms={},
        provenance={},
    )


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(placement=placements(most=90), seed=st.integers(0, 999), view=st.sampled_from(list(View)))
def test_masks_lie_where_the_placement_says(tmp_path, placement, seed, view):
    path, answer = tmp_path / "image.dcm", result(placement, seed, view)
    write_view(path, np.zeros(placement.source_shape, np.uint16), view=view)
    found = finding(path, view=view, saliency=answer.source_maps())
    save(segmentation(found, ALGORITHM, identity(1)), tmp_path / "seg.dcm")
    thresholds = np.array([[[ALGORITHM.thresholds[name]]] for name in GLAM.classes], np.float32)
    expected = by_definition(placement, answer.saliency()) > thresholds
    np.testing.assert_array_equal(stored(tmp_path / "seg.dcm"), expected)
