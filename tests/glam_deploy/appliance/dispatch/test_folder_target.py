"""A folder as a target: files of the same bytes, whole or absent; a folder that is away waits as an archive does."""

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import UID
from support.outbox import Outbox, write_items

from glam_deploy.appliance.config import Config, Target, Worker
from glam_deploy.appliance.targets import is_own_address, target_client
from glam_deploy.cli.doctor_network import target_findings
from glam_deploy.dicom.net.delivery import Outcome
from glam_deploy.dicom.net.folder import FolderSession
from glam_deploy.errors import PeerBroke, PeerDeclined, PeerError

STUDY = "1.2.3"


def target_of(folder: Path) -> Target:
    return Target(name="pacs", folder=folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "results of studies"
    folder.mkdir()
    return folder


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if not path.is_dir())


def test_each_object_is_a_file(outbox: Outbox, folder: Path) -> None:
    uids = outbox.post(STUDY)
    outbox.worker(target_of(folder)).step()
    assert outbox.states() == ["delivered"]
    sent = {path.read_bytes() for path in (outbox.root / "results").glob("*.dcm")}
    found = files_in(folder)
    assert {path.read_bytes() for path in found} == sent
    assert {path.stem for path in found} == set(uids)
    for path in found:
        dataset = dcmread(path)
        assert (path.parent.name, path.name) == (dataset.StudyInstanceUID, f"{dataset.SOPInstanceUID}.dcm")
        assert not path.stat().st_mode & (stat.S_IRWXO | stat.S_IWGRP)


def test_a_folder_that_is_away_is_not_created_and_waits(outbox: Outbox, folder: Path) -> None:
    folder.rmdir()
    outbox.post(STUDY)
    worker = outbox.worker(target_of(folder))
    for _ in range(30):  # more than `dispatch.attempts`
        worker.step()
        outbox.now += 1000
    assert outbox.states() == ["pending"]
    assert "mount its disk" in worker.health.reason
    assert not folder.exists()
    folder.mkdir()
    worker.step()
    assert outbox.states() == ["delivered"]


def test_a_full_disk_keeps_the_rest_for_later(outbox: Outbox, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox.post(STUDY)
    worker, room = outbox.worker(target_of(folder)), iter([True, False])

    def full(number: int) -> None:
        if not next(room, False):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        worker.step()
    assert outbox.states() == ["pending"]
    assert all(path.suffix == ".dcm" for path in files_in(folder))
    outbox.now += 1000
    worker.step()
    assert outbox.states() == ["delivered"]
    assert len(files_in(folder)) == 4


def test_a_write_that_is_cut_off_shows_no_file(folder: Path, tmp_path: Path) -> None:
    """As after a kill: what lies there is never a part of an object, and the next attempt is not in its way."""
    (item,) = write_items(tmp_path, STUDY, 1)
    study = folder / str(dcmread(item.path).StudyInstanceUID)
    study.mkdir()
    (study / f".{item.sop_uid}.part").write_bytes(b"half of")
    with FolderSession(folder=folder) as session:
        assert session.holds([item]) == frozenset()
        session.store(item)
        assert session.holds([item]) == {item.sop_uid}
    assert [path.name for path in files_in(folder)] == [f"{item.sop_uid}.dcm"]


@pytest.mark.parametrize("harm", ["removed", "cut", "other bytes", "a pipe", "a link"])
def test_only_the_same_bytes_are_proof(folder: Path, tmp_path: Path, harm: str) -> None:
    (item,) = write_items(tmp_path, STUDY, 1)
    with FolderSession(folder=folder) as session:
        session.store(item)
        (path,) = files_in(folder)
        content = path.read_bytes()
        path.unlink()
        if harm == "cut":
            path.write_bytes(content[:-1])
        elif harm == "other bytes":
            path.write_bytes(bytes(len(content)))
        elif harm == "a link":
            path.symlink_to(item.path)
        elif harm == "a pipe":
            os.mkfifo(path)
            with pytest.raises(PeerError, match="pipe"):
                session.store(item)
            return
        assert session.holds([item]) == frozenset()
        session.store(item)
        assert session.holds([item]) == {item.sop_uid}
    assert path.read_bytes() == content
    assert not path.is_symlink()


@pytest.mark.parametrize("harm", ["no DICOM", "error of its disk"])
def test_a_result_that_cannot_be_read_is_refused(
    folder: Path, tmp_path: Path, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (item,) = write_items(tmp_path, STUDY, 1)

    def broken(path: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    if harm == "no DICOM":
        item.path.write_bytes(b"no DICOM")
    else:  # after its header was read
        monkeypatch.setattr(Path, "read_bytes", broken)
    with FolderSession(folder=folder) as session:
        assert session.holds([item]) == frozenset()
        answer = session.store(item)
    assert answer.outcome is Outcome.REFUSED
    what = "it is not a DICOM file" if harm == "no DICOM" else "Input/output error"
    told = f"the file of the result cannot be read ({what}): check whether the data folder was changed"
    assert answer.reason == told
    assert files_in(folder) == []


@pytest.mark.filterwarnings("ignore:(Invalid value|The value length)")
@pytest.mark.parametrize("uid", ["con", "..A", "-x", "a" * 128, "../../etc"])
def test_a_study_whose_uid_is_none_gets_a_folder_of_a_derived_one(folder: Path, tmp_path: Path, uid: str) -> None:
    (item,) = write_items(tmp_path, STUDY, 1)
    dataset = dcmread(item.path)
    dataset["StudyInstanceUID"]._value = uid
    dataset.save_as(item.path)
    with FolderSession(folder=folder) as session:
        session.store(item)
        assert session.holds([item]) == {item.sop_uid}
    (path,) = files_in(folder)
    assert path.parent.parent == folder and UID(path.parent.name).is_valid
    assert dcmread(path).StudyInstanceUID == uid


def test_a_link_in_place_of_a_study_leads_nowhere(folder: Path, tmp_path: Path) -> None:
    (item,) = write_items(tmp_path, STUDY, 1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (folder / str(dcmread(item.path).StudyInstanceUID)).symlink_to(elsewhere)
    with FolderSession(folder=folder) as session, pytest.raises(PeerError, match="Not a directory"):
        session.store(item)
    assert not any(elsewhere.iterdir())


def test_what_a_disk_does_is_told(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (item,) = write_items(tmp_path, STUDY, 1)

    def broken(*_: object, **__: object) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", broken)
    with FolderSession(folder=folder) as session:
        with pytest.raises(PeerError, match="Input/output error"):
            session.store(item)
        with pytest.raises(PeerDeclined, match="a folder"):
            session.commit([item], "1.2", wait_s=0)
    assert not issubclass(PeerError, PeerBroke)


def test_a_folder_within_the_data_folder_is_not_used(tmp_path: Path, folder: Path) -> None:
    inside = tmp_path / "data/results"
    inside.mkdir(parents=True)
    for target, own in ((target_of(inside), True), (target_of(folder), False)):
        config = Config(
            license_acknowledged=True, data=tmp_path / "data", worker=Worker(bundle=tmp_path), targets=(target,)
        )
        assert is_own_address(target, config) is own


def test_doctor_tries_the_folder(folder: Path, tmp_path: Path) -> None:
    config = Config(
        license_acknowledged=True, data=tmp_path / "data", worker=Worker(bundle=tmp_path), targets=(target_of(folder),)
    )
    (found,) = target_findings(config, {})
    assert (found.what, found.state, found.found) == ("target pacs", "ok", f"{folder} can be written")
    folder.rmdir()
    (found,) = target_findings(config, {})
    assert found.state == "FAILS"
    assert "does not exist: mount its disk" in found.found
    with pytest.raises(PeerError, match=r"test_folder_target\.py is not a folder: set `folder`"):
        target_client(target_of(Path(__file__)), 5).check_reachable()
    with pytest.raises(PeerError, match="does not exist"):
        target_client(target_of(folder), 5).check_reachable()
