"""Result objects in DICOM of one image: Segmentation, and Measurement Report on this image alone. Needs highdicom."""

from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glam_deploy.archive.reader import DecodedView
from glam_deploy.dicom.received import is_identifier
from glam_deploy.dicom.results import THRESHOLD, objects
from glam_deploy.dicom.results.measurement_report import measurement_report
from glam_deploy.dicom.results.provenance import ResultProvenance, algorithm_of, view_number
from glam_deploy.dicom.results.records import Identity, Reference, ViewFinding, ViewOutcome
from glam_deploy.dicom.results.regions import summarize
from glam_deploy.dicom.results.segmentation import segmentation
from glam_deploy.dicom.results.source import read_source
from glam_deploy.dicom.uids import digest
from glam_deploy.reading import as_file
from glam_deploy.runtime.result import Result


@dataclass(frozen=True, kw_only=True)
class ObjectOrigin:
    """What decides the UIDs of the objects of a run, besides the image and the pipeline."""

    settings: str
    """Text of all settings that change results."""
    device_uid: str
    """Written into every object; no UID depends on it."""

    def provenance(self, result: Result) -> ResultProvenance:
        """The provenance of the objects made of `result`."""
        thresholds = dict.fromkeys(result.network.classes, THRESHOLD)
        algorithm = algorithm_of(result.provenance, result.network, thresholds=thresholds, device_uid=self.device_uid)
        return ResultProvenance(
            algorithm=algorithm, settings=digest("archive", self.settings, *map(str, thresholds.values()))
        )


def view_objects(
    kinds: Set[str], view: DecodedView, result: Result, instance: str, origin: ObjectOrigin
) -> dict[str, bytes]:
    """Kind -> DICOM file, of `kinds`: "seg", "sr". Empty if the image is not DICOM, or lacks a UID to refer to.

    `instance`: id of the image, which depends on its SOPInstanceUID and content. Raises DicomError if patient or study
    of the header are damaged.
    """
    if not view.header:
        return {}
    provenance = origin.provenance(result)
    with as_file(view.header) as path:
        source = read_source(path)
        image, study_uid = source.reference(), source.study_uid
        if not all(map(is_identifier, (image.sop_uid, image.series_uid, study_uid))):
            return {}
        key, number = provenance.view_key(image.sop_uid, instance), view_number(view.mammogram.view)

        def identify(kind: str, *of: str) -> Identity:
            return provenance.identity(kind, study_uid, digest(key, *of), number)

        made = _made(kinds, _finding(path, view, result), image, provenance, identify)
    return {kind: objects.encoded(dataset) for kind, dataset in made.items()}


def _finding(path: Path, view: DecodedView, result: Result) -> ViewFinding:
    return ViewFinding(
        source=path,
        view=view.mammogram.view,
        saliency=result.source_maps(),
        scores=result.predictions,
        boxes=result.patch_boxes_in_source,
        notices=result.notices,
    )


def _made(
    kinds: Set[str],
    finding: ViewFinding,
    image: Reference,
    provenance: ResultProvenance,
    identify: Callable[..., Identity],
) -> dict[str, Any]:
    """Kind -> data set."""
    made, algorithm, shown = dict[str, Any](), provenance.algorithm, None
    if "seg" in kinds:
        made["seg"] = segmentation(finding, algorithm, identify("seg"))
        shown = objects.reference(made["seg"])
    if "sr" in kinds:
        summary = summarize(finding, algorithm, segmentation=shown)
        outcome = ViewOutcome(
            source=finding.source, image=image, view=finding.view, outcome="done", reason=None, summary=summary
        )
        # a report that refers to a segmentation is another object than one without
        identity = identify("sr", *([shown.sop_uid] if shown else []))
        made["sr"] = measurement_report([outcome], algorithm, identity, exam=False)
    return made
