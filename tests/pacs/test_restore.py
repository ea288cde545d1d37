"""A machine that is lost: a backup made under load is restored, the senders send again, nothing is lost or twice.

And a node that takes over from another one: the first one, when it comes back or wakes, delivers nothing any more.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pacs.appliance import Appliance
from pacs.conftest import dimse_target
from pacs.exams import exam_of, write_exam
from pacs.senders import storescu
from pacs.test_kills import Load, check_study
from pydicom import dcmread
from support.orthanc import Orthanc, free_port, running, wait_for

from glam_deploy.records import View

pytestmark = [
    pytest.mark.timeout(600),
    # pynetdicom does not close a socket whose connection was refused
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
STUDIES = 12


def command(appliance: Appliance, *words: object) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "glam_deploy", *map(str, words), "--config", str(appliance.config)]
    return subprocess.run(program, capture_output=True, text=True, check=False)


def resend(load: Load) -> None:
    """Everything that the sender ever sent, as it does when it is told that the appliance was lost."""
    load.enough.clear()
    for folder in sorted(load.folder.iterdir()):
        load.send_all(sorted(folder.glob("*.dcm")))


@pytest.fixture
def appliance(pacs: Orthanc, bundle: Path, tmp_path: Path) -> Iterator[Appliance]:
    served = Appliance(
        folder=tmp_path / "first",
        bundle=bundle,
        targets=[dimse_target(pacs)],
        dicom_port=pacs.glam_port,
        settings={"standby": {"folder": str(tmp_path / "standby"), "every_s": 1}},
    )
    yield served
    if served.process:
        assert served.stop() in (0, 2, 143)


def load_until(appliance: Appliance, folder: Path, name: str) -> tuple[list[Load], list[threading.Thread]]:
    """Two senders at work, once some results have been delivered and others wait."""
    loads = [
        Load(appliance=appliance, folder=folder / str(n), name=f"{name}{n}", rng=random.Random(f"{name}{n}"))
        for n in range(2)
    ]
    threads = [threading.Thread(target=load.run) for load in loads]
    for thread in threads:
        thread.start()
    wait_for(lambda: delivered(appliance) >= STUDIES // 2, "some deliveries", patience_s=120)
    return loads, threads


def delivered(appliance: Appliance) -> int:
    return appliance.count("SELECT count(*) FROM parcel WHERE state = 'delivered'")


def finish(loads: list[Load], threads: list[threading.Thread]) -> None:
    for load in loads:
        load.enough.set()
    for thread in threads:
        thread.join()


def check_all(pacs: Orthanc, loads: list[Load]) -> None:
    acknowledged = {study: instances for load in loads for study, instances in load.acknowledged.items()}
    assert len(acknowledged) >= STUDIES // 2
    for study, instances in acknowledged.items():
        check_study(pacs, study, instances)


def test_a_backup_under_load_is_restored_after_the_machine_is_lost(bundle: Path, pacs: Orthanc, tmp_path: Path) -> None:
    appliance = Appliance(
        folder=tmp_path / "first", bundle=bundle, targets=[dimse_target(pacs)], dicom_port=pacs.glam_port
    )
    appliance.start()
    try:
        loads, threads = load_until(appliance, tmp_path / "sent", "restore")
        first, again = (command(appliance, "backup", tmp_path / "backup") for _ in range(2))
        assert (first.returncode, again.returncode) == (0, 0), first.stderr + again.stderr
        in_backup = delivered(appliance)
        wait_for(lambda: delivered(appliance) > in_backup + 1, "deliveries that the backup does not have")
        finish(loads, threads)
        appliance.kill_all()
        shutil.rmtree(appliance.data)
        restored = command(appliance, "restore", tmp_path / "backup")
        assert restored.returncode == 0, restored.stderr
        appliance.start()
        for load in loads:
            resend(load)
        appliance.wait_idle(patience_s=300)
        check_all(pacs, loads)
    finally:
        assert appliance.stop() in (0, 143)


def test_a_second_node_takes_over_and_the_first_one_stays_out(
    appliance: Appliance, pacs: Orthanc, bundle: Path, tmp_path: Path
) -> None:
    appliance.start()
    loads, threads = load_until(appliance, tmp_path / "sent", "standby")
    wait_for((tmp_path / "standby/manifest.json").exists, "a copy")
    finish(loads, threads)
    appliance.kill_all()
    second = Appliance(
        folder=tmp_path / "second", bundle=bundle, targets=[dimse_target(pacs)], dicom_port=appliance.dicom_port
    )
    second.configure()
    without = command(second, "restore", tmp_path / "standby")
    assert without.returncode == 2
    assert "add --take-over" in without.stderr
    took = command(second, "restore", tmp_path / "standby", "--take-over")
    assert took.returncode == 0, took.stderr
    second.start()
    try:
        for load in loads:
            resend(load)
        second.wait_idle(patience_s=300)
        check_all(pacs, loads)
        back = command(appliance, "serve")
        assert back.returncode == 2
        assert "has taken over" in back.stderr and "operations.md" in back.stderr
    finally:
        assert second.stop() in (0, 143)


def test_a_node_that_wakes_after_the_take_over_delivers_nothing(bundle: Path, tmp_path: Path) -> None:
    """Its results wait for an archive that is away while it is stopped, and back when it goes on."""
    away = Orthanc(folder=tmp_path / "orthanc", glam_port=free_port())
    first = Appliance(
        folder=tmp_path / "first",
        bundle=bundle,
        targets=[dimse_target(away)],
        dicom_port=away.glam_port,
        settings={"standby": {"folder": str(tmp_path / "standby"), "every_s": 1}},
    )
    first.start()
    storescu(first, write_exam(tmp_path / "exam", "wakes", [View.L_CC]))
    wait_for(lambda: first.count("SELECT count(*) FROM parcel WHERE state = 'pending'"), "results that wait")
    uid = dcmread(tmp_path / "exam/L-CC.dcm").SOPInstanceUID
    wait_for(lambda: list((tmp_path / "standby/files/spool").rglob(f"{uid}.dcm")), "the image in the copy")
    assert first.process
    processes = [first.process.pid, *first.pids().values()]
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    second = Appliance(folder=tmp_path / "second", bundle=bundle, targets=[dimse_target(away)])
    second.configure()
    took = command(second, "restore", tmp_path / "standby", "--take-over")
    assert took.returncode == 0, took.stderr
    with running(away):
        for pid in processes:
            os.kill(pid, signal.SIGCONT)
        assert first.process.wait(120) == 2
        assert "has taken over" in first.log()
        study = exam_of("wakes").uid("study")
        assert away.instances(study) == []
        second.start()
        try:
            second.wait_idle()
            assert len(away.instances(study)) == 4
        finally:
            assert second.stop() in (0, 143)
