"""Result objects and files: per view (`Publisher`) and per study (`StudyReports`).

A view's folder holds `finding.json`, `saliency.npz`, the overlay picture and DICOM objects; it is written completely or
not at all, and shared by all jobs that the view is part of. A job's folder holds the reports and `objects.json`.

A new kind of object is added in `Publisher._start_objects` (per view) or `StudyReports._build` (per study), with its
entry in `dicom.results.kinds` and its switch in `config.Results`; its writer belongs to `glam_deploy/dicom/results/`.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import (
    ARRAYS,
    FINDING,
    OBJECTS,
    PICTURE,
    REPORT,
    DataFolder,
    atomic_folder,
    part_folder,
    read_json,
    replace_folder,
    write_json,
)
from glam_deploy.appliance.state.deliveries import ResultObject
from glam_deploy.appliance.state.jobs import Job, JobView
from glam_deploy.dicom.results import objects
from glam_deploy.dicom.results.cad_sr import cad_sr
from glam_deploy.dicom.results.measurement_report import measurement_report
from glam_deploy.dicom.results.presentation_state import presentation_state
from glam_deploy.dicom.results.provenance import ResultProvenance, view_number
from glam_deploy.dicom.results.records import Identity, Reference, ViewFinding, ViewOutcome, ViewSummary
from glam_deploy.dicom.results.regions import summarize
from glam_deploy.dicom.results.secondary_capture import secondary_capture
from glam_deploy.dicom.results.segmentation import fractional_segmentation, segmentation
from glam_deploy.dicom.results.source import read_source
from glam_deploy.dicom.uids import DERIVED
from glam_deploy.durable import sync_folder
from glam_deploy.json_records import from_json, to_json
from glam_deploy.outputs import report
from glam_deploy.outputs.overlay import overlay, to_png
from glam_deploy.outputs.panel import Picture
from glam_deploy.outputs.writer import named_arrays, write_npz
from glam_deploy.records import Mammogram, Notice, View
from glam_deploy.runtime.result import Result

Datasets = dict[str, Any]
"""Kind of object -> its data set (pydicom, which only glam_deploy/dicom imports)."""
PendingDatasets = dict[str, Future[Any]]
"""Kind of object -> its data set, while another thread makes it."""


@dataclass(frozen=True, kw_only=True)
class ObjectEntry:
    """A written result object: an entry of `objects.json`, and of "objects" in `finding.json`."""

    kind: str
    file: str
    """Name in its folder."""
    sop_class: str
    sop_uid: str
    series_uid: str

    @property
    def reference(self) -> Reference:
        return Reference(sop_class=self.sop_class, sop_uid=self.sop_uid, series_uid=self.series_uid)


def view_entries(folder: Path) -> list[ObjectEntry]:
    """The objects in a view's folder of results."""
    return [ObjectEntry(**entry) for entry in read_json(folder / FINDING)["objects"]]


def view_summary(folder: Path) -> ViewSummary:
    """What the reports say of a view, in its folder of results."""
    return from_json(ViewSummary, read_json(folder / FINDING)["summary"])


def report_entries(folder: Path) -> list[ObjectEntry]:
    """The reports in a job's folder of results."""
    return [ObjectEntry(**entry) for entry in read_json(folder / OBJECTS)]


def _save(datasets: Datasets, folder: Path) -> list[ObjectEntry]:
    """Write each object to a file named by its kind; their entries."""
    for kind, dataset in datasets.items():
        objects.save(dataset, folder / f"{kind}.dcm")
    return [
        ObjectEntry(kind=kind, file=f"{kind}.dcm", **asdict(objects.reference(dataset)))
        for kind, dataset in datasets.items()
    ]


@dataclass(frozen=True, kw_only=True)
class _ReportInputs:
    """All that decides the content of a study's reports: equal inputs give equal reports."""

    job: Job
    outcomes: tuple[ViewOutcome, ...]
    replaced: Mapping[str, Reference]
    """The reports that these replace, by kind."""


@dataclass(frozen=True, kw_only=True)
class PreparedReports:
    """Reports that are complete but not in their final place."""

    objects: list[ResultObject]
    """All objects of the study, those of its views included, with their final paths."""
    place: Callable[[], None]
    """Moves the reports to their final place, for the holder of the job's lease only. Raises OSError."""


@dataclass(kw_only=True)
class StudyReports:
    """Writes the reports of one job after another; drafts them while the last view's pictures are compressed."""

    data: DataFolder
    config: Config
    provenance: ResultProvenance
    _expected: tuple[Job, Sequence[JobView]] | None = field(default=None, init=False)
    _draft: tuple[_ReportInputs, Datasets] | None = field(default=None, init=False)

    def set_next_job(self, job: Job, views: Sequence[JobView]) -> None:
        """Set the job whose reports come next, and the current state of its views."""
        self._expected = job, views

    def draft(self, view: JobView, summary: ViewSummary) -> None:
        """Make the reports if `view`, now with its summary, is the last open view of its job; callable from any thread.

        `publish` uses the draft if its inputs have not changed. An error is ignored here, since `publish` meets it
        again.
        """
        job, views = self._expected or (None, [])
        if job is None or [each.sop_uid for each in views if each.outcome is None] != [view.sop_uid]:
            return
        try:
            inputs = self._inputs(job, views, {view.sop_uid: summary})
            self._draft = inputs, self._build(inputs)
        except Exception:
            self._draft = None

    def publish(self, job: Job, views: Sequence[JobView]) -> list[ResultObject]:
        """Write the reports on a whole study to their final place; all objects of it, as `prepared` has them."""
        with self.prepared(job, views) as reports:
            reports.place()
        return reports.objects

    @contextmanager
    def prepared(self, job: Job, views: Sequence[JobView]) -> Iterator["PreparedReports"]:
        """The reports on a whole study in a temporary folder, which is removed at the end of the block if not placed.

        Raises OSError, and DicomError if no source can be read.
        """
        target = self.data.job_results(job.key)
        datasets = self._take_draft(self._inputs(job, views, {}))
        with part_folder(target.parent) as folder:
            reports = _save(datasets, folder)
            write_json(folder / OBJECTS, [asdict(entry) for entry in reports])
            sync_folder(folder)
            view_folders = [self.data.root / view.folder for view in views if view.folder]
            found = [(folder, entry) for folder in view_folders for entry in view_entries(folder)]
            objects_ = [self._result_object(*each) for each in (*found, *((target, entry) for entry in reports))]
            # what an interrupted attempt has left there is replaced; no row names it
            yield PreparedReports(objects=objects_, place=partial(replace_folder, folder, target))

    def _take_draft(self, inputs: _ReportInputs) -> Datasets:
        """The reports by kind: the draft if it was made from the same inputs, else new ones."""
        drafted, self._draft = self._draft, None
        return drafted[1] if drafted and drafted[0] == inputs else self._build(inputs)

    def _build(self, inputs: _ReportInputs) -> Datasets:
        wanted, job, outcomes, replaced = self.config.results, inputs.job, inputs.outcomes, inputs.replaced
        algorithm, key = self.provenance.algorithm, self.provenance.study_key(job.key)
        made: Datasets = {}
        if wanted.cad_sr:
            identity = self.provenance.identity("cad_sr", job.study_uid, key)
            made["cad_sr"] = cad_sr(
                outcomes, algorithm, identity, predecessor=replaced.get("cad_sr"), probability=wanted.probability
            )
        if wanted.sr:
            identity = self.provenance.identity("sr", job.study_uid, key)
            made["sr"] = measurement_report(outcomes, algorithm, identity, predecessor=replaced.get("sr"))
        return made

    def _inputs(self, job: Job, views: Sequence[JobView], fresh: Mapping[str, ViewSummary]) -> _ReportInputs:
        """`fresh`: summaries, by SOP Instance UID, of views whose folder is still being written."""
        outcomes = tuple(self._outcome(view, fresh.get(view.sop_uid)) for view in views)
        return _ReportInputs(job=job, outcomes=outcomes, replaced=self._predecessor(job))

    def _outcome(self, view: JobView, summary: ViewSummary | None) -> ViewOutcome:
        is_fresh = summary is not None
        if view.folder and not summary:
            summary = view_summary(self.data.root / view.folder)
        return ViewOutcome(
            source=self.data.root / view.path,
            image=self._image(view),
            view=View(view.view) if view.view else None,
            outcome="done" if is_fresh else view.outcome or "failed",  # type: ignore[arg-type]  # the schema's words
            reason=view.reason,
            summary=summary,
        )

    def _image(self, view: JobView) -> Reference:
        """Reference to the mammogram by its own identifiers; one without valid UIDs is stored under derived ones."""
        if DERIVED in (view.sop_uid[: len(DERIVED)], view.series_uid[: len(DERIVED)]):
            return read_source(self.data.root / view.path).reference()
        return Reference(sop_class=view.sop_class, sop_uid=view.sop_uid, series_uid=view.series_uid)

    def _predecessor(self, job: Job) -> dict[str, Reference]:
        """The reports that this job's reports replace, by kind; none if they have been removed."""
        folder = self.data.job_results(job.predecessor_key) if job.predecessor_key else None
        if folder is None or not (folder / OBJECTS).exists():
            return {}
        return {entry.kind: entry.reference for entry in report_entries(folder)}

    def _result_object(self, folder: Path, entry: ObjectEntry) -> ResultObject:
        path = self.data.relative(folder / entry.file)
        return ResultObject(kind=entry.kind, sop_uid=entry.sop_uid, sop_class=entry.sop_class, path=path)


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """Writes the results of one network."""

    data: DataFolder
    config: Config
    provenance: ResultProvenance

    @cached_property
    def reports(self) -> StudyReports:
        """The reports on the studies of the views."""
        return StudyReports(data=self.data, config=self.config, provenance=self.provenance)

    def view_folder(self, view: JobView) -> Path:
        return self.data.view_results(self._key(view))

    def publish_view(self, study_uid: str, view: JobView, mammogram: Mammogram, result: Result) -> Path:
        """Write all results of one view; its folder. Raises OSError, and DicomError for a fault of its header."""
        target, identify = self.view_folder(view), partial(self._identity, study_uid, view)
        finding = self._finding(view, mammogram, result)
        # in parallel, because the last view of a study delays its reports
        with atomic_folder(target) as folder, ThreadPoolExecutor() as threads:
            picture = threads.submit(overlay, mammogram.pixels, result)
            drawn = threads.submit(lambda: to_png(picture.result()))
            pending = self._start_objects(finding, picture, identify, threads)
            summary = self._summary(finding, pending, mammogram)
            picture.result()  # drawing needs the GIL, unlike compression, and drafting would hold it
            self.reports.draft(view, summary)
            self._write_finding(finding, summary, pending, identify, folder)
            write_npz(folder / ARRAYS, named_arrays(result, full=False, save_input=False))
            entries = report.done(result, arrays_name=ARRAYS, picture_name=PICTURE)
            entries["warnings"] = [{"code": notice.code, "message": notice.message} for notice in finding.notices]
            (folder / REPORT).write_text(report.to_text(entries), "utf-8")
            (folder / PICTURE).write_bytes(drawn.result())
        return target

    def _finding(self, view: JobView, mammogram: Mammogram, result: Result) -> ViewFinding:
        return ViewFinding(
            source=self.data.root / view.path,
            view=mammogram.view,
            saliency=result.source_maps(),
            scores=result.predictions,
            boxes=result.patch_boxes_in_source,
            notices=(*result.notices, *_derived_uid_notices(view, mammogram)),
        )

    def _start_objects(
        self,
        finding: ViewFinding,
        picture: Future[Picture],
        identify: Callable[[str], Identity],
        threads: Executor,
    ) -> PendingDatasets:
        wanted, algorithm = self.config.results, self.provenance.algorithm
        writers: dict[str, Callable[[Identity], Any]] = {
            "sc": lambda identity: secondary_capture(finding, picture.result(), algorithm, identity),
            "seg": lambda identity: segmentation(finding, algorithm, identity),
            "seg_fractional": lambda identity: fractional_segmentation(finding, algorithm, identity),
        }
        return {kind: threads.submit(write, identify(kind)) for kind, write in writers.items() if getattr(wanted, kind)}

    def _summary(self, finding: ViewFinding, pending: PendingDatasets, mammogram: Mammogram) -> ViewSummary:
        shown = objects.reference(pending["seg"].result()) if "seg" in pending else None
        summary = summarize(finding, self.provenance.algorithm, segmentation=shown)
        return replace(summary, made_by=self.provenance.digest, patient=dict(mammogram.source.patient))

    def _write_finding(
        self,
        finding: ViewFinding,
        summary: ViewSummary,
        pending: PendingDatasets,
        identify: Callable[[str], Identity],
        folder: Path,
    ) -> None:
        datasets = {kind: writing.result() for kind, writing in pending.items()}
        if self.config.results.gsps:
            algorithm, identity = self.provenance.algorithm, identify("gsps")
            datasets["gsps"] = presentation_state(finding.source, summary, algorithm, identity)
        entries = [asdict(entry) for entry in _save(datasets, folder)]
        write_json(folder / FINDING, {"summary": to_json(summary), "objects": entries})

    def _identity(self, study_uid: str, view: JobView, kind: str) -> Identity:
        number = view_number(View(view.view) if view.view else None)
        return self.provenance.identity(kind, study_uid, self._key(view), number)

    def _key(self, view: JobView) -> str:
        return self.provenance.view_key(view.sop_uid, view.sha256)


def _derived_uid_notices(view: JobView, mammogram: Mammogram) -> Iterator[Notice]:
    """A notice if the mammogram has no valid UID: the UID under which the appliance stores it."""
    stored = mammogram.source.uids
    if mammogram.source.kind == "dicom" and view.sop_uid != stored.get("SOPInstanceUID"):
        entries = (
            f"SOPInstanceUID is not a valid UID (PS3.5 section 9.1): the appliance stores the image as {view.sop_uid}, "
            "and results refer to it by its own identifier"
        )
        yield Notice(code="uid-derived", message=entries)
