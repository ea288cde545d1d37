"""A small study with findings, for tests of the result objects; every number is chosen so that truth is on paper."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from mammograms import write_mg
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from glam_deploy.dicom.results.objects import reference
from glam_deploy.dicom.results.records import Algorithm, Identity, Reference, ViewFinding, ViewOutcome
from glam_deploy.dicom.results.regions import summarize
from glam_deploy.networks import GLAM
from glam_deploy.preprocess import SourceMaps
from glam_deploy.records import Notice, View

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SHAPE = (96, 70)
"""Of `mammograms.breast`."""

ALGORITHM = Algorithm(
    network=GLAM,
    version="1.2.3",
    checkpoint_sha256="a1" * 32,
    bundle_id="b2" * 8,
    engine="openvino fp32",
    engine_digest="c3" * 32,
    gate="gate 2026-01-01 d4d4",
    preprocessing="glam 1",
    thresholds={"benign": 0.5, "malignant": 0.4},
    device_uid="2.25.123456789",
)


def identity(number: int) -> Identity:
    """Object `number` of the tests."""
    return Identity(
        sop_uid=f"2.25.1000{number}", series_uid=f"2.25.2000{number}", series_number=900 + number, created=CREATED
    )


def saliency() -> np.ndarray:
    """Benign: a square of 100 pixels and a bar of 2; malignant: a bar of 54 pixels that overlaps the square."""
    maps = np.zeros((2, *SHAPE), np.float32)
    maps[0, 10:20, 5:15], maps[0, 30:32, 8] = 0.75, 0.5625
    maps[1, 12:30, 6:9], maps[1, 20, 8] = 0.875, 0.9375
    return maps


def picture() -> np.ndarray:
    """Noise in the place of an overlay."""
    return np.random.default_rng(3).integers(0, 256, (301, 421, 3), np.uint8)


def finding(source: Path, **changes: Any) -> ViewFinding:
    """What was found in the mammogram `source`."""
    values: dict[str, Any] = {
        "source": source,
        "view": View.L_CC,
        "saliency": saliency(),
        "scores": {"y_global": {"benign": 0.25, "malignant": 0.75}, "y_local": {"benign": 0.125, "malignant": 0.5}},
        "boxes": [(0, 0, 50, 50), None],
        "notices": [Notice(code="label", message="A film label was left out.")],
    }
    values |= changes
    if isinstance(values["saliency"], np.ndarray):
        values["saliency"] = SourceMaps.of(values["saliency"])
    return ViewFinding(**values)


def image_reference(path: Path) -> Reference:
    return reference(dcmread(path, stop_before_pixels=True))


def done(path: Path, algorithm: Algorithm = ALGORITHM, **changes: Any) -> ViewOutcome:
    """The outcome of `finding(path)`, with a segmentation in name."""
    found = finding(path, **changes)
    of_seg = identity(10 + list(View).index(found.view))
    seg = Reference(sop_class=SegmentationStorage, sop_uid=of_seg.sop_uid, series_uid=of_seg.series_uid)
    summary = summarize(found, algorithm, segmentation=seg)
    return ViewOutcome(
        source=path, image=image_reference(path), view=found.view, outcome="done", reason=None, summary=summary
    )


def not_done(path: Path, outcome: str, reason: str, view: View | None) -> ViewOutcome:
    image = image_reference(path)
    return ViewOutcome(source=path, image=image, view=view, outcome=outcome, reason=reason, summary=None)  # type: ignore[arg-type]


def study(
    folder: Path, edit: Callable[[Dataset], object] = lambda _: None, algorithm: Algorithm = ALGORITHM, **changes: Any
) -> list[ViewOutcome]:
    """One view done, one with no region, one failed, one skipped."""
    paths = {view: write_mg(folder / f"{view}.dcm", edit, view=view) for view in View}
    quiet = np.zeros((2, *SHAPE), np.float32)
    return [
        done(paths[View.L_CC], algorithm, **changes),
        done(paths[View.R_CC], algorithm, **changes | {"view": View.R_CC, "saliency": quiet}),
        not_done(paths[View.L_MLO], "failed", "the pixels are damaged: export again", View.L_MLO),
        not_done(paths[View.R_MLO], "skipped", "the view is a magnification", None),
    ]
