"""Common attributes and texts of all result objects: identity, equipment, source study, notices; and writing files."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from uuid import NAMESPACE_OID, uuid5

from pydicom import dcmread
from pydicom.charset import default_encoding
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import correct_ambiguous_vr, write_dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, GrayscaleSoftcopyPresentationStateStorage

from glam_deploy.dicom.mammography import IMPLEMENTATION_UID
from glam_deploy.dicom.results.records import BANNER, Algorithm, Identity, Outcome, Reference, ViewOutcome
from glam_deploy.dicom.results.source import Source, read_source
from glam_deploy.errors import DicomError, UsageError
from glam_deploy.exams import TITLE, Triage, ViewScores, exam_lines, score_exams, triage

MANUFACTURER = "glam-deploy"
UNCALIBRATED = "Scores are not calibrated probabilities."

_LO = 64
"""Maximum length in characters of a value of VR LO (PS3.5 table 6.2-1)."""


SPACING_NOTE = (
    "Areas are calculated with ImagerPixelSpacing, at the detector: the breast, nearer to the X-ray tube, is smaller."
)
_OUTCOME_TEXTS: dict[Outcome, str] = {
    "done": "Processed",
    "skipped": "Not processed, because it is not meant for this network",
    "failed": "Could not be processed",
}


def save(dataset: Dataset, path: Path) -> None:
    """Write `dataset`, made by a writer of this package, to `path` as a DICOM file (PS3.10). Raises OSError.

    Not with pydicom's own opening of the file: its OSError for a full disk has neither `errno` nor `strerror`.
    """
    path.write_bytes(encoded(dataset))


def encoded(dataset: Dataset) -> bytes:
    """`dataset` with its file meta information as the content of a DICOM file (PS3.10)."""
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def reference(dataset: Dataset) -> Reference:
    """Reference to `dataset` for other objects of the study."""
    uids = dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.SeriesInstanceUID
    return Reference(**dict(zip(("sop_class", "sop_uid", "series_uid"), map(str, uids), strict=True)))


def own_uid(identity: Identity, part: str) -> UID:
    """UID of a part of an object, derived from the object's UID, so that it is the same whenever the object is made."""
    return UID(f"2.25.{uuid5(NAMESPACE_OID, f'{identity.sop_uid}/{part}').int}")


def new_item() -> Dataset:
    """An empty data set for an item of a sequence, in ASCII, without elements of ambiguous VR.

    It is marked as Explicit VR Little Endian, because pydicom looks for ambiguous VRs in all items below each item that
    has no such mark, once for each level of a tree.
    """
    item = Dataset()
    item.set_original_encoding(False, True, default_encoding)
    return item


@lru_cache(maxsize=4096)
def coded(value: str, scheme: str, meaning: str) -> Dataset:
    """An item of a code sequence (PS3.3 section 8), in ASCII; equal arguments give the same item."""
    item = new_item()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return kept_encoded(item)


def kept_encoded(item: Dataset) -> Dataset:
    """`item`, from `new_item`, with its values and items in encoded form, so that writing it takes little time.

    For constant items, such as codes and the name of the algorithm: they repeat in every region of a report. The caller
    must not change them.
    """
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = False, True
    write_dataset(file, item)
    return read_dataset(BytesIO(file.getvalue()), is_implicit_VR=False, is_little_endian=True)


def facts(algorithm: Algorithm) -> dict[str, str]:
    """Description of the algorithm, name -> value."""
    thresholds = {f"Threshold {name}": f"{value:g}" for name, value in algorithm.thresholds.items()}
    return {
        "Algorithm": algorithm.name,
        "Version": algorithm.version,
        "Checkpoint SHA-256": algorithm.checkpoint_sha256,
        "Bundle": algorithm.bundle_id,
        "Engine": algorithm.engine,
        "Engine SHA-256": algorithm.engine_digest,
        "Gate": algorithm.gate,
        "Preprocessing": algorithm.preprocessing,
        **thresholds,
    }


def statement(algorithm: Algorithm) -> str:
    """Banner and description of the algorithm as one text."""
    description = "; ".join(f"{name}: {value}" for name, value in facts(algorithm).items())
    return f"{BANNER}. {UNCALIBRATED} {description}."


def software_versions(algorithm: Algorithm) -> list[str]:
    """Values of SoftwareVersions: versions of glam-deploy, weights and engine."""
    versions = f"{MANUFACTURER} {algorithm.version}", algorithm.checkpoint_sha256, algorithm.engine
    return [version[:_LO] for version in versions]


def written_at(source: Source, identity: Identity) -> datetime:
    """Creation time of the object, in the time zone of all its dates and times."""
    return identity.created.astimezone(source.zone) if source.zone else identity.created


def finished(
    dataset: Dataset, source: Source, algorithm: Algorithm, identity: Identity, *, modality: str, title: str
) -> Dataset:
    """Complete an object: adds patient, series, equipment, dates and file meta information to `dataset`.

    `title` precedes the banner in SeriesDescription. The returned data set is encoded and parsed again, so that it does
    not depend on how `dataset` was built.
    """
    _add_identity(dataset, written_at(source, identity), identity, f"{title} - {BANNER}")
    _add_equipment(dataset, algorithm)
    dataset.Modality = modality
    dataset.file_meta = _file_meta(dataset)
    if modality != "SR":  # a content tree has no element of ambiguous VR, and looking for one decodes all of it
        correct_ambiguous_vr(dataset, True)
    source.adopt(dataset)
    return dcmread(BytesIO(encoded(dataset)))


def _add_identity(dataset: Dataset, created: datetime, identity: Identity, description: str) -> None:
    date, time = created.strftime("%Y%m%d"), created.strftime("%H%M%S")
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = identity.sop_uid, identity.series_uid
    dataset.SeriesNumber, dataset.InstanceNumber = identity.series_number, identity.instance_number
    dataset.SeriesDescription = description[:_LO]
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = date, time
    if dataset.SOPClassUID != GrayscaleSoftcopyPresentationStateStorage:
        dataset.ContentDate, dataset.ContentTime = date, time


def _add_equipment(dataset: Dataset, algorithm: Algorithm) -> None:
    """General Equipment, and Contributing Equipment with the description of the algorithm."""
    contribution = Dataset()
    contribution.PurposeOfReferenceCodeSequence = [coded("109102", "DCM", "Processing Equipment")]
    contribution.ContributionDescription = statement(algorithm)[:1024]
    for equipment in (dataset, contribution):
        equipment.Manufacturer, equipment.ManufacturerModelName = MANUFACTURER, algorithm.network.title
        equipment.DeviceSerialNumber = algorithm.device_uid
        equipment.SoftwareVersions = software_versions(algorithm)
    dataset.DeviceUID = algorithm.device_uid
    dataset.ContributingEquipmentSequence = [contribution]


def _file_meta(dataset: Dataset) -> FileMetaDataset:
    made = getattr(dataset, "file_meta", {})
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    meta.TransferSyntaxUID = made.get("TransferSyntaxUID", ExplicitVRLittleEndian)
    meta.ImplementationClassUID, meta.ImplementationVersionName = IMPLEMENTATION_UID, "GLAM_DEPLOY"
    return meta


def study_source(outcomes: Sequence[ViewOutcome]) -> Source:
    """The mammogram from which patient and study are copied: the first readable one, processed ones before others.

    Raises UsageError without outcomes, DicomError if no mammogram can be read.
    """
    if not outcomes:
        raise UsageError("a report needs the outcome of at least one mammogram, but none was given: pass all outcomes")
    for outcome in sorted(outcomes, key=lambda outcome: outcome.outcome != "done"):
        try:
            return read_source(outcome.source)
        except DicomError as error:
            unread = error
    raise unread


def evidence(outcomes: Sequence[ViewOutcome]) -> Iterator[Reference]:
    """All objects that a report refers to."""
    yield from (outcome.image for outcome in outcomes)
    yield from (o.summary.segmentation for o in outcomes if o.summary and o.summary.segmentation)


def outcome_text(outcome: ViewOutcome) -> str:
    """Outcome of a view as text."""
    name = f"{outcome.view}: " if outcome.view else ""
    reason = f": {outcome.reason}" if outcome.reason else ""
    return f"{name}{_OUTCOME_TEXTS[outcome.outcome]}{reason}."


def exam_texts(outcomes: Sequence[ViewOutcome]) -> list[str]:
    """Exam-level scores of a study as texts, because no template has a place for scores that are no probabilities."""
    lines = [line for exam in score_exams(map(_view_scores, outcomes)) for line in exam_lines(exam)]
    return [f"{TITLE}.", *(f"{line[0].upper()}{line[1:]}." for line in lines)]


def triage_of(outcomes: Sequence[ViewOutcome], algorithm: Algorithm) -> Triage | None:
    """The triage flag of a study; None if the site has not set a threshold."""
    threshold = algorithm.triage_threshold
    return None if threshold is None else triage(map(_view_scores, outcomes), threshold)


def _view_scores(outcome: ViewOutcome) -> ViewScores:
    summary = outcome.summary
    return ViewScores(
        exam="",
        view=outcome.view,
        status=outcome.outcome,
        scores=summary.scores if summary else {},
        made_by=summary.made_by if summary else "",
        patient=summary.patient if summary else {},
    )


def notice_texts(outcome: ViewOutcome) -> list[str]:
    """Notices of a processed view as texts, including the number of regions that are not reported."""
    if not outcome.summary:
        return []
    notices = [notice.message for notice in outcome.summary.notices]
    left_out = outcome.summary.regions_left_out
    return [*notices, *([f"{left_out} more regions, with lower peaks, are not reported"] if left_out else [])]
