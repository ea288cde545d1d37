"""A PACS that is away, a disk that is full: nothing is lost, and all goes on by itself."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pacs.appliance import Appliance
from pacs.conftest import cad_target, dimse_target
from pacs.exams import exam_of, write_exam
from pacs.results import counts
from pacs.senders import dcmsend, storescu
from pydicom.uid import MammographyCADSRStorage
from support.orthanc import Orthanc, free_port, running, wait_for

from glam_deploy.records import View

STUDIES = 200


@pytest.fixture
def away(tmp_path: Path) -> Iterator[Orthanc]:
    """A PACS that was never started."""
    orthanc = Orthanc(folder=tmp_path / "orthanc", glam_port=free_port())
    yield orthanc
    orthanc.stop()


@pytest.fixture
def workstation(away: Orthanc, tmp_path: Path) -> Iterator[Orthanc]:
    """A second target, which is there all the time."""
    with running(Orthanc(folder=tmp_path / "workstation", glam_port=away.glam_port)) as orthanc:
        yield orthanc


@pytest.fixture
def appliance(away: Orthanc, workstation: Orthanc, bundle: Path, tmp_path: Path) -> Iterator[Appliance]:
    served = Appliance(
        folder=tmp_path / "appliance",
        bundle=bundle,
        targets=[dimse_target(away), cad_target(workstation)],
        dicom_port=away.glam_port,
        # the fewest objects, for the matter is their number
        settings={"assemble": {"quiet_s": 0}, "results": {"sc": False, "sr": False}},
    )
    served.start()
    yield served
    assert served.stop() in (0, 143)


@pytest.mark.timeout(900)
def test_a_pacs_that_is_away_for_two_hundred_studies(
    appliance: Appliance, away: Orthanc, workstation: Orthanc, tmp_path: Path
) -> None:
    seeds = [f"away{n:03d}" for n in range(STUDIES)]
    files = [file for seed in seeds for file in write_exam(tmp_path / seed, seed, [View.L_CC])]
    dcmsend(appliance, files)
    delivered = "SELECT count(*) FROM parcel WHERE target = ? AND state = 'delivered'"
    wait_for(lambda: appliance.count(delivered, "workstation") == STUDIES, "the other to get all", patience_s=600)
    assert appliance.count("SELECT count(*) FROM parcel WHERE target = 'pacs' AND state = 'pending'") == STUDIES
    assert appliance.count("SELECT max(attempts) FROM parcel") <= 1, "an absent target is nobody's failed attempt"
    assert appliance.get("/health/live").status_code == 200
    arrived = [row["study_uid"] for row in appliance.rows("SELECT study_uid FROM instance ORDER BY arrival")]
    with running(away):
        appliance.wait_idle(patience_s=120)
        assert appliance.count(delivered, "pacs") == STUDIES
        assert studies_in_order(away) == arrived == [exam_of(seed).uid("study") for seed in seeds]
    assert studies_in_order(workstation) == arrived
    (study, *_) = arrived
    assert set(counts(workstation.retrieve(study))) == {MammographyCADSRStorage}


def studies_in_order(pacs: Orthanc) -> list[str]:
    """Study Instance UIDs in the order in which the PACS came to know them."""
    changes = pacs.get("/changes", limit="100000")["Changes"]
    new = [change["ID"] for change in changes if change["ChangeType"] == "NewStudy"]
    return [pacs.get(f"/studies/{study}")["MainDicomTags"]["StudyInstanceUID"] for study in new]


def test_a_full_disk_is_told_and_passes(bundle: Path, tmp_path: Path) -> None:
    """A file system of its own, so small that a filler takes all of it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        _fill_and_free(disk, bundle, tmp_path)
    finally:
        subprocess.run(["umount", disk], check=True)


def _fill_and_free(disk: Path, bundle: Path, tmp_path: Path) -> None:
    appliance = Appliance(folder=disk, bundle=bundle, settings={"receive": {"reserve_bytes": 24 << 20}})
    before, meanwhile = (write_exam(tmp_path / name, name, [View.L_CC]) for name in ("before", "meanwhile"))
    appliance.start()
    try:
        storescu(appliance, before)
        filler = disk / "filler"
        filler.write_bytes(b"\0" * (50 << 20))
        said = _refused(appliance, meanwhile)
        assert "Received Store Response (Refused: OutOfResources)" in said
        assert appliance.count("SELECT count(*) FROM instance") == 1
        assert list((appliance.data / "spool/incoming").iterdir()) == []
        wait_for(lambda: appliance.get("/health/ready").status_code == 503, "to be not ready")
        filler.unlink()
        storescu(appliance, meanwhile)
        wait_for(lambda: appliance.get("/health/ready").status_code == 200, "to be ready again")
        appliance.wait_idle()
        assert appliance.count("SELECT count(*) FROM job WHERE state = 'done'") == 2
    finally:
        appliance.stop()


def _refused(appliance: Appliance, files: list[Path]) -> str:
    """What storescu says of an instance that was not taken."""
    command = ["storescu", "-v", "-aet", "STORESCU", "-aec", "GLAM", "127.0.0.1", str(appliance.dicom_port)]
    done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    return done.stdout + done.stderr
