"""Findings -> a view's folder of results: `finding.json`, `saliency.npz`, pictures, and DICOM objects.

It stands whole or not at all, and is shared by all jobs that the view is part of.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import ARRAYS, FINDING, PICTURE, REPORT, DataFolder
from glam_deploy.appliance.state.jobs import JobView
from glam_deploy.appliance.work.files import save_object, whole_folder, write_json
from glam_deploy.appliance.work.making import Making
from glam_deploy.appliance.work.reports import Reports
from glam_deploy.dicom.results import objects
from glam_deploy.dicom.results.presentation_state import presentation_state
from glam_deploy.dicom.results.records import Identity, ViewFinding, ViewSummary
from glam_deploy.dicom.results.regions import summarize
from glam_deploy.dicom.results.secondary_capture import secondary_capture
from glam_deploy.dicom.results.segmentation import fractional_segmentation, segmentation
from glam_deploy.outputs import report
from glam_deploy.outputs.arrays import named_arrays, write_npz
from glam_deploy.outputs.overlay import overlay, to_png
from glam_deploy.outputs.tint import Picture
from glam_deploy.records import Mammogram, Notice, View
from glam_deploy.runtime.result import Result

Begun = dict[str, Future[Any]]
"""Objects that other threads are making, by kind."""


@dataclass(frozen=True, kw_only=True)
class Publisher:
    """Writes what one network finds."""

    data: DataFolder
    config: Config
    making: Making

    @cached_property
    def reports(self) -> Reports:
        """On the studies that the views are part of."""
        return Reports(data=self.data, config=self.config, making=self.making)

    def view_folder(self, view: JobView) -> Path:
        return self.data.view_results(self.making.view_key(view))

    def publish_view(self, study_uid: str, view: JobView, mammogram: Mammogram, result: Result) -> Path:
        """Write all of one view; its folder. Raises OSError as the file system does, DicomError for its header."""
        target, identify = self.view_folder(view), partial(self._identity, study_uid, view)
        finding = self._finding(view, mammogram, result)
        # side by side, for the last view of a study is waited for
        with whole_folder(target) as folder, ThreadPoolExecutor() as threads:
            picture = threads.submit(overlay, mammogram.pixels, result)
            drawn = threads.submit(lambda: to_png(picture.result()))
            begun = self._begin_objects(finding, picture, identify, threads)
            summary = self._summary(finding, begun)
            picture.result()  # unlike its compression, drawing needs Python's lock, which drafting keeps
            self.reports.draft(view, summary)
            self._write_finding(finding, summary, begun, identify, folder)
            write_npz(folder / ARRAYS, named_arrays(result, full=False, save_input=False))
            told = report.done(result, arrays_name=ARRAYS, picture_name=PICTURE)
            told["warnings"] = [{"code": notice.code, "message": notice.message} for notice in finding.notices]
            (folder / REPORT).write_text(report.to_text(told), "utf-8")
            (folder / PICTURE).write_bytes(drawn.result())
        return target

    def _finding(self, view: JobView, mammogram: Mammogram, result: Result) -> ViewFinding:
        return ViewFinding(
            source=self.data.root / view.path,
            view=mammogram.view,
            saliency=result.source_maps(),
            scores=result.predictions,
            boxes=result.patch_boxes_in_source,
            notices=(*result.notices, *_kept_otherwise(view, mammogram)),
        )

    def _begin_objects(
        self,
        finding: ViewFinding,
        picture: Future[Picture],
        identify: Callable[[str], Identity],
        threads: Executor,
    ) -> Begun:
        wanted, algorithm = self.config.results, self.making.algorithm
        writers: dict[str, Callable[[Identity], Any]] = {
            "sc": lambda identity: secondary_capture(finding, picture.result(), algorithm, identity),
            "seg": lambda identity: segmentation(finding, algorithm, identity),
            "seg_fractional": lambda identity: fractional_segmentation(finding, algorithm, identity),
        }
        return {kind: threads.submit(write, identify(kind)) for kind, write in writers.items() if getattr(wanted, kind)}

    def _summary(self, finding: ViewFinding, begun: Begun) -> ViewSummary:
        shown = objects.reference(begun["seg"].result()) if "seg" in begun else None
        return summarize(finding, self.making.algorithm, segmentation=shown)

    def _write_finding(
        self,
        finding: ViewFinding,
        summary: ViewSummary,
        begun: Begun,
        identify: Callable[[str], Identity],
        folder: Path,
    ) -> None:
        made = {kind: writing.result() for kind, writing in begun.items()}
        if self.config.results.gsps:
            algorithm, identity = self.making.algorithm, identify("gsps")
            made["gsps"] = presentation_state(finding.source, summary, algorithm, identity)
        told = [save_object(kind, dataset, folder) for kind, dataset in made.items()]
        write_json(folder / FINDING, {"summary": summary.to_json(), "objects": told})

    def _identity(self, study_uid: str, view: JobView, kind: str) -> Identity:
        number = list(View).index(View(view.view)) + 1 if view.view else len(View) + 1
        return self.making.identity(kind, study_uid, self.making.view_key(view), number)


def _kept_otherwise(view: JobView, mammogram: Mammogram) -> Iterator[Notice]:
    """Where the mammogram has no valid UID, by which name this appliance knows it."""
    stored = mammogram.source.uids
    if mammogram.source.kind == "dicom" and view.sop_uid != stored.get("SOPInstanceUID"):
        told = (
            f"SOPInstanceUID is no valid UID (PS3.5 section 9.1): the appliance keeps the image as {view.sop_uid}, and "
            "results refer to it by the identifier that it has"
        )
        yield Notice(code="uid-derived", message=told)
