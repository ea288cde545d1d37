"""One exam at the size of a real one, through the real network: what Orthanc shows is what `run` finds."""

from pathlib import Path

import numpy as np
import pytest
from pacs.appliance import Appliance
from pacs.conftest import dimse_target
from pacs.results import of_class, truth
from pacs.senders import dcmsend
from pydicom.uid import JPEG2000Lossless, SegmentationStorage
from support.orthanc import Orthanc, wait_for

from glam_deploy.dicom.mammography import Exam, write_view
from glam_deploy.records import View
from glam_export.demo.phantom import phantom_view

EXAM = Exam(seed="full size")


@pytest.mark.network
@pytest.mark.timeout(900)
def test_one_exam_at_full_size(pacs: Orthanc, golden_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "R-CC.dcm"
    pixels = phantom_view(0, View.R_CC, shape=(4096, 3328)).pixels
    write_view(file, pixels, view=View.R_CC, exam=EXAM, transfer_syntax=JPEG2000Lossless)
    maps = truth(golden_bundle, [file], tmp_path / "run")["R-CC"]
    thresholds = [_between(values) for values in maps]
    results = dict(zip(("threshold_benign", "threshold_malignant"), thresholds, strict=True))
    appliance = Appliance(
        folder=tmp_path / "appliance",
        bundle=golden_bundle,
        targets=[dimse_target(pacs)],
        dicom_port=pacs.glam_port,
        settings={"results": results, "worker": {"threads": 2}},
    )
    appliance.start()
    try:
        pacs.upload([file])
        dcmsend(appliance, [file])
        study = EXAM.uid("study")
        wait_for(lambda: len(pacs.instances(study)) == 5, "four results beside the image", patience_s=300)
    finally:
        appliance.stop()
    (segmentation,) = of_class(pacs.retrieve(study), SegmentationStorage)
    for mask, values, threshold in zip(segmentation.pixel_array, maps, thresholds, strict=True):
        np.testing.assert_array_equal(mask.astype(bool), values > threshold)


def _between(values: np.ndarray) -> float:
    """A threshold that no value is near, with some pixels above it: made-up weights know no 0.5."""
    distinct = np.unique(values)
    place = int(0.9 * len(distinct))
    return round(float(distinct[place - 1] + distinct[place]) / 2, 9)
