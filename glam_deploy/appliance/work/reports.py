"""The reports on a whole study, in a job's folder: DICOM objects, and `objects.json`, which tells of them."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import FINDING, OBJECTS, DataFolder
from glam_deploy.appliance.identity import DERIVED
from glam_deploy.appliance.state.jobs import Job, JobView
from glam_deploy.appliance.state.parcels import ResultObject
from glam_deploy.appliance.work.files import read_json, save_object, whole_folder, write_json
from glam_deploy.appliance.work.making import Making
from glam_deploy.dicom.results.cad_sr import cad_sr
from glam_deploy.dicom.results.measurement_report import measurement_report
from glam_deploy.dicom.results.records import Reference, ViewOutcome, ViewSummary
from glam_deploy.dicom.results.source import read_source
from glam_deploy.records import View


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """All that decides what the reports on a study say: of equal ones, equal reports are made."""

    job: Job
    outcomes: tuple[ViewOutcome, ...]
    before: Mapping[str, Reference]
    """The reports that these replace, by kind."""


@dataclass(kw_only=True)
class Reports:
    """Writes the reports of one job after another, and drafts them while the last view's pictures are compressed."""

    data: DataFolder
    config: Config
    making: Making
    _expected: tuple[Job, Sequence[JobView]] | None = field(default=None, init=False)
    _draft: tuple[_Subject, dict[str, Any]] | None = field(default=None, init=False)

    def expect(self, job: Job, views: Sequence[JobView]) -> None:
        """The job whose reports are next, and its views as they are by now."""
        self._expected = job, views

    def draft(self, view: JobView, summary: ViewSummary) -> None:
        """Make the reports where `view`, now that it has a summary, is the last of its job; in any thread.

        `publish` takes them if nothing has changed by then. What goes wrong here goes wrong again there.
        """
        job, views = self._expected or (None, [])
        if job is None or [each.sop_uid for each in views if each.outcome is None] != [view.sop_uid]:
            return
        try:
            subject = self._subject(job, views, {view.sop_uid: summary})
            self._draft = subject, self._made(subject)
        except Exception:
            self._draft = None

    def publish(self, job: Job, views: Sequence[JobView]) -> list[ResultObject]:
        """Write the reports on a whole study; every object of it, those of its views too.

        Raises OSError as the file system does, DicomError where no source can be read.
        """
        target = self.data.job_results(job.key)
        shutil.rmtree(target, ignore_errors=True)  # of an attempt that did not come to an end; nobody was told of it
        made = self._drafted(self._subject(job, views, {}))
        with whole_folder(target) as folder:
            told = [save_object(kind, dataset, folder) for kind, dataset in made.items()]
            write_json(folder / OBJECTS, told)
        of_views = [self.data.root / view.folder for view in views if view.folder]
        parts = [(folder, read_json(folder / FINDING)["objects"]) for folder in of_views]
        return [self._object(folder, each) for folder, each in _flat([*parts, (target, told)])]

    def _drafted(self, subject: _Subject) -> dict[str, Any]:
        """By kind of report."""
        drafted, self._draft = self._draft, None
        return drafted[1] if drafted and drafted[0] == subject else self._made(subject)

    def _made(self, subject: _Subject) -> dict[str, Any]:
        wanted, job, outcomes, before = self.config.results, subject.job, subject.outcomes, subject.before
        algorithm, key = self.making.algorithm, self.making.study_key(job)
        made: dict[str, Any] = {}
        if wanted.cad_sr:
            identity = self.making.identity("cad_sr", job.study_uid, key)
            made["cad_sr"] = cad_sr(
                outcomes, algorithm, identity, predecessor=before.get("cad_sr"), probability=wanted.probability
            )
        if wanted.sr:
            identity = self.making.identity("sr", job.study_uid, key)
            made["sr"] = measurement_report(outcomes, algorithm, identity, predecessor=before.get("sr"))
        return made

    def _subject(self, job: Job, views: Sequence[JobView], fresh: Mapping[str, ViewSummary]) -> _Subject:
        """`fresh`: summaries of views, by SOP Instance UID, whose folder is still being written."""
        outcomes = tuple(self._outcome(view, fresh.get(view.sop_uid)) for view in views)
        return _Subject(job=job, outcomes=outcomes, before=self._predecessor(job))

    def _outcome(self, view: JobView, summary: ViewSummary | None) -> ViewOutcome:
        told = read_json(self.data.root / view.folder / FINDING)["summary"] if view.folder and not summary else None
        return ViewOutcome(
            source=self.data.root / view.path,
            image=self._image(view),
            view=View(view.view) if view.view else None,
            outcome="done" if summary else view.outcome or "failed",  # type: ignore[arg-type]  # the schema's words
            reason=view.reason,
            summary=ViewSummary.from_json(told) if told else summary,
        )

    def _image(self, view: JobView) -> Reference:
        """As the mammogram calls itself; one without valid UIDs is kept under derived ones."""
        if DERIVED in (view.sop_uid[: len(DERIVED)], view.series_uid[: len(DERIVED)]):
            return read_source(self.data.root / view.path).reference()
        return Reference(sop_class=view.sop_class, sop_uid=view.sop_uid, series_uid=view.series_uid)

    def _predecessor(self, job: Job) -> dict[str, Reference]:
        """The reports that those of this job replace, by kind; none where they have been cleaned away."""
        path = self.data.job_results(job.predecessor_key) / OBJECTS if job.predecessor_key else None
        if path is None or not path.exists():
            return {}
        names = "sop_class", "sop_uid", "series_uid"
        return {each["kind"]: Reference(**{name: each[name] for name in names}) for each in read_json(path)}

    def _object(self, folder: Path, each: Mapping[str, str]) -> ResultObject:
        path = self.data.relative(folder / each["file"])
        return ResultObject(sop_uid=each["sop_uid"], sop_class=each["sop_class"], path=path)


def _flat(parts: Sequence[tuple[Path, list[dict[str, str]]]]) -> Iterator[tuple[Path, dict[str, str]]]:
    return ((folder, each) for folder, made in parts for each in made)
