"""Content items of structured reports (PS3.3 C.17.3), and the modules that both reports have in common."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import UID

from glam_deploy.dicom.results.objects import coded, evidence, finished, kept_encoded, new_item, study_source
from glam_deploy.dicom.results.records import Algorithm, Identity, Point, Reference, ViewOutcome
from glam_deploy.records import View

Name = tuple[str, str, str]
"""A coded concept: value, coding scheme designator, meaning."""

Unit = tuple[str, str]
"""Code and meaning in UCUM."""

ENGLISH: tuple[Name, Name] = (
    ("121049", "DCM", "Language of Content Item and Descendants"),
    ("en", "RFC5646", "English"),
)
ALGORITHM_NAME: Name = ("111001", "DCM", "Algorithm Name")
ALGORITHM_VERSION: Name = ("111003", "DCM", "Algorithm Version")
ALGORITHM_PARAMETERS: Name = ("111002", "DCM", "Algorithm Parameters")
MM: Unit = ("mm", "millimeter")
PERCENT: Unit = ("%", "Percent")
LEFT: Name = ("7771000", "SCT", "Left")
RIGHT: Name = ("24028007", "SCT", "Right")


_GRAPHIC_DATA = Tag("GraphicData")


def side(view: View) -> Name:
    """The breast that a view shows."""
    return RIGHT if view.is_right else LEFT


def ascii_text(text: str) -> str:
    """`text` in ASCII, which every character set of a source contains; other characters are replaced by "?"."""
    plain = text.encode("ascii", "replace").decode()
    return "".join(letter if letter.isprintable() or letter in "\r\n" else "?" for letter in plain)


def container(name: Name, *children: Dataset, template: str | None = None) -> Dataset:
    item = _item("CONTAINER", name, children)
    item.ContinuityOfContent = "SEPARATE"
    if template:
        item.ContentTemplateSequence = [new_item()]
        item.ContentTemplateSequence[0].MappingResource = "DCMR"
        item.ContentTemplateSequence[0].TemplateIdentifier = template
    return item


def text(name: Name, value: str, *children: Dataset) -> Dataset:
    item = _item("TEXT", name, children)
    item.TextValue = ascii_text(value)
    return item


def code(name: Name, value: Name, *children: Dataset) -> Dataset:
    item = _item("CODE", name, children)
    _add_code(item, "ConceptCodeSequence", value)
    return item


def number(name: Name, value: float, unit: Unit, *children: Dataset) -> Dataset:
    item = _item("NUM", name, children)
    measured = new_item()
    measured.NumericValue = f"{value:.6g}"
    _add_code(measured, "MeasurementUnitsCodeSequence", (unit[0], "UCUM", unit[1]))
    item.MeasuredValueSequence = [measured]
    return item


def uid_reference(name: Name, uid: str) -> Dataset:
    item = _item("UIDREF", name, ())
    item.UID = uid
    return item


def image(reference: Reference, *children: Dataset, name: Name | None = None, segment: int | None = None) -> Dataset:
    """IMAGE item; `segment`: number of the referenced segment."""
    item = _item("IMAGE", name, children)
    referenced = _referenced(reference)
    if segment:
        referenced.ReferencedSegmentNumber = segment
    item.ReferencedSOPSequence = [referenced]
    return item


def coordinates(name: Name, kind: str, points: Sequence[Point], *children: Dataset) -> Dataset:
    """SCOORD item; `kind`: POINT or POLYLINE; `points`: (row, column), written as (column, row)."""
    item = _item("SCOORD", name, children)
    item.GraphicType = kind
    values = np.asarray(points, "<f4")[:, ::-1].tobytes()
    # encoded here, because pydicom takes long for some thousand values
    item[_GRAPHIC_DATA] = RawDataElement(_GRAPHIC_DATA, "FL", len(values), values, 0, False, True)
    return item


def contains(item: Dataset) -> Dataset:
    return _related("CONTAINS", item)


def modifier(item: Dataset) -> Dataset:
    return _related("HAS CONCEPT MOD", item)


def context(item: Dataset) -> Dataset:
    return _related("HAS OBS CONTEXT", item)


def acquisition(item: Dataset) -> Dataset:
    return _related("HAS ACQ CONTEXT", item)


def properties(item: Dataset) -> Dataset:
    return _related("HAS PROPERTIES", item)


def inferred_from(item: Dataset) -> Dataset:
    return _related("INFERRED FROM", item)


def selected_from(item: Dataset) -> Dataset:
    return _related("SELECTED FROM", item)


def by_reference(*position: int) -> Dataset:
    """By-reference relationship to another item of the tree; `position`: child numbers from 1, the root first."""
    item = new_item()
    item.ReferencedContentItemIdentifier = list(position)
    return item


def report(
    root: Dataset,
    outcomes: Sequence[ViewOutcome],
    algorithm: Algorithm,
    identity: Identity,
    *,
    sop_class: UID,
    title: str,
    predecessor: Reference | None,
) -> Dataset:
    """The object with the content tree `root`: SR Document Series, General and Content, completed by `finished`.

    `predecessor` is the report that this one replaces. Raises the errors of `study_source`.
    """
    source = study_source(outcomes)
    dataset = Dataset()
    dataset.update(root)
    dataset.SOPClassUID = sop_class
    dataset.ReferencedPerformedProcedureStepSequence = []
    dataset.PerformedProcedureCodeSequence = []
    dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "UNVERIFIED"
    dataset.CurrentRequestedProcedureEvidenceSequence = [_study(source.study_uid, evidence(outcomes))]
    if predecessor:
        dataset.PredecessorDocumentsSequence = [_study(source.study_uid, [predecessor])]
    return finished(dataset, source, algorithm, identity, modality="SR", title=title)


def _item(value_type: str, name: Name | None, children: Sequence[Dataset]) -> Dataset:
    item = new_item()
    item.ValueType = value_type
    if name:
        _add_code(item, "ConceptNameCodeSequence", name)
    if children:
        item.ContentSequence = list(children)
    return item


def _add_code(item: Dataset, keyword: str, name: Name) -> None:
    """Add the code sequence `keyword` with one code to `item`."""
    item[keyword] = _code_sequence(keyword, name)


@lru_cache(maxsize=4096)
def _code_sequence(keyword: str, name: Name) -> DataElement:
    """In encoded form; equal arguments give the same element."""
    item = new_item()
    setattr(item, keyword, [coded(*name)])
    return kept_encoded(item).get_item(keyword)


def _related(relationship: str, item: Dataset) -> Dataset:
    item.RelationshipType = relationship
    return item


def _referenced(reference: Reference) -> Dataset:
    item = new_item()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference.sop_class, reference.sop_uid
    return item


def _study(study_uid: str, references: Iterable[Reference]) -> Dataset:
    """Hierarchical SOP Instance Reference (PS3.3 C.17.2.1)."""
    by_series: dict[str, list[Reference]] = {}
    for reference in references:
        by_series.setdefault(reference.series_uid, []).append(reference)
    study = new_item()
    study.StudyInstanceUID = study_uid
    study.ReferencedSeriesSequence = []
    for series_uid, members in by_series.items():
        series = new_item()
        series.SeriesInstanceUID = series_uid
        series.ReferencedSOPSequence = [_referenced(member) for member in members]
        study.ReferencedSeriesSequence.append(series)
    return study
