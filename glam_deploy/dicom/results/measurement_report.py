"""Outcomes of all views of a study -> Comprehensive SR, Measurement Report (PS3.16 TID 1500), for programs."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage

from glam_deploy.dicom.results import sr
from glam_deploy.dicom.results.objects import (
    MANUFACTURER,
    SPACING_NOTE,
    exam_texts,
    kept_encoded,
    notice_texts,
    outcome_text,
    own_uid,
    statement,
    triage_of,
)
from glam_deploy.dicom.results.records import Algorithm, Identity, Reference, Region, ViewOutcome
from glam_deploy.records import View

PRIVATE = "99GLAM"
"""Coding scheme designator of private codes, for scores that are not probabilities."""

TITLE: sr.Name = ("126000", "DCM", "Imaging Measurement Report")
GROUP: sr.Name = ("125007", "DCM", "Measurement Group")
PROCEDURE: sr.Name = ("363679005", "SCT", "Imaging procedure")
"""Most similar code of CID 100, which does not contain mammography."""
COMMENT: sr.Name = ("121106", "DCM", "Comment")
LESION: sr.Name = ("52988006", "SCT", "Lesion")
BREAST: sr.Name = ("76752008", "SCT", "Breast")
CLASS: sr.Name = ("class", PRIVATE, "Class of the saliency map")
PEAK: sr.Name = ("peak_saliency", PRIVATE, "Peak saliency")
TRIAGE: sr.Name = ("triage_flag", PRIVATE, "Triage flag of this site")
TRIAGE_SET: sr.Name = ("triage_set", PRIVATE, "Set")
TRIAGE_NOT_SET: sr.Name = ("triage_not_set", PRIVATE, "Not set, which is no negative result")
AREA: sr.Name = ("42798000", "SCT", "Area")
NO_UNIT = ("1", "no units")
SQUARE_MM = ("mm2", "square millimeter")


def measurement_report(
    outcomes: Sequence[ViewOutcome],
    algorithm: Algorithm,
    identity: Identity,
    *,
    predecessor: Reference | None = None,
    exam: bool = True,
) -> Dataset:
    """One report on mammograms of a study: scores, regions with outlines, and reasons for missing results.

    `exam`: whether `outcomes` are all mammograms of the study; only then there are exam-level scores. Other arguments
    and errors as for `cad_sr.cad_sr`.
    """
    root = sr.container(
        TITLE,
        sr.modifier(sr.code(*sr.ENGLISH)),
        *_observer(algorithm),
        sr.modifier(sr.code(("121058", "DCM", "Procedure reported"), PROCEDURE)),
        sr.contains(_library(outcomes)),
        sr.contains(sr.container(("126010", "DCM", "Imaging Measurements"), *_groups(outcomes, algorithm, identity))),
        sr.contains(
            sr.container(("C0034375", "UMLS", "Qualitative Evaluations"), *_remarks(outcomes, algorithm, exam))
        ),
        template="1500",
    )
    root.CodingSchemeIdentificationSequence = [_own_codes()]
    return sr.report(
        root,
        outcomes,
        algorithm,
        identity,
        sop_class=ComprehensiveSRStorage,
        title=f"{algorithm.network.title} measurements",
        predecessor=predecessor,
    )


def _observer(algorithm: Algorithm) -> Iterator[Dataset]:
    """TID 1002 and 1004: the observer is a device."""
    yield sr.context(sr.code(("121005", "DCM", "Observer Type"), ("121007", "DCM", "Device")))
    yield sr.context(sr.uid_reference(("121012", "DCM", "Device Observer UID"), algorithm.device_uid))
    named = {
        ("121013", "DCM", "Device Observer Name"): algorithm.name,
        ("121014", "DCM", "Device Observer Manufacturer"): MANUFACTURER,
        ("121015", "DCM", "Device Observer Model Name"): algorithm.network.title,
        ("121016", "DCM", "Device Observer Serial Number"): algorithm.device_uid,
    }
    yield from (sr.context(sr.text(name, value)) for name, value in named.items())


def _library(outcomes: Sequence[ViewOutcome]) -> Dataset:
    """TID 1600: image library."""
    entries = [sr.contains(sr.image(outcome.image)) for outcome in outcomes]
    group = sr.container(("126200", "DCM", "Image Library Group"), *entries)
    return sr.container(("111028", "DCM", "Image Library"), sr.contains(group))


def _groups(outcomes: Sequence[ViewOutcome], algorithm: Algorithm, identity: Identity) -> Iterator[Dataset]:
    for outcome in outcomes:
        tracked = f"{outcome.view or 'view not known'} {outcome.image.sop_uid}"
        for name, group, template in _groups_of(outcome, algorithm.network.classes):
            heading = _heading(f"{tracked}{name}", algorithm, identity)
            yield sr.contains(sr.container(GROUP, *heading, *group, template=template))


def _groups_of(outcome: ViewOutcome, classes: Sequence[str]) -> Iterator[tuple[str, list[Dataset], str]]:
    """Name, content and template of each measurement group of a view."""
    yield "", _whole_image(outcome), "1501"
    if summary := outcome.summary:
        for number, label in enumerate(classes, start=1):
            if summary.segmentation and any(region.label == label for region in summary.regions):
                yield f" {label}", _segment(outcome, summary.segmentation, number, label), "1410"
        for n, region in enumerate(summary.regions, start=1):
            yield f" region {n}", _region(outcome, region), "1410"


def _heading(tracking: str, algorithm: Algorithm, identity: Identity) -> Iterator[Dataset]:
    """First items of every group: tracking identifiers and algorithm (TID 4019)."""
    yield sr.context(sr.text(("112039", "DCM", "Tracking Identifier"), tracking))
    uid = own_uid(identity, tracking)
    yield sr.context(sr.uid_reference(("112040", "DCM", "Tracking Unique Identifier"), uid))
    yield from _identification(algorithm)


@lru_cache
def _identification(algorithm: Algorithm) -> Sequence[Dataset]:
    texts = {sr.ALGORITHM_NAME: algorithm.name, sr.ALGORITHM_VERSION: algorithm.version}
    return [kept_encoded(sr.modifier(sr.text(name, value))) for name, value in texts.items()]


def _whole_image(outcome: ViewOutcome) -> list[Dataset]:
    """TID 1501: scores of an image, or the reason why it has none."""
    scores = outcome.summary.scores if outcome.summary else {}
    return [
        *_site(outcome.view),
        sr.contains(sr.image(outcome.image, name=("121112", "DCM", "Source of Measurement"))),
        *(_score(name, label, value) for name, by_class in scores.items() for label, value in by_class.items()),
        *(sr.contains(sr.text(COMMENT, remark)) for remark in (outcome_text(outcome), *notice_texts(outcome))),
    ]


def _segment(outcome: ViewOutcome, segmentation: Reference, number: int, label: str) -> list[Dataset]:
    """TID 1410: all pixels above the threshold of a class, as a segment of the SEG object of the view."""
    return [
        *_finding(outcome.view),
        sr.contains(sr.image(segmentation, name=("121214", "DCM", "Referenced Segmentation Frame"), segment=number)),
        sr.contains(sr.image(outcome.image, name=("121233", "DCM", "Source image for segmentation"))),
        _class(label),
    ]


def _region(outcome: ViewOutcome, region: Region) -> list[Dataset]:
    """TID 1410: one connected component, with its outline."""
    area = [] if region.area_mm2 is None else [sr.contains(sr.number(AREA, region.area_mm2, SQUARE_MM))]
    return [
        *_finding(outcome.view),
        sr.contains(
            sr.coordinates(("111030", "DCM", "Image Region"), "POLYLINE", region.outline, _image(outcome.image))
        ),
        *area,
        sr.contains(sr.number(PEAK, region.peak, NO_UNIT)),
        _class(region.label),
    ]


@lru_cache
def _class(label: str) -> Dataset:
    return kept_encoded(sr.contains(sr.code(CLASS, (label, PRIVATE, label))))


@lru_cache
def _image(reference: Reference) -> Dataset:
    """The image of a region."""
    return kept_encoded(sr.selected_from(sr.image(reference)))


@lru_cache
def _finding(view: View | None) -> Sequence[Dataset]:
    return [kept_encoded(sr.contains(sr.code(("121071", "DCM", "Finding"), LESION))), *_site(view)]


@lru_cache
def _site(view: View | None) -> Sequence[Dataset]:
    """Finding Site with laterality; empty if the view is unknown."""
    if not view:
        return []
    laterality = sr.modifier(sr.code(("272741003", "SCT", "Laterality"), sr.side(view)))
    return [kept_encoded(sr.modifier(sr.code(("363698007", "SCT", "Finding Site"), BREAST, laterality)))]


def _score(name: str, label: str, value: float) -> Dataset:
    concept = f"{name}.{label[0]}", PRIVATE, f"Score {name}, {label}"
    return sr.contains(sr.number(concept, value, NO_UNIT))


def _remarks(outcomes: Sequence[ViewOutcome], algorithm: Algorithm, exam: bool) -> Iterator[Dataset]:
    """Comments on the whole report, with the exam-level scores of a whole exam."""
    for remark in (statement(algorithm), SPACING_NOTE, *([" ".join(exam_texts(outcomes))] if exam else [])):
        yield sr.contains(sr.text(COMMENT, remark))
    if exam and (flag := triage_of(outcomes, algorithm)):
        yield sr.contains(sr.code(TRIAGE, TRIAGE_SET if flag.flagged else TRIAGE_NOT_SET))
        yield sr.contains(sr.text(COMMENT, f"{flag}."))


def _own_codes() -> Dataset:
    """Coding Scheme Identification (PS3.3 C.12.1.1)."""
    scheme = Dataset()
    scheme.CodingSchemeDesignator, scheme.CodingSchemeName = PRIVATE, "Codes of glam-deploy, docs/results.md"
    scheme.CodingSchemeResponsibleOrganization = MANUFACTURER
    return scheme
