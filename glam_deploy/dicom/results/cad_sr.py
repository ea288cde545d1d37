"""Outcomes of all views of a study -> Mammography CAD SR (PS3.16 TID 4000), for mammography workstations."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

from pydicom.dataset import Dataset
from pydicom.uid import MammographyCADSRStorage

from glam_deploy.dicom.results import sr
from glam_deploy.dicom.results.objects import (
    SPACING_NOTE,
    exam_texts,
    facts,
    kept_encoded,
    notice_texts,
    outcome_text,
    statement,
    triage_of,
)
from glam_deploy.dicom.results.records import BANNER, Algorithm, Identity, Reference, Region, ViewOutcome
from glam_deploy.dicom.results.source import read_source
from glam_deploy.dicom.terms import CC, MLO
from glam_deploy.errors import DicomError

SELECTED_REGION: sr.Name = ("111099", "DCM", "Selected region")
DENSITY: sr.Name = ("129793001", "SCT", "Mammography breast density")
FINDING: sr.Name = ("111059", "DCM", "Single Image Finding")
INTENT: sr.Name = ("111056", "DCM", "Rendering Intent")
SHOWN: sr.Name = ("111150", "DCM", "Presentation Required: Rendering device is expected to present")
OPTIONAL: sr.Name = ("111151", "DCM", "Presentation Optional: Rendering device may present")
LEFT_BREAST: sr.Name = ("80248007", "SCT", "Left breast")
RIGHT_BREAST: sr.Name = ("73056007", "SCT", "Right breast")
"""Codes of CID 6022, which does not contain Left and Right."""

_LIBRARY = (1, 2)
"""Position of the image library in the content tree: second child of the root."""


def cad_sr(
    outcomes: Sequence[ViewOutcome],
    algorithm: Algorithm,
    identity: Identity,
    *,
    predecessor: Reference | None = None,
    probability: bool = False,
) -> Dataset:
    """One report on all mammograms of a study, including those that could not be processed.

    `outcomes`: at least one. A region is a Selected Region (DCM 111099) with its scores as text, because the network
    does not distinguish masses from calcifications; presentation is required for malignant regions, optional for benign
    ones. With `probability`, malignant regions are Mammography Breast Density (SCT 129793001) instead, with the peak as
    Probability of cancer (DCM 111047, percent): more workstations show these, but the peak is not a calibrated
    probability. `predecessor` is the CAD SR that this one replaces. Raises UsageError without outcomes, DicomError if
    no source can be read.
    """
    findings = [
        _impression(region, place, algorithm, probability=probability)
        for place, outcome in enumerate(outcomes, start=1)
        for region in (outcome.summary.regions if outcome.summary else ())
    ]
    root = sr.container(
        ("111036", "DCM", "Mammography CAD Report"),
        sr.modifier(sr.code(*sr.ENGLISH)),
        sr.contains(sr.container(("111028", "DCM", "Image Library"), *map(_entry, outcomes))),
        sr.contains(_overall(outcomes, algorithm, findings)),
        sr.contains(_detections(outcomes, algorithm)),
        sr.contains(sr.code(("111065", "DCM", "Summary of Analyses"), ("111225", "DCM", "Not Attempted"))),
        template="4000",
    )
    return sr.report(
        root,
        outcomes,
        algorithm,
        identity,
        sop_class=MammographyCADSRStorage,
        title=f"{algorithm.network.title} CAD",
        predecessor=predecessor,
    )


def _entry(outcome: ViewOutcome) -> Dataset:
    """TID 4020: an image of the library."""
    known = [*_view_items(outcome), *_geometry_items(outcome)]
    return sr.contains(sr.image(outcome.image, *map(sr.acquisition, known)))


def _view_items(outcome: ViewOutcome) -> Iterator[Dataset]:
    if outcome.view:
        term = MLO if outcome.view.is_mlo else CC
        yield sr.code(("111027", "DCM", "Image Laterality"), RIGHT_BREAST if outcome.view.is_right else LEFT_BREAST)
        yield sr.code(("111031", "DCM", "Image View"), (term.sct, "SCT", term.meaning))


def _geometry_items(outcome: ViewOutcome) -> Iterator[Dataset]:
    try:
        header = read_source(outcome.source).header
    except DicomError:
        return
    if len(header.patient_orientation) == 2:
        yield sr.text(("111044", "DCM", "Patient Orientation Row"), header.patient_orientation[0])
        yield sr.text(("111043", "DCM", "Patient Orientation Column"), header.patient_orientation[1])
    if outcome.summary and outcome.summary.spacing_mm:
        vertical, horizontal = outcome.summary.spacing_mm
        yield sr.number(("111026", "DCM", "Horizontal Pixel Spacing"), horizontal, sr.MM)
        yield sr.number(("111066", "DCM", "Vertical Pixel Spacing"), vertical, sr.MM)


def _overall(outcomes: Sequence[ViewOutcome], algorithm: Algorithm, findings: Sequence[Dataset]) -> Dataset:
    """TID 4001: overall result; the outcome of each view and the exam-level scores as text."""
    lines = [statement(algorithm), SPACING_NOTE]
    for outcome in outcomes:
        lines += [outcome_text(outcome), *notice_texts(outcome)]
    lines += exam_texts(outcomes)
    # no template has a place for a flag of a site, so that it is text
    lines += [f"{flag}." for flag in (triage_of(outcomes, algorithm),) if flag]
    return sr.code(
        ("111017", "DCM", "CAD Processing and Findings Summary"),
        _summary(outcomes, found=bool(findings)),
        sr.properties(sr.text(("111033", "DCM", "Impression Description"), "\r\n".join(lines))),
        *_identification(algorithm),
        *_parameters(algorithm),
        *map(sr.inferred_from, findings),
    )


def _summary(outcomes: Sequence[ViewOutcome], *, found: bool) -> sr.Name:
    """CID 6047: overall result; `found`: whether there are findings."""
    kinds = {outcome.outcome for outcome in outcomes}
    if "done" not in kinds:
        return ("111245", "DCM", "No algorithms succeeded; without findings")
    how_many, first = ("Not all", 111243) if "failed" in kinds else ("All", 111241)
    return str(first + found), "DCM", f"{how_many} algorithms succeeded; with{'' if found else 'out'} findings"


def _impression(region: Region, place: int, algorithm: Algorithm, *, probability: bool) -> Dataset:
    """TID 4003 with one finding."""
    intent = _intent(region.label)
    finding = _finding(region, place, algorithm, probability=probability and region.label == "malignant")
    return sr.container(("111034", "DCM", "Individual Impression/Recommendation"), intent, sr.contains(finding))


def _finding(region: Region, place: int, algorithm: Algorithm, *, probability: bool) -> Dataset:
    """TID 4006, with TID 4021 for its geometry; `place`: number of the image in the library, from 1."""
    image = _image(place)
    assessment = (
        sr.number(("111047", "DCM", "Probability of cancer"), 100 * region.peak, sr.PERCENT)
        if probability
        else sr.text(("111058", "DCM", "Selected Region Description"), _description(region))
    )
    return sr.code(
        FINDING,
        DENSITY if probability else SELECTED_REGION,
        _intent(region.label),
        *_identification(algorithm),
        *([sr.properties(assessment)] if probability else []),
        sr.properties(sr.coordinates(("111010", "DCM", "Center"), "POINT", [region.centre], image)),
        sr.properties(sr.coordinates(("111041", "DCM", "Outline"), "POLYLINE", region.outline, image)),
        *([] if probability else [sr.properties(assessment)]),
    )


@lru_cache
def _intent(label: str) -> Dataset:
    """Rendering Intent: presentation is required for malignant regions only, because marks do not show the class."""
    return kept_encoded(sr.modifier(sr.code(INTENT, SHOWN if label == "malignant" else OPTIONAL)))


@lru_cache
def _image(place: int) -> Dataset:
    """The image of a region, by its number in the library."""
    return kept_encoded(sr.selected_from(sr.by_reference(*_LIBRARY, place)))


def _description(region: Region) -> str:
    area = "" if region.area_mm2 is None else f", {region.area_mm2:.1f} mm2"
    return f"{region.label} saliency up to {region.peak:.3f}{area}. {BANNER}."


@lru_cache
def _identification(algorithm: Algorithm) -> Sequence[Dataset]:
    """TID 4019: name and version of the algorithm."""
    texts = {sr.ALGORITHM_NAME: algorithm.name, sr.ALGORITHM_VERSION: algorithm.version}
    return [kept_encoded(sr.properties(sr.text(name, value))) for name, value in texts.items()]


def _parameters(algorithm: Algorithm) -> Iterator[Dataset]:
    """TID 4019: parameters of the algorithm, only in the summary, because the whole report has one algorithm."""
    for name, value in facts(algorithm).items():
        yield sr.properties(sr.text(sr.ALGORITHM_PARAMETERS, f"{name}: {value}"))


def _detections(outcomes: Sequence[ViewOutcome], algorithm: Algorithm) -> Dataset:
    """TID 4015 and 4017: images on which detection succeeded, and images on which it failed."""
    done = [n for n, outcome in enumerate(outcomes, start=1) if outcome.outcome == "done"]
    failed = [n for n, outcome in enumerate(outcomes, start=1) if outcome.outcome == "failed"]
    groups = {("111063", "DCM", "Successful Detections"): done, ("111025", "DCM", "Failed Detections"): failed}
    performed = [
        sr.inferred_from(sr.container(name, sr.contains(_detection(places, algorithm))))
        for name, places in groups.items()
        if places
    ]
    return sr.code(("111064", "DCM", "Summary of Detections"), _status(bool(done), bool(failed)), *performed)


def _detection(places: Sequence[int], algorithm: Algorithm) -> Dataset:
    images = [sr.properties(sr.by_reference(*_LIBRARY, place)) for place in places]
    return sr.code(("111022", "DCM", "Detection Performed"), SELECTED_REGION, *_identification(algorithm), *images)


def _status(done: bool, failed: bool) -> sr.Name:
    """CID 6042."""
    value, meaning = {
        (True, False): ("111222", "Succeeded"),
        (True, True): ("111223", "Partially Succeeded"),
        (False, True): ("111224", "Failed"),
        (False, False): ("111225", "Not Attempted"),
    }[done, failed]
    return value, "DCM", meaning
