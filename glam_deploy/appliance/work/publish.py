"""Findings -> folders of results: `finding.json`, `saliency.npz`, pictures, and DICOM objects.

A folder stands whole or not at all. A view's is shared by all jobs that the view is part of.
"""

import json
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import ARRAYS, FINDING, OBJECTS, PICTURE, REPORT, DataFolder, settle, sync
from glam_deploy.appliance.identity import derived_uid
from glam_deploy.appliance.state.jobs import Job, JobView
from glam_deploy.appliance.state.parcels import ResultObject
from glam_deploy.appliance.work.making import Making
from glam_deploy.dicom.results import objects
from glam_deploy.dicom.results.cad_sr import cad_sr
from glam_deploy.dicom.results.measurement_report import measurement_report
from glam_deploy.dicom.results.presentation_state import presentation_state
from glam_deploy.dicom.results.records import Algorithm, Identity, Reference, ViewFinding, ViewOutcome, ViewSummary
from glam_deploy.dicom.results.regions import summarize
from glam_deploy.dicom.results.secondary_capture import secondary_capture
from glam_deploy.dicom.results.segmentation import fractional_segmentation, segmentation
from glam_deploy.outputs import report
from glam_deploy.outputs.arrays import named_arrays, write_npz
from glam_deploy.outputs.overlay import overlay, to_png
from glam_deploy.records import Mammogram, View
from glam_deploy.runtime.result import Result

SERIES_NUMBERS: Mapping[str, int] = MappingProxyType(
    {kind: 9001 + n for n, kind in enumerate(("seg", "seg_fractional", "sc", "gsps", "cad_sr", "sr"))}
)
"""By kind of object; high, so that viewers show a study's own images first."""

_WRITERS: Mapping[str, Callable[[ViewFinding, Algorithm, Identity], Any]] = MappingProxyType(
    {"sc": secondary_capture, "seg": segmentation, "seg_fractional": fractional_segmentation}
)
"""Of what needs nothing but the finding; first what takes longest."""


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """Writes what one network finds."""

    data: DataFolder
    config: Config
    making: Making

    def view_folder(self, view: JobView) -> Path:
        return self.data.view_results(self.making.view_key(view))

    def publish_view(self, study_uid: str, view: JobView, mammogram: Mammogram, result: Result) -> Path:
        """Write all of one view; its folder. Raises OSError as the file system does, DicomError for its header."""
        target = self.view_folder(view)
        # side by side, for the last view of a study is waited for
        with _whole_folder(target) as folder, ThreadPoolExecutor() as threads:
            finding = self._finding(view, mammogram, result)
            drawn = threads.submit(to_png, finding.overlay)
            summary, made = self._write_objects(study_uid, view, finding, folder, threads)
            _write_json(folder / FINDING, {"summary": summary.to_json(), "objects": made})
            write_npz(folder / ARRAYS, named_arrays(result, full=False, save_input=False))
            told = report.to_text(report.done(result, arrays_name=ARRAYS, picture_name=PICTURE))
            (folder / REPORT).write_text(told, "utf-8")
            (folder / PICTURE).write_bytes(drawn.result())
        return target

    def _finding(self, view: JobView, mammogram: Mammogram, result: Result) -> ViewFinding:
        return ViewFinding(
            source=self.data.root / view.path,
            view=mammogram.view,
            saliency=result.source_maps(),
            scores=result.predictions,
            boxes=result.patch_boxes_in_source,
            notices=result.notices,
            overlay=overlay(mammogram.pixels, result),
        )

    def _write_objects(
        self, study_uid: str, view: JobView, finding: ViewFinding, folder: Path, threads: Executor
    ) -> tuple[ViewSummary, list[dict[str, str]]]:
        wanted, algorithm = self.config.results, self.making.algorithm
        begun = {
            kind: threads.submit(write, finding, algorithm, self._view_identity(kind, study_uid, view))
            for kind, write in _WRITERS.items()
            if getattr(wanted, kind)
        }
        shown = objects.reference(begun["seg"].result()) if "seg" in begun else None
        summary = summarize(finding, algorithm, segmentation=shown)
        made = {kind: writing.result() for kind, writing in begun.items()}
        if wanted.gsps:
            identity = self._view_identity("gsps", study_uid, view)
            made["gsps"] = presentation_state(finding.source, summary, algorithm, identity)
        return summary, [_saved(kind, dataset, folder) for kind, dataset in made.items()]

    def _view_identity(self, kind: str, study_uid: str, view: JobView) -> Identity:
        number = list(View).index(View(view.view)) + 1 if view.view else len(View) + 1
        return self._identity(kind, study_uid, self.making.view_key(view), number)

    def _identity(self, kind: str, study_uid: str, key: str, number: int = 1) -> Identity:
        return Identity(
            sop_uid=derived_uid(kind, key),
            series_uid=self.making.series_uid(kind, study_uid),
            series_number=SERIES_NUMBERS[kind],
            instance_number=number,
            created=datetime.now().astimezone(),  # the wall clock of the place, as other modalities write it
        )

    def publish_study(self, job: Job, views: Sequence[JobView]) -> list[ResultObject]:
        """Write the reports on a whole study; every object of it, those of its views too.

        Raises OSError as the file system does, DicomError where no source can be read.
        """
        target = self.data.job_results(job.key)
        shutil.rmtree(target, ignore_errors=True)  # of an attempt that did not come to an end; nobody was told of it
        with _whole_folder(target) as folder:
            made = self._write_reports(job, [self._outcome(view) for view in views], folder)
            _write_json(folder / OBJECTS, made)
        of_views = [self.data.root / view.folder for view in views if view.folder]
        parts = [(folder, _read_json(folder / FINDING)["objects"]) for folder in of_views]
        return [self._object(folder, each) for folder, each in _flat([*parts, (target, made)])]

    def _write_reports(self, job: Job, outcomes: Sequence[ViewOutcome], folder: Path) -> list[dict[str, str]]:
        wanted, algorithm, key = self.config.results, self.making.algorithm, self.making.study_key(job)
        before = self._predecessor(job)
        made: dict[str, Any] = {}
        if wanted.cad_sr:
            identity = self._identity("cad_sr", job.study_uid, key)
            made["cad_sr"] = cad_sr(
                outcomes, algorithm, identity, predecessor=before.get("cad_sr"), probability=wanted.probability
            )
        if wanted.sr:
            identity = self._identity("sr", job.study_uid, key)
            made["sr"] = measurement_report(outcomes, algorithm, identity, predecessor=before.get("sr"))
        return [_saved(kind, dataset, folder) for kind, dataset in made.items()]

    def _outcome(self, view: JobView) -> ViewOutcome:
        summary = _read_json(self.data.root / view.folder / FINDING)["summary"] if view.folder else None
        return ViewOutcome(
            source=self.data.root / view.path,
            image=Reference(sop_class=view.sop_class, sop_uid=view.sop_uid, series_uid=view.series_uid),
            view=View(view.view) if view.view else None,
            outcome=view.outcome or "failed",  # type: ignore[arg-type]  # the schema allows no other word
            reason=view.reason,
            summary=ViewSummary.from_json(summary) if summary else None,
        )

    def _predecessor(self, job: Job) -> dict[str, Reference]:
        """The reports that those of this job replace, by kind; none where they have been cleaned away."""
        path = self.data.job_results(job.predecessor_key) / OBJECTS if job.predecessor_key else None
        if path is None or not path.exists():
            return {}
        names = "sop_class", "sop_uid", "series_uid"
        return {each["kind"]: Reference(**{name: each[name] for name in names}) for each in _read_json(path)}

    def _object(self, folder: Path, each: Mapping[str, str]) -> ResultObject:
        path = self.data.relative(folder / each["file"])
        return ResultObject(sop_uid=each["sop_uid"], sop_class=each["sop_class"], path=path)


def _flat(parts: Sequence[tuple[Path, list[dict[str, str]]]]) -> Iterator[tuple[Path, dict[str, str]]]:
    return ((folder, each) for folder, made in parts for each in made)


def _saved(kind: str, dataset: Any, folder: Path) -> dict[str, str]:
    objects.save(dataset, folder / f"{kind}.dcm")
    return {"kind": kind, "file": f"{kind}.dcm", **asdict(objects.reference(dataset))}


@contextmanager
def _whole_folder(target: Path) -> Iterator[Path]:
    """A folder that is moved to `target` once the block has filled it; one that stands there already is as good."""
    part = target.parent / f".{secrets.token_hex(12)}.part"
    part.mkdir(mode=0o700)
    try:
        yield part
        for path in (*part.iterdir(), part):
            sync(path)
        if not target.exists():
            settle(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, allow_nan=False), "utf-8")


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))
