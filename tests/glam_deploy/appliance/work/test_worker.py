"""The worker in this process, with a network of plain arithmetic: what it leaves, and what it does when things fail."""

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from support.jobs import config_of, made, rows, send, stub
from support.tiny_bundle import write_tiny_bundle
from support.until import until
from support.working import BARE, ONE_TARGET, assemble, component, states, working

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.state.jobs import JobView, JobViewOutcome
from glam_deploy.appliance.work import result_objects, worker
from glam_deploy.appliance.work.result_objects import Publisher
from glam_deploy.appliance.work.steps import PreparedView, ViewSteps
from glam_deploy.decoding.view_reader import Stopped, ViewReaders
from glam_deploy.errors import BackendRunError, BackendUnavailable, InputError, UsageError
from glam_deploy.records import View
from glam_deploy.runtime.pipeline import Pipeline


def test_study_becomes_results_and_one_delivery_a_target(tmp_path: Path) -> None:
    config = config_of(tmp_path, ONE_TARGET)
    send(config, View.L_CC, View.R_MLO)
    assemble(config)
    with working(config) as data:
        until(lambda: states(data) == ["done"])

    folders = [data.root / str(folder) for (folder,) in rows(data, "SELECT folder FROM job_view")]
    for folder in folders:
        assert {"finding.json", "saliency.npz", "overlay.png", "report.json", "seg.dcm", "sc.dcm"} <= {
            path.name for path in folder.iterdir()
        }
        assert np.load(folder / "saliency.npz")["saliency_global"].shape == (2, 184, 120)
    (job_folder,) = (data.root / "results/jobs").iterdir()
    written = {str(dcmread(path).SOPInstanceUID) for path in [*data.root.glob("results/**/*.dcm")]}
    delivery = {uid for (uid,) in rows(data, "SELECT sop_uid FROM parcel_object WHERE target = 'pacs'")}
    assert written == delivery
    assert len(delivery) == 2 * len(folders) + len(list(job_folder.glob("*.dcm"))) == 6
    assert all((data.root / str(path)).is_file() for (path,) in rows(data, "SELECT path FROM parcel_object"))


def test_results_lie_in_the_patients_own_study_and_are_made_the_same_again(tmp_path: Path) -> None:
    uids = []
    for name in ("a", "b"):
        config = config_of(tmp_path / name, ONE_TARGET) if (tmp_path / name).mkdir() is None else None
        assert config
        send(config, View.L_CC)
        assemble(config)
        with working(config) as data:
            until(lambda: states(data) == ["done"])
        (source,) = data.root.glob("spool/studies/*/*.dcm")
        made_of_it = [dcmread(path) for path in sorted(data.root.glob("results/**/*.dcm"))]
        assert {each.StudyInstanceUID for each in made_of_it} == {dcmread(source).StudyInstanceUID}
        uids.append(sorted((each.SOPInstanceUID, each.SeriesInstanceUID) for each in made_of_it))
    assert uids[0] == uids[1]


def test_late_view_gets_a_superseding_result_that_uses_what_was_found(tmp_path: Path) -> None:
    config, computed = config_of(tmp_path, ONE_TARGET), []

    class Counting(Pipeline):
        def submit(self, *given: object, **options: object):  # type: ignore[no-untyped-def, override]
            computed.append(1)
            return super().submit(*given, **options)  # type: ignore[arg-type]

    def counting(config: Config) -> Pipeline:
        found = stub(config)
        found.__class__ = Counting
        return found

    send(config, View.L_CC)
    assemble(config)
    with working(config, counting) as data:
        until(lambda: states(data) == ["done"])
        send(config, View.R_CC)
        assemble(config)
        until(lambda: states(data) == ["done", "done"])
    assert len(computed) == 2
    assert rows(data, "SELECT predecessor FROM job WHERE id = 2") == [(1,)]
    counts = rows(data, "SELECT parcel_id, count(*) FROM parcel_object GROUP BY parcel_id")
    assert counts == [(1, 4), (2, 4)], "objects that were sent before are not sent again"
    (late,) = [path for path in data.root.glob("results/jobs/*/cad_sr.dcm") if _before(path)]
    assert _before(late) in {dcmread(path).SOPInstanceUID for path in data.root.glob("results/jobs/*/cad_sr.dcm")}


def test_view_that_comes_meanwhile_is_worked_on_while_those_before_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, computed, second = config_of(tmp_path, ONE_TARGET), [], threading.Event()

    def watched(config: Config) -> Pipeline:
        def note(image: Any) -> bool:
            if not computed:  # the first is at hand when the others come
                send(config, View.R_CC, View.L_MLO)
                assemble(config)
            computed.append(image.view)
            if image.view is not View.L_CC:
                second.set()
            return False

        return refusing(stub(config), note, InputError("never"))

    def patient(self: Publisher, study_uid: str, view: JobView, *found: Any) -> Path:
        assert view.view != "L-CC" or second.wait(60), "the network stands still while the first view is written"
        return write(self, study_uid, view, *found)

    write = Publisher.publish_view
    monkeypatch.setattr(Publisher, "publish_view", patient)
    send(config, View.L_CC)
    assemble(config)
    with working(config, watched) as data:
        until(lambda: states(data) == ["superseded", "done"])
    assert sorted(computed) == sorted([View.L_CC, View.R_CC, View.L_MLO])
    assert rows(data, "SELECT DISTINCT job_id, outcome FROM job_view WHERE outcome NOT NULL") == [(2, "done")]
    assert rows(data, "SELECT DISTINCT job_id FROM parcel") == [(2,)]


@pytest.mark.parametrize("fails", [False, True])
def test_view_that_comes_while_the_network_is_busy_is_read_before_it_is_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    config, read = config_of(tmp_path, BARE), threading.Event()

    def noted(self: ViewSteps, view: JobView) -> PreparedView | JobViewOutcome:
        seen = reading(self, view)
        if view.view == "R-CC":
            read.set()
        return seen

    def busy(config: Config) -> Pipeline:
        def until_the_late_one_is_read(image: Any) -> bool:
            if image.view is View.R_CC or read.is_set():
                return False
            send(config, View.R_CC)
            assemble(config)
            assert read.wait(60)
            return fails

        return refusing(stub(config), until_the_late_one_is_read, BackendRunError("made up: once"))

    reading = ViewSteps.read
    monkeypatch.setattr(ViewSteps, "read", noted)
    send(config, View.L_CC)
    assemble(config)
    with working(config, busy) as data:
        until(lambda: states(data) == ["superseded", "done"])
    assert rows(data, "SELECT job_id, outcome FROM job_view WHERE outcome NOT NULL") == [(2, "done")] * 2


@pytest.mark.parametrize("error", [BackendRunError("made up: NaN"), InputError("made up: all black")])
def test_error_while_late_views_are_looked_for_ends_the_search(tmp_path: Path, error: Exception) -> None:
    config = config_of(tmp_path, '[worker]\nbundle = "bundle"\nattempts = 1', BARE)
    send(config, View.L_CC)
    assemble(config)
    with working(config, lambda config: refusing(stub(config), lambda image: True, error)) as data:
        until(lambda: states(data) in (["dead"], ["done"]))


def _before(report: Path) -> str | None:
    replaced = dcmread(report).get("PredecessorDocumentsSequence")
    return replaced and replaced[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID


def test_view_that_cannot_be_worked_on_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    config = config_of(tmp_path, BARE)

    def picky(config: Config) -> Pipeline:
        return refusing(stub(config), lambda image: image.view is View.R_CC, InputError("made up: all black"))

    send(config, View.L_CC, View.R_CC)
    assemble(config)
    with working(config, picky) as data:
        until(lambda: states(data) == ["done"])
    found = rows(data, "SELECT view, outcome, v.reason FROM job_view v JOIN instance USING (sop_uid) ORDER BY view")
    assert found == [("L-CC", "done", None), ("R-CC", "failed", "made up: all black")]


def test_study_of_failed_views_alone_gets_reports_that_say_so(tmp_path: Path) -> None:
    config = config_of(tmp_path, ONE_TARGET)
    send(config, View.L_CC)
    assemble(config)
    with working(config, lambda c: refusing(stub(c), lambda image: True, InputError("made up"))) as data:
        until(lambda: states(data) == ["done"])
    assert [path.name for path in sorted(data.root.glob("results/jobs/*/*.dcm"))] == ["cad_sr.dcm", "sr.dcm"]
    assert len(rows(data, "SELECT * FROM parcel_object")) == 2


def refusing(pipeline: Pipeline, which: Callable[..., bool], error: Exception) -> Pipeline:
    """`pipeline`, which raises `error` for some views."""
    run = pipeline.submit

    def submit(image, **options):  # type: ignore[no-untyped-def]
        if which(image.view):
            raise error
        return run(image, **options)

    pipeline.submit = submit  # type: ignore[method-assign]
    return pipeline


def test_image_that_the_engine_fails_on_ends_its_job_and_no_other(tmp_path: Path) -> None:
    config = config_of(tmp_path, '[worker]\nbundle = "bundle"\nattempts = 2', BARE)
    opened = []

    def fragile(config: Config) -> Pipeline:
        opened.append(1)
        return refusing(stub(config), lambda image: image.view is View.R_MLO, BackendRunError("made up: NaN"))

    send(config, View.R_MLO, exam="bad")
    send(config, View.L_CC, exam="good")
    assemble(config)
    with working(config, fragile) as data:
        until(lambda: states(data) == ["dead", "done"])
        assert component(data)[0] == "ready"
    assert rows(data, "SELECT attempts, reason FROM job WHERE id = 1") == [(2, "the engine failed: made up: NaN")]
    assert len(opened) == 3, "opened anew after each failure"


def test_engine_that_fails_on_everything_costs_one_attempt_and_is_told_until_it_works(tmp_path: Path) -> None:
    config, broken = config_of(tmp_path, BARE), threading.Event()
    broken.set()

    def failing(config: Config) -> Pipeline:
        return refusing(stub(config), lambda image: broken.is_set(), BackendRunError("made up: the GPU is gone"))

    for exam in ("a", "b", "c"):
        send(config, View.L_CC, exam=exam)
    assemble(config)
    with working(config, failing) as data:
        until(lambda: component(data)[0] == "failing")
        until(lambda: rows(data, "SELECT attempts FROM job") == [(1,), (0,), (0,)])
    for _ in range(3):  # as the supervisor starts it again
        with working(config, failing) as data:
            until(lambda: component(data) == ("failing", {"reason": "made up: the GPU is gone"}))
    assert rows(data, "SELECT state, attempts FROM job") == [("ready", 1), ("ready", 0), ("ready", 0)]
    broken.clear()
    with working(config, failing) as data:
        until(lambda: states(data) == ["done"] * 3)
        until(lambda: component(data)[0] == "ready")


def test_missing_bundle_is_told_and_taken_up_when_it_is_there(tmp_path: Path) -> None:
    config = config_of(tmp_path, '[worker]\nbundle = "bundle"\nthreads = 1', BARE)
    send(config, View.L_CC)
    assemble(config)
    with working(config, worker.load_predictor) as data:
        until(lambda: component(data)[0] == "failing")
        assert "bundle" in str(component(data)[1]["reason"])
        write_tiny_bundle(tmp_path / "elsewhere").rename(tmp_path / "bundle")
        until(lambda: states(data) == ["done"])
        until(lambda: component(data)[0] == "ready")
        assert component(data)[1].items() >= {"engine": "onnx", "gate": "reference", "patches": 1}.items()


def test_engine_that_is_not_there_costs_no_job(tmp_path: Path) -> None:
    config = config_of(tmp_path, BARE)

    def absent(config: Config) -> Pipeline:
        raise BackendUnavailable("made up: no such library")

    send(config, View.L_CC)
    assemble(config)
    with working(config, absent) as data:
        until(lambda: component(data) == ("failing", {"reason": "made up: no such library"}))
    assert (states(data), rows(data, "SELECT attempts FROM job")) == (["ready"], [(0,)])


@pytest.mark.parametrize("is_reading", [False, True])
def test_worker_that_is_stopped_gives_its_job_back_and_keeps_what_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_reading: bool
) -> None:
    """`is_reading`: the last view is still being read, which the stop cuts off."""
    config, reached, go_on = config_of(tmp_path, BARE), threading.Event(), threading.Event()
    stop, read, paths = threading.Event(), ViewReaders.read, []

    def cut_off(self: ViewReaders, path: Path, **options: object) -> object:
        paths.append(path)
        if is_reading and len(paths) == 4:
            stop.wait(60)
            raise Stopped
        return read(self, path, **options)

    monkeypatch.setattr(ViewReaders, "read", cut_off)

    def waiting(config: Config) -> Pipeline:
        def at_last(image: object) -> bool:
            if image.view is View.R_MLO:  # type: ignore[attr-defined]
                reached.set()
                go_on.wait(60)
            return False

        return refusing(stub(config), at_last, AssertionError())

    send(config, View.L_CC, View.R_CC, View.R_MLO, View.L_MLO)
    assemble(config)
    thread = threading.Thread(target=worker.run, args=(config, stop), kwargs={"loader": waiting})
    thread.start()
    assert reached.wait(60)
    stop.set()
    go_on.set()
    thread.join()
    data = made(config)
    assert rows(data, "SELECT state, attempts, leased_by FROM job") == [("ready", 0, None)]
    done = rows(data, "SELECT view FROM job_view JOIN instance USING (sop_uid) WHERE outcome = 'done' ORDER BY arrival")
    assert done == [("L-CC",), ("R-CC",), ("R-MLO",)]
    with working(config) as data:
        until(lambda: states(data) == ["done"])


def test_full_disk_costs_no_attempt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The first error is as numpy's, without a reason of the system."""
    config, full, tried = config_of(tmp_path, BARE), threading.Event(), []
    full.set()
    write = result_objects.write_npz

    def on_full_disk(path: Path, named: object) -> None:
        tried.append(path)
        if full.is_set():
            raise OSError("1000 requested and 10 written") if len(tried) == 1 else OSError(28, os.strerror(28))
        write(path, named)  # type: ignore[arg-type]

    monkeypatch.setattr(result_objects, "write_npz", on_full_disk)
    monkeypatch.setattr(worker, "STORAGE_RETRY_S", 0.05)
    send(config, View.L_CC)
    assemble(config)
    with working(config) as data:
        until(lambda: len(tried) >= 5)
        reason = "cannot write results or read views (No space left on device)"
        until(lambda: rows(data, "SELECT reason FROM job") == [(reason,)])
        full.clear()
        until(lambda: states(data) == ["done"])
    assert rows(data, "SELECT attempts FROM job") == [(0,)]
    assert not list(data.root.rglob("*.part"))
    assert "the system gives no reason" in caplog.text and "None" not in caplog.text


def test_damaged_device_uid_is_in_no_result(tmp_path: Path) -> None:
    config = config_of(tmp_path, ONE_TARGET)
    file = made(config).root / "device.uid"
    send(config, View.L_CC)
    assemble(config)
    for damaged in (b"x", b"", b"2.25.007", b"2.25.1\n", b"\xff"):
        file.write_bytes(damaged)
        with pytest.raises(UsageError, match=r"device\.uid holds no UID .*: restore it from a backup"):
            worker.run(config, threading.Event(), loader=stub)
    file.unlink()
    with working(config) as data:
        until(lambda: states(data) == ["done"])
    (report, *_) = data.root.glob("results/jobs/**/*.dcm")
    assert str(dcmread(report).DeviceUID) == file.read_text()


def test_nothing_that_is_told_names_the_patient(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = config_of(tmp_path, BARE)

    def quoting(config: Config) -> Pipeline:
        return refusing(stub(config), lambda image: True, ValueError("PHANTOM^GLAM is no number"))

    send(config, View.L_CC)
    assemble(config)
    with caplog.at_level("DEBUG"), working(config, quoting) as data:
        until(lambda: states(data) == ["done"])
    ((reason,),) = rows(data, "SELECT reason FROM job_view")
    assert str(reason).startswith("ValueError in ")
    told = caplog.text.encode() + b"".join(path.read_bytes() for path in data.audit.iterdir())
    assert b"PHANTOM" not in told + data.database.read_bytes()
