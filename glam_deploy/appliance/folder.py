"""Processing of a folder of DICOM files for `run-dir`: results go into another folder; no spool, no database, no
network.

The result objects are those that the worker makes from the same files, weights and settings. Everything is made in a
hidden folder inside the target; objects are moved to their names first, `result.json` last.
"""

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import REPORT, DataFolder
from glam_deploy.appliance.folder_files import SourceFile, UnusedFile, examine_folder
from glam_deploy.appliance.state.jobs import Job, JobView
from glam_deploy.appliance.work.predictor import Predictor
from glam_deploy.appliance.work.provenance import result_provenance
from glam_deploy.appliance.work.result_objects import ObjectEntry, Publisher, report_entries, view_entries, view_summary
from glam_deploy.dicom.read import read_view
from glam_deploy.dicom.uids import derived_uid, digest
from glam_deploy.durable import sync
from glam_deploy.errors import BackendRunError, Caller, GlamError, InputError, NotForThisNetwork
from glam_deploy.exams import ViewScores, score_exams
from glam_deploy.json_records import parse_json, to_json
from glam_deploy.outputs.report import STATEMENT, exam_content
from glam_deploy.records import Facts, View
from glam_deploy.unchanged import holding, require_sha256

RESULT = "result.json"
SCHEMA = "glam-deploy.run-dir"
SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class ObjectFile:
    """A DICOM object among the results."""

    file: str
    kind: str
    sop_class: str
    sop_uid: str


@dataclass(frozen=True, kw_only=True)
class ViewEntry:
    """A mammogram and its outcome; the last three are those of its report, and left out where it has no result."""

    file: str
    """Relative to the folder of inputs."""
    sop_uid: str
    view: str | None
    status: str | None
    """"done", "skipped" or "failed"."""
    reason: str | None
    predictions: Facts | None = None
    patches: tuple[Facts, ...] | None = None
    warnings: tuple[Facts, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class StudyEntry:
    """The mammograms of one study and the objects made of them."""

    study_uid: str
    views: tuple[ViewEntry, ...]
    objects: tuple[ObjectFile, ...]
    exam: Facts
    """Exam-level scores, as `report.exam_content`."""


@dataclass(frozen=True, kw_only=True)
class FolderResult:
    """The content of `result.json`, but for its schema and the statement."""

    studies: tuple[StudyEntry, ...]
    others: tuple[UnusedFile, ...]
    provenance: Facts


def process_folder(source: Path, target: Path, predictor: Predictor, config: Config) -> FolderResult:
    """Process every mammogram in `source`, write all results into `target`; the content of `result.json`.

    Of `config` only `accept` and `results` are used. `target` is an empty folder. Raises UsageError if `source` holds
    no file that may be an image, BackendRunError if the engine fails, and OSError; `target` is then left as it was. All
    views of a study fail if one of its files is changed meanwhile.
    """
    files = examine_folder(source, predictor, config)
    with tempfile.TemporaryDirectory(prefix=".glam-deploy-", dir=target) as staging:
        publisher = _publisher(Path(staging), predictor, config)
        studies = [_Study(publisher, predictor, each).work() for each in _by_study(files.mammograms)]
        result = FolderResult(
            studies=tuple(study.entry(source) for study in studies),
            others=tuple(files.unused),
            provenance=predictor.provenance,
        )
        content = {"schema": SCHEMA, "schema_version": SCHEMA_VERSION, "statement": STATEMENT, **to_json(result)}
        (Path(staging) / RESULT).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", "utf-8")
        for file, name in (*(pair for study in studies for pair in study.files()), (Path(staging) / RESULT, RESULT)):
            sync(file)
            file.replace(target / name)
        sync(target)
    return result


def _by_study(files: Iterable[SourceFile]) -> Iterator[list[SourceFile]]:
    studies: dict[str, list[SourceFile]] = {}
    for each in files:
        studies.setdefault(each.received.study_uid, []).append(each)
    return iter(studies.values())


def _publisher(staging: Path, predictor: Predictor, config: Config) -> Publisher:
    """A publisher that writes below `staging`; its device UID is derived from the bundle."""
    data = DataFolder(root=staging / "data")
    data.make()
    (data.root / "device.uid").write_text(derived_uid("run-dir", predictor.provenance["bundle"]["id"]), "ascii")
    return Publisher(data=data, config=config, provenance=result_provenance(predictor, config, data))


class _Study:
    """The mammograms of one study and their results."""

    def __init__(self, publisher: Publisher, predictor: Predictor, files: Sequence[SourceFile]) -> None:
        self._publisher, self._predictor = publisher, predictor
        self._files = {each.received.sop_uid: each for each in files}
        self._views = [_job_view(each) for each in sorted(files, key=lambda each: each.received.sop_uid)]
        self._job = _job(files[0].received.study_uid, self._views)
        self._has_reports = True

    def work(self) -> "_Study":
        """Make the results, or none if a file is changed meanwhile: it is read several times, and results of one image
        must not get the UIDs of another.
        """
        with holding(file.snapshot for file in self._files.values()):
            self._views = [self._processed(view) for view in self._views]
            try:
                self._publisher.reports.publish(self._job, self._views)
                for file in (self._files[view.sop_uid] for view in self._views if view.outcome == "done"):
                    file.snapshot.require_unchanged()
            except InputError as error:
                self._fail(f"a file of this study was not the same throughout: {error.message_for(Caller.RUN_DIR)}")
        return self

    def _fail(self, reason: str) -> None:
        self._views = [
            replace(view, outcome="failed", reason=reason, folder=None) if view.outcome == "done" else view
            for view in self._views
        ]
        self._has_reports = False

    def files(self) -> Iterator[tuple[Path, str]]:
        """Each object's file and its final name: series and instance UID, as mercure names files."""
        for folder, made in self._folders():
            yield from ((folder / entry.file, _file_name(entry)) for entry in made)

    def entry(self, source: Path) -> StudyEntry:
        """The study's entry in `result.json`."""
        objects = (entry for _, made in self._folders() for entry in made)
        views = tuple(self._view_entry(view, source) for view in self._views)
        return StudyEntry(
            study_uid=self._job.study_uid,
            views=views,
            exam=exam_content(score_exams(map(self._scores, self._views, views))[0]),
            objects=tuple(
                ObjectFile(file=_file_name(entry), kind=entry.kind, sop_class=entry.sop_class, sop_uid=entry.sop_uid)
                for entry in objects
            ),
        )

    def _scores(self, view: JobView, entry: ViewEntry) -> ViewScores:
        summary = view_summary(self._publisher.data.root / view.folder) if view.folder else None
        return ViewScores(
            exam=self._job.study_uid,
            view=View(view.view) if view.view else None,
            status=view.outcome or "failed",
            scores=entry.predictions or {},
            made_by=summary.made_by if summary else "",
            patient=summary.patient if summary else {},
        )

    def _processed(self, view: JobView) -> JobView:
        if view.state != "candidate":
            outcome = "skipped" if view.state == "skipped" else "failed"
            return replace(view, outcome=outcome, reason=view.state_reason)
        try:
            folder = self._publish(view)
        except BackendRunError:
            raise
        except GlamError as error:
            outcome = "skipped" if isinstance(error, NotForThisNetwork) else "failed"
            return replace(view, outcome=outcome, reason=error.message_for(Caller.RUN_DIR))
        return replace(view, outcome="done", folder=self._publisher.data.relative(folder))

    def _publish(self, view: JobView) -> Path:
        accept = self._publisher.config.accept
        mammogram = read_view(Path(view.path), for_processing=accept.for_processing)
        require_sha256(Path(view.path), view.sha256)  # of the file whose header was examined
        result = self._predictor(self._predictor.prepare(mammogram))
        return self._publisher.publish_view(self._job.study_uid, view, mammogram, result)

    def _folders(self) -> Iterator[tuple[Path, list[ObjectEntry]]]:
        """Folders with result objects, and the entries of these objects."""
        data = self._publisher.data
        for folder in (data.root / view.folder for view in self._views if view.folder):
            yield folder, view_entries(folder)
        if self._has_reports:
            folder = data.job_results(self._job.key)
            yield folder, report_entries(folder)

    def _view_entry(self, view: JobView, source: Path) -> ViewEntry:
        entry = ViewEntry(
            file=str(self._files[view.sop_uid].path.relative_to(source)),
            sop_uid=view.sop_uid,
            view=view.view,
            status=view.outcome,
            reason=view.reason,
        )
        if not view.folder:
            return entry
        report = parse_json((self._publisher.data.root / view.folder / REPORT).read_text("utf-8"))
        patches, warnings = tuple(report["patches"]), tuple(report["warnings"])
        return replace(entry, predictions=report["predictions"], patches=patches, warnings=warnings)


def _job_view(file: SourceFile) -> JobView:
    received = file.received
    return JobView(
        sop_uid=received.sop_uid, sop_class=received.sop_class, series_uid=received.series_uid, sha256=file.sha256,
        path=str(file.path.absolute()), state=received.state, state_reason=received.reason or None,
        view=received.view, outcome=None, reason=None, folder=None,
    )  # fmt: skip


def _job(study_uid: str, views: Sequence[JobView]) -> Job:
    key = digest(study_uid, *(text for view in views for text in (view.sop_uid, view.sha256)))
    return Job(id=0, study_uid=study_uid, pseudonym="", key=key, predecessor_key=None, worker="run-dir", lease=0)


def _file_name(entry: ObjectEntry) -> str:
    return f"{entry.series_uid}#{entry.sop_uid}.dcm"
