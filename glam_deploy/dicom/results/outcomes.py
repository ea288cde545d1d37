"""What both structured reports draw from the outcomes of a study's views."""

from collections.abc import Iterator, Sequence

from glam_deploy.dicom.results.records import Outcome, Reference, ViewOutcome
from glam_deploy.dicom.results.source import Source, read_source
from glam_deploy.errors import DicomError, UsageError

SPACING_TOLD = "Areas are by ImagerPixelSpacing, at the detector: the breast, nearer to the X-ray tube, is smaller."

_WORDS: dict[Outcome, str] = {
    "done": "Processed",
    "skipped": "Not processed, for it is not meant for this network",
    "failed": "Could not be processed",
}


def study_source(outcomes: Sequence[ViewOutcome]) -> Source:
    """The mammogram that patient and study are copied from: the first that can be read, those done before others.

    Raises UsageError without outcomes, DicomError where none can be read.
    """
    if not outcomes:
        raise UsageError("a report was asked for on no mammogram at all: pass the outcome of each")
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


def told(outcome: ViewOutcome) -> str:
    """What became of a view, in words."""
    name = f"{outcome.view}: " if outcome.view else ""
    reason = f": {outcome.reason}" if outcome.reason else ""
    return f"{name}{_WORDS[outcome.outcome]}{reason}."


def notices_told(outcome: ViewOutcome) -> list[str]:
    """What a reader must know of a view that was done."""
    if not outcome.summary:
        return []
    notices = [notice.message for notice in outcome.summary.notices]
    left_out = outcome.summary.regions_left_out
    return [*notices, *([f"{left_out} more regions, of lower peaks, are not told"] if left_out else [])]
