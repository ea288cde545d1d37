"""Exam-level results: the scores of a breast and of an exam, from those of its images.

Rule: of the network's final score (`networks.final_score`), the mean and the maximum over all images with a result, of
the breast and of the exam. Both are given, because studies of screening use either; every image counts once, also a
second one of the same view. An exam that is not four images, one of each standard view, is marked. Results of different
networks, engines or settings, and images whose headers differ in the patient or the date, are not combined. None of
these values is a calibrated probability.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

from glam_deploy.errors import UsageError
from glam_deploy.json_records import json_sha256
from glam_deploy.networks import final_score
from glam_deploy.records import Facts, View, plain_mapping

if TYPE_CHECKING:
    from glam_deploy.runtime.result import Result

TITLE = "Exam-level scores: mean / maximum over the images, not calibrated"
BREASTS: Mapping[str, str] = {"L": "left breast", "R": "right breast"}
"""First letter of a view -> the breast."""


WRONG = "wrong line"
"""Status of an image whose line in a table was changed to values that no result has."""


@dataclass(frozen=True, kw_only=True)
class ViewScores:
    """One image of an exam, with or without a result."""

    exam: str
    """Identifier of the exam; equal for the images of one woman at one time."""
    view: View | None
    status: str
    """"done", "skipped" or "failed"; WRONG for a result that cannot be used."""
    scores: Mapping[str, Mapping[str, float]]
    """As `Result.predictions`: score -> class -> 0..1; empty without a result."""
    made_by: str = ""
    """What made the result, as `made_by` gives it; equal for results that may be combined."""
    patient: Mapping[str, str] = field(default_factory=dict, repr=False)
    """As `Source.patient`; empty if it is unknown."""
    differs: tuple[str, ...] = ()
    """Keywords of `patient` in which the image is known to differ from another one of the exam."""
    compared: bool = True
    """False if another image of the exam could not be read to compare `patient`."""


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """A score over several images, 0..1, not calibrated."""

    mean: float
    maximum: float


@dataclass(frozen=True, kw_only=True)
class ExamScores:
    """Exam-level result of one exam."""

    exam: str
    score: str
    """Name of the score, such as "y_fusion"; "" without a result."""
    images: int
    """Number of images, with and without a result."""
    views: tuple[View, ...]
    """Views of the images with a result, in the order of `View`; a view occurs as often as it has images."""
    breasts: Mapping[str, Mapping[str, Pooled]]
    """ "L" and "R", those with a result -> class -> score."""
    whole: Mapping[str, Pooled]
    """Class -> score over all images of the exam; empty without a result."""
    remarks: tuple[str, ...]
    """How the exam differs from one image of each standard view; empty for a complete exam."""

    @property
    def complete(self) -> bool:
        return not self.remarks


def made_by(provenance: Facts) -> str:
    """SHA-256 of what determines a result besides the image and how it is read: as for `run --resume`.

    These are checkpoint, engine, models of an ensemble, number of patches and release. The bundle's id and the gate are
    left out, because each gate changes them and no result.
    """
    known = plain_mapping(provenance)
    determining = [known.get(key) for key in ("checkpoint", "engine", "patches")]
    return json_sha256([*determining, models_of(known), provenance.get("versions", {}).get("glam_deploy")])


def models_of(provenance: Facts) -> list[object]:
    """What determines the result of each model of an ensemble; gates do not. Empty for one model."""
    return [(member["checkpoint"], member["engine"]) for member in provenance.get("ensemble", [])]


def pool(values: Sequence[float]) -> Pooled:
    """Mean and maximum of the scores of one or more images."""
    return Pooled(mean=fmean(values), maximum=max(values))


def exam_scores(results: "Iterable[Result]", *, exams: Sequence[str] | None = None) -> list[ExamScores]:
    """Exam-level results of the results of several images, one for each exam, in the order of their first images.

    `exams`: identifier of the exam of each result; None means the StudyInstanceUID of each. Raises UsageError for a
    result without one, and for another number of `exams` than of `results`.
    """
    found = list(results)
    named = [result.input.source.uids.get("StudyInstanceUID", "") for result in found] if exams is None else exams
    if len(named) != len(found):
        raise UsageError(f"there are {len(named)} exams for {len(found)} results, expected one for each")
    if not all(named):
        number = [*map(bool, named)].index(False)
        raise UsageError(f"result {number} has no StudyInstanceUID, so its exam is unknown: pass exams=")
    return score_exams(
        ViewScores(
            exam=exam,
            view=result.input.view,
            status="done",
            scores=result.predictions,
            made_by=made_by(result.provenance),
            patient=dict(result.input.source.patient),
        )
        for exam, result in zip(named, found, strict=True)
    )


def score_exams(images: Iterable[ViewScores]) -> list[ExamScores]:
    """The exams of the images, in the order of their first images."""
    exams: dict[str, list[ViewScores]] = {}
    for image in images:
        exams.setdefault(image.exam, []).append(image)
    return [_scored(exam, found) for exam, found in exams.items()]


def any_group(exams: Iterable[ExamScores]) -> bool:
    """Whether an exam has several images. Without one, exam-level results would only repeat those of the images."""
    return any(exam.images > 1 for exam in exams)


@dataclass(frozen=True, kw_only=True)
class Triage:
    """The site's triage flag of one exam: whether the malignant score of an image has reached the site's threshold."""

    threshold: float
    highest: float | None
    """Largest malignant score (`networks.final_score`) of an image, 0..1; None without a result."""
    without_result: int
    """Number of images without a result."""

    @property
    def flagged(self) -> bool:
        return self.highest is not None and self.highest >= self.threshold

    def __str__(self) -> str:
        """What reports and messages say; an exam without the flag must not read as a negative result."""
        found = "no image has a result" if self.highest is None else f"highest malignant score {self.highest:.3f}"
        state = "set" if self.flagged else "not set, which is no negative result"
        lacking = f", images without a result: {self.without_result}" if self.without_result else ""
        return (
            f"Triage flag of this site: {state} ({found}, threshold {self.threshold:g}{lacking}). The flag concerns "
            "the order of reading only. It is not a diagnosis"
        )


def triage(images: Iterable[ViewScores], threshold: float) -> Triage:
    """The triage flag of one exam. One image is enough, because a mean could hide it behind the other view."""
    found = list(images)
    done = [image.scores[final_score(image.scores)] for image in found if image.scores]
    malignant = [scores["malignant"] for scores in done if "malignant" in scores]
    return Triage(threshold=threshold, highest=max(malignant, default=None), without_result=len(found) - len(malignant))


def _scored(exam: str, images: Sequence[ViewScores]) -> ExamScores:
    done = [image for image in images if image.status == "done"]
    names = sorted({final_score(image.scores) for image in done})
    faults = [*_not_combined(done, names)]
    usable = [] if faults else done
    of_breast = {side: [image for image in usable if image.view and image.view.value[0] == side] for side in BREASTS}
    return ExamScores(
        exam=exam,
        score=names[0] if usable else "",
        images=len(images),
        views=tuple(sorted((image.view for image in done if image.view), key=list(View).index)),
        breasts={side: _pooled(found, names[0]) for side, found in of_breast.items() if found},
        whole=_pooled(usable, names[0]) if usable else {},
        remarks=(*_remarks(images, done), *faults),
    )


def _pooled(images: Sequence[ViewScores], score: str) -> dict[str, Pooled]:
    return {label: pool([image.scores[score][label] for image in images]) for label in images[0].scores[score]}


def _not_combined(done: Sequence[ViewScores], names: Sequence[str]) -> Iterator[str]:
    """Why the results of an exam have no common mean; no identifier."""
    if len(names) > 1:
        yield f"results of different networks ({', '.join(names)}), which are not combined"
    elif len({image.made_by for image in done}) > 1:
        yield "results of different networks, engines or settings, which are not combined"
    values = Counter(keyword for keyword, _ in {item for image in done for item in image.patient.items()})
    found = {keyword for image in done for keyword in image.differs} | {key for key in values if values[key] > 1}
    if found:
        yield f"headers differ in {', '.join(sorted(found))}, so the images are not combined"


def _remarks(images: Sequence[ViewScores], done: Sequence[ViewScores]) -> Iterator[str]:
    count = Counter(image.view for image in done)
    yield from (f"no result of {view}" for view in View if not count[view])
    yield from (f"{count[view]} images of {view}" for view in View if count[view] > 1)
    if count[None]:
        yield f"view unknown: {count[None]}"
    for status in ("skipped", "failed", WRONG):
        if number := sum(image.status == status for image in images):
            yield f"{status}: {number}"
    if number := sum(not image.compared for image in done):
        yield f"header not compared: {number}"


def exam_lines(exam: ExamScores) -> list[str]:
    """The scores of an exam as text: the exam, its breasts, and what it lacks."""
    levels = {"exam": exam.whole, **{BREASTS[side]: scores for side, scores in exam.breasts.items()}}
    lines = [f"{level}: {exam.score} {_text(scores)}" for level, scores in levels.items() if scores]
    heading = "incomplete" if set(View) - set(exam.views) else "remarks"
    return [*lines, *([f"{heading}: {'; '.join(exam.remarks)}"] if exam.remarks else [])]


def _text(scores: Mapping[str, Pooled]) -> str:
    return ", ".join(f"{label} {pooled.mean:.3f} / {pooled.maximum:.3f}" for label, pooled in scores.items())
