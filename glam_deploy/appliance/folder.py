"""A folder of DICOM files -> a folder of results, for hosts that call a program: no spool, no database, no network.

The objects are those that the worker makes of the same files, weights and settings. All is made in a hidden folder
inside the target; objects are moved to their names first, `result.json` last.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from glam_deploy import images
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import FINDING, OBJECTS, REPORT, DataFolder, sync
from glam_deploy.appliance.identity import derived_uid, digest, kept
from glam_deploy.appliance.state.jobs import Job, JobView
from glam_deploy.appliance.work.files import read_json
from glam_deploy.appliance.work.making import making_of
from glam_deploy.appliance.work.predictor import Predictor
from glam_deploy.appliance.work.publish import Publisher
from glam_deploy.dicom.read import read_view
from glam_deploy.dicom.received import Received, examine
from glam_deploy.errors import BackendRunError, Caller, GlamError, NotForThisNetwork
from glam_deploy.outputs.report import STATEMENT
from glam_deploy.reading import find_inputs

RESULT = "result.json"
SCHEMA = "glam-deploy.run-dir"
SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Found:
    """A DICOM file of the folder."""

    path: Path
    sha256: str
    received: Received


@dataclass(frozen=True, kw_only=True)
class Passed:
    """A file that gets no result of its own, and why."""

    path: Path
    status: str
    """"skipped" or "failed"."""
    reason: str


def work_through(source: Path, target: Path, predictor: Predictor, config: Config) -> dict[str, Any]:
    """Work on every mammogram in `source`, write everything into `target`, and give back what `result.json` says.

    `config`: `accept` and `results` count; the rest is left aside. `target` is an empty folder. Raises UsageError where
    `source` holds no file that may be an image, BackendRunError where the engine fails, OSError as the file system
    does; `target` is then as it was.
    """
    found, passed = _look(source, config)
    with tempfile.TemporaryDirectory(prefix=".glam-deploy-", dir=target) as room:
        publisher = _publisher(Path(room), predictor, config)
        studies = [_Study(publisher, predictor, each).work() for each in _by_study(found)]
        said = {
            "schema": SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "statement": STATEMENT,
            "studies": [study.told(source) for study in studies],
            "others": [_told_passed(each, source) for each in passed],
            "provenance": dict(predictor.provenance),
        }
        (Path(room) / RESULT).write_text(json.dumps(said, indent=2, allow_nan=False) + "\n", "utf-8")
        for file, name in (*(pair for study in studies for pair in study.files()), (Path(room) / RESULT, RESULT)):
            sync(file)
            file.replace(target / name)
        sync(target)
    return said


def _look(source: Path, config: Config) -> tuple[list[Found], list[Passed]]:
    """Every file that may be DICOM: mammograms, and all others."""
    found: dict[str, Found] = {}
    passed: list[Passed] = []
    for path in find_inputs([source]):
        if path.suffix.lower() in images.SUFFIXES:
            passed.append(Passed(path=path, status="skipped", reason="the file is no DICOM"))
            continue
        try:
            received = kept(examine(path, for_processing=config.accept.for_processing))
        except GlamError as error:
            passed.append(Passed(path=path, status="failed", reason=error.told(Caller.APPLIANCE)))
            continue
        if not received.is_mammogram:
            passed.append(Passed(path=path, status="skipped", reason=received.reason))
        elif received.sop_uid in found:
            passed.append(Passed(path=path, status="skipped", reason="the same instance lies in another file"))
        else:
            sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
            found[received.sop_uid] = Found(path=path, sha256=sha256, received=received)
    return list(found.values()), passed


def _by_study(found: Iterable[Found]) -> Iterator[list[Found]]:
    studies: dict[str, list[Found]] = {}
    for each in found:
        studies.setdefault(each.received.study_uid, []).append(each)
    return iter(studies.values())


def _publisher(room: Path, predictor: Predictor, config: Config) -> Publisher:
    """One that writes below `room`, under the name of an installation that the bundle stands for."""
    data = DataFolder(root=room / "data")
    data.make()
    (data.root / "device.uid").write_text(derived_uid("run-dir", predictor.provenance["bundle"]["id"]), "ascii")
    return Publisher(data=data, config=config, making=making_of(predictor, config, data))


class _Study:
    """The mammograms of one study, and what became of them."""

    def __init__(self, publisher: Publisher, predictor: Predictor, found: Sequence[Found]) -> None:
        self._publisher, self._predictor = publisher, predictor
        self._paths = {each.received.sop_uid: each.path for each in found}
        self._views = [_job_view(each) for each in sorted(found, key=lambda each: each.received.sop_uid)]
        self._job = _job(found[0].received.study_uid, self._views)

    def work(self) -> "_Study":
        self._views = [self._settled(view) for view in self._views]
        self._publisher.reports.publish(self._job, self._views)
        return self

    def files(self) -> Iterator[tuple[Path, str]]:
        """Each object's file and the name that it gets: the two UIDs by which mercure names files."""
        for folder, made in self._made():
            yield from ((folder / each["file"], _name(each)) for each in made)

    def told(self, source: Path) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "study_uid": self._job.study_uid,
            "views": [self._told_view(view, source) for view in self._views],
            "objects": [
                {"file": _name(each), "kind": each["kind"], "sop_class": each["sop_class"], "sop_uid": each["sop_uid"]}
                for _, made in self._made()
                for each in made
            ],
        }

    def _settled(self, view: JobView) -> JobView:
        if view.state != "candidate":
            outcome = "skipped" if view.state == "skipped" else "failed"
            return replace(view, outcome=outcome, reason=view.state_reason)
        try:
            folder = self._publish(view)
        except BackendRunError:
            raise
        except GlamError as error:
            outcome = "skipped" if isinstance(error, NotForThisNetwork) else "failed"
            return replace(view, outcome=outcome, reason=error.told(Caller.APPLIANCE))
        return replace(view, outcome="done", folder=self._publisher.data.relative(folder))

    def _publish(self, view: JobView) -> Path:
        accept = self._publisher.config.accept
        mammogram = read_view(Path(view.path), for_processing=accept.for_processing)
        result = self._predictor(self._predictor.prepare(mammogram))
        return self._publisher.publish_view(self._job.study_uid, view, mammogram, result)

    def _made(self) -> Iterator[tuple[Path, list[dict[str, str]]]]:
        """Folders and the objects in them."""
        data = self._publisher.data
        for folder in (data.root / view.folder for view in self._views if view.folder):
            yield folder, read_json(folder / FINDING)["objects"]
        folder = data.job_results(self._job.key)
        yield folder, read_json(folder / OBJECTS)

    def _told_view(self, view: JobView, source: Path) -> dict[str, Any]:
        told = {
            "file": str(self._paths[view.sop_uid].relative_to(source)),
            "sop_uid": view.sop_uid,
            "view": view.view,
            "status": view.outcome,
            "reason": view.reason,
        }
        if not view.folder:
            return told
        report = json.loads((self._publisher.data.root / view.folder / REPORT).read_text("utf-8"))
        return told | {key: report[key] for key in ("predictions", "patches", "warnings")}


def _job_view(found: Found) -> JobView:
    received = found.received
    return JobView(
        sop_uid=received.sop_uid, sop_class=received.sop_class, series_uid=received.series_uid, sha256=found.sha256,
        path=str(found.path.absolute()), state=received.state, state_reason=received.reason or None,
        view=received.view, outcome=None, reason=None, folder=None,
    )  # fmt: skip


def _job(study_uid: str, views: Sequence[JobView]) -> Job:
    key = digest(study_uid, *(text for view in views for text in (view.sop_uid, view.sha256)))
    return Job(id=0, study_uid=study_uid, pseudonym="", key=key, predecessor_key=None, worker="run-dir")


def _name(made: dict[str, str]) -> str:
    return f"{made['series_uid']}#{made['sop_uid']}.dcm"


def _told_passed(passed: Passed, source: Path) -> dict[str, str]:
    return {"file": str(passed.path.relative_to(source)), "status": passed.status, "reason": passed.reason}
