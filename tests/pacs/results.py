"""What lies in a study in the PACS, told apart: images as sent, and the results about them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    DigitalMammographyXRayImageStorageForPresentation,
    MammographyCADSRStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from glam_deploy.cli.main import exit_code

REPORTS = (MammographyCADSRStorage, ComprehensiveSRStorage)
OF_A_VIEW = (SegmentationStorage, SecondaryCaptureImageStorage)


def of_class(objects: Iterable[Dataset], sop_class: str) -> list[Dataset]:
    return [each for each in objects if each.SOPClassUID == sop_class]


def mammograms(objects: Iterable[Dataset]) -> list[Dataset]:
    return of_class(objects, DigitalMammographyXRayImageStorageForPresentation)


def counts(objects: Iterable[Dataset]) -> Mapping[str, int]:
    """By SOP class."""
    return Counter(str(each.SOPClassUID) for each in objects)


def sources(objects: Iterable[Dataset], sop_class: str) -> list[str]:
    """The SOP Instance UIDs of the images that objects of this class were made from, sorted."""
    return sorted(_source(each) for each in of_class(objects, sop_class))


def current(objects: Iterable[Dataset], sop_class: str) -> Dataset:
    """The one report that no other one replaces."""
    reports = of_class(objects, sop_class)
    replaced = {uid for each in reports for uid in _uids(each.get("PredecessorDocumentsSequence", ()))}
    (head,) = [each for each in reports if each.SOPInstanceUID not in replaced]
    return head


def evidence(report: Dataset) -> set[str]:
    """SOP Instance UIDs of all that a report says it was made from."""
    items = [
        *report.get("CurrentRequestedProcedureEvidenceSequence", ()),
        *report.get("PertinentOtherEvidenceSequence", ()),
    ]
    return set(_uids(items))


def text_of(report: Dataset) -> str:
    """Every text and code meaning of a structured report."""
    words = [str(each.value) for each in report.iterall() if each.keyword in ("TextValue", "CodeMeaning")]
    return "\n".join(words)


def truth(bundle: Path, files: Iterable[Path], out: Path) -> dict[str, np.ndarray]:
    """File name's stem -> float32 [2, rows, columns], as `glam-deploy run --full` finds it."""
    arguments = ["run", "--full", "--no-picture", "--engine", "onnx", "--bundle", bundle, "--out", out, *files]
    assert exit_code([str(word) for word in arguments]) == 0
    return {path.stem: np.load(path)["saliency_source"] for path in sorted(out.glob("*.npz"))}


def _source(result: Dataset) -> str:
    (series,) = result.ReferencedSeriesSequence if "ReferencedSeriesSequence" in result else [result]
    items = series.get("ReferencedInstanceSequence") or result.SourceImageSequence
    (item,) = items
    return str(item.ReferencedSOPInstanceUID)


def _uids(studies: Iterable[Dataset]) -> list[str]:
    return [
        str(item.ReferencedSOPInstanceUID)
        for study in studies
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    ]
