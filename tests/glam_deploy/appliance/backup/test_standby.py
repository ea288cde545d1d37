"""The copy for a second node: which of both delivers, and what makes it hold its deliveries."""

import errno
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.backups import edit, newest_state, replaced, truncate
from support.until import until

from glam_deploy.appliance.backup import restoring
from glam_deploy.appliance.backup.copying import copy_data
from glam_deploy.appliance.backup.manifest import CopyFolder
from glam_deploy.appliance.backup.replication import Fence, fence_of
from glam_deploy.appliance.backup.restoring import restore_data
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.supervisor import FenceWatch
from glam_deploy.errors import UsageError


def test_a_node_delivers_until_another_one_takes_over(standby: Config, copy: CopyFolder, tmp_path: Path) -> None:
    fence = fence_of(standby)
    assert fence
    assert fence.hold() == fence.taken_over() == ""
    restore_data(copy, standby.model_copy(update={"data": tmp_path / "second"}), take_over=True)
    assert "has taken over" in fence.hold()
    assert fence.taken_over() == fence.hold()
    with pytest.raises(UsageError, match=r"has taken over from .*: this data folder is out of date"):
        copy_data(fence.data, copy, standby=True)


@pytest.mark.parametrize("has_standby", [False, True])
def test_the_node_that_took_over_is_not_out_of_date(
    standby: Config, copy: CopyFolder, tmp_path: Path, has_standby: bool
) -> None:
    second = standby.model_copy(update={"data": tmp_path / "second"})
    restore_data(copy, second, take_over=True)
    if has_standby:  # one of its own
        third = CopyFolder(root=tmp_path / "third")
        copy_data(DataFolder(root=second.data), third, standby=True)
        Fence(data=DataFolder(root=second.data), copy=third).remember()
    with pytest.raises(UsageError, match="on that node, name another folder for its backups; on any other one, this"):
        copy_data(DataFolder(root=second.data), copy)


def no_room(_: CopyFolder, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(DataFolder, "free_bytes", lambda _: 1)


def no_data_folder(_: CopyFolder, patch: pytest.MonkeyPatch) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    patch.setattr(Path, "mkdir", read_only)


def unsound_state(copy: CopyFolder, _: pytest.MonkeyPatch) -> None:
    """As the first node's state is."""
    state, facts = newest_state(copy), json.loads(copy.manifest.read_text())["state"]
    state.write_bytes(b"x" * 4096)
    digest = hashlib.sha256(state.read_bytes()).hexdigest()
    edit(copy, state=facts | {"bytes": 4096, "sha256": digest})


def truncated_image(copy: CopyFolder, _: pytest.MonkeyPatch) -> None:
    truncate(next(copy.files.rglob("*.dcm")))


def disk_that_breaks(_: CopyFolder, patch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    patch.setattr(restoring, "move_into_place", broken)


@pytest.mark.parametrize(
    "obstacle",
    [no_room, no_data_folder, unsound_state, truncated_image, disk_that_breaks],
    ids=lambda each: each.__name__,
)
def test_a_take_over_that_fails_stops_nobody(
    obstacle: Callable[[CopyFolder, pytest.MonkeyPatch], None],
    standby: Config,
    copy: CopyFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fence, second = fence_of(standby), standby.model_copy(update={"data": tmp_path / "second"})
    assert fence
    marked = []
    monkeypatch.setattr(CopyFolder, "mark_taken_over", lambda folder: marked.append(mark(folder)) or marked[-1])
    with monkeypatch.context() as patch, pytest.raises((UsageError, OSError)):
        obstacle(copy, patch)
        restore_data(copy, second, take_over=True)
    assert fence.hold() == ""
    assert marked == [True] * (obstacle is disk_that_breaks)
    if obstacle in (no_room, no_data_folder, disk_that_breaks):
        restore_data(copy, second, take_over=True)
        assert "has taken over" in fence.hold()


mark = CopyFolder.mark_taken_over


def test_a_copy_is_taken_over_by_one_machine(
    standby: Config, copy: CopyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("second", "second again"):
        restore_data(copy, standby.model_copy(update={"data": tmp_path / name}), take_over=True)
    monkeypatch.setattr("socket.gethostname", lambda: "third")
    with pytest.raises(UsageError, match="was taken over by"):
        restore_data(copy, standby.model_copy(update={"data": tmp_path / "third"}), take_over=True)


def test_a_verified_copy_stays_that_of_a_standby(standby: Config, copy: CopyFolder) -> None:
    copy_data(DataFolder(root=standby.data), copy, verify=True)
    with pytest.raises(UsageError, match="add --take-over"):
        restore_data(copy, standby.model_copy(update={"data": copy.root.parent / "second"}))


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")], ids=["pipe", "device"])
def test_a_mark_that_is_no_file_is_refused(standby: Config, copy: CopyFolder, make: Callable[[Path], object]) -> None:
    make(copy.taken_over)
    second = standby.model_copy(update={"data": copy.root.parent / "second"})
    told = r"taken-over.json cannot be read .it is a pipe, .* or remove what is in its place"
    with pytest.raises(UsageError, match=told):
        restore_data(copy, second, take_over=True)
    assert list(second.data.iterdir()) == []
    with pytest.raises(UsageError, match=told):
        copy_data(DataFolder(root=standby.data), copy, standby=True)
    fence = fence_of(standby)
    assert fence
    assert "it is a pipe" in fence.hold()


def test_a_pipe_in_place_of_an_image_ends_no_copy(standby: Config, copy: CopyFolder) -> None:
    data = DataFolder(root=standby.data)
    shutil.rmtree(copy.root)
    replaced(next(data.root.rglob("*.dcm")), os.mkfifo)
    with pytest.raises(UsageError, match=r"\.dcm cannot be copied \(it is a link, pipe"):
        copy_data(data, copy)


@pytest.mark.parametrize("what", ["not mounted", "not reachable", "another folder"])
def test_a_node_that_cannot_know_holds_its_deliveries(standby: Config, copy: CopyFolder, what: str) -> None:
    fence = fence_of(standby)
    assert fence
    copy.root.rename(copy.root.with_name("away"))
    if what == "not reachable":
        copy.root.symlink_to(copy.root)  # ELOOP, as the errors of a network disk
    elif what == "not mounted":
        copy.root.mkdir()
    else:
        copy.make()
    told = fence.hold()
    assert ("cannot be read" if what == "not reachable" else "is its disk mounted?") in told
    assert fence.taken_over() == ""
    if what == "not mounted":
        assert not any(copy.root.iterdir())


def test_a_folder_that_does_not_answer_stops_nobody(
    standby: Config, copy: CopyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a network disk whose server is gone: opening the file does not return."""
    answers = threading.Event()
    read = CopyFolder.read_taken_over
    monkeypatch.setattr(CopyFolder, "read_taken_over", lambda folder: answers.wait() and read(folder))
    fence = fence_of(standby)
    assert fence
    watch = FenceWatch(fence)
    assert watch.reason == ""
    copy.taken_over.write_text('{"host": "second", "at": "now"}')
    answers.set()
    until(lambda: "second has taken over" in watch.reason)
