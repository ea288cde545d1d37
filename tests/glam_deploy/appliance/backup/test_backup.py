"""Backups: every byte comes back, damage and wrong places are refused, an interruption leaves the earlier one valid."""

import errno
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.jobs import config_of, made, send
from support.until import until

from glam_deploy.appliance.audit import open_audit
from glam_deploy.appliance.backup import copying, restoring
from glam_deploy.appliance.backup.copying import copy_data
from glam_deploy.appliance.backup.manifest import CopyFolder
from glam_deploy.appliance.backup.replication import fence_of
from glam_deploy.appliance.backup.restoring import restore_data
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.supervisor import FenceWatch
from glam_deploy.errors import UsageError
from glam_deploy.records import View


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Of an appliance that has received two views."""
    config = config_of(tmp_path)
    made(config)
    send(config, View.L_CC, View.R_CC)
    return config


@pytest.fixture
def data(config: Config) -> DataFolder:
    return DataFolder(root=config.data)


@pytest.fixture
def copy(tmp_path: Path) -> CopyFolder:
    return CopyFolder(root=tmp_path / "copy")


def content(root: Path) -> dict[str, str]:
    """Path -> SHA-256 of the files that a backup must hold; of the state, its rows."""
    files = [path for path in root.rglob("*") if path.is_file() and not path.name.startswith("state.db")]
    with closing(sqlite3.connect(root / "state.db")) as connection:
        rows = "".join(line for line in connection.iterdump() if "steady" not in line and "component" not in line)
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if "audit/" not in str(path)
    } | {"state.db": rows}


def test_what_was_received_comes_back(config: Config, data: DataFolder, copy: CopyFolder) -> None:
    before = content(data.root)
    copied = copy_data(data, copy)
    assert (copied.manifest.absent, len(before)) == ((), 2 + 1 + 1)  # views, key, state
    shutil.rmtree(data.root)
    restore_data(copy, config)
    assert content(data.root) == before
    assert (data.root.stat().st_mode & 0o777, data.database.stat().st_mode & 0o777) == (0o700, 0o600)
    assert "restored" in "".join(path.read_text() for path in data.audit.iterdir())


@pytest.mark.parametrize("mode", [0o755, 0o770])
def test_no_other_account_can_read_a_backup(data: DataFolder, copy: CopyFolder, mode: int) -> None:
    copy.root.mkdir()
    copy.root.chmod(mode)
    for _ in range(2):  # also of an earlier one
        copy_data(data, copy)
        assert {path.stat().st_mode & 0o777 for path in (copy.root, copy.files)} == {0o700}
        files = {path for path in copy.root.rglob("*") if path.is_file() and path != copy.lock}
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
        copy.files.chmod(mode)


def test_a_mark_with_escapes_prints_none(copy: CopyFolder) -> None:
    copy.make()
    for text in ('{"host": "\\u001b[2J", "at": "now"}', "[" * 200_000):
        copy.taken_over.write_text(text)
        taken = copy.read_taken_over()
        assert taken
        assert taken.host == "an unknown node"


def test_a_second_backup_copies_only_what_is_new_and_forgets_what_is_gone(
    config: Config, data: DataFolder, copy: CopyFolder
) -> None:
    copy_data(data, copy)
    send(config, View.L_MLO, exam="another")
    copied = copy_data(data, copy)
    (new,) = data.study(latest_study(data)).iterdir()
    assert new.stat().st_size <= copied.new_bytes < new.stat().st_size + 100_000
    with closing(sqlite3.connect(data.database)) as connection:
        (old,) = connection.execute("SELECT path FROM instance ORDER BY arrival LIMIT 1").fetchone()
        connection.execute("DELETE FROM instance WHERE path = ?", (old,))
        connection.commit()
    assert (copy.files / old).exists()
    copy_data(data, copy)
    assert not (copy.files / old).exists()
    assert len(list(copy.root.glob("state-*.db"))) == 1


def latest_study(data: DataFolder) -> str:
    """Study Instance UID of the latest instance."""
    with closing(sqlite3.connect(data.database)) as connection:
        (uid,) = connection.execute("SELECT study_uid FROM instance ORDER BY arrival DESC LIMIT 1").fetchone()
    return str(uid)


def test_a_file_that_goes_while_it_is_copied_is_looked_for_again(
    config: Config, data: DataFolder, copy: CopyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version takes the place of an image: the copy has that one."""
    snapshot, calls = copying._copy_state, []

    def replaced_after_the_first(*arguments: DataFolder | CopyFolder) -> object:
        made = snapshot(*arguments)  # type: ignore[arg-type]
        if not calls:
            with closing(sqlite3.connect(data.database)) as connection:
                (path,) = connection.execute("SELECT path FROM instance LIMIT 1").fetchone()
                (data.root / path).rename(data.root / f"{path}.new")
                connection.execute("UPDATE instance SET path = ? WHERE path = ?", (f"{path}.new", path))
                connection.commit()
        calls.append(1)
        return made

    monkeypatch.setattr(copying, "_copy_state", replaced_after_the_first)
    assert copy_data(data, copy).manifest.absent == ()
    assert len(list(copy.files.rglob("*.new"))) == 1


def test_files_that_retention_has_removed_cost_one_more_snapshot_once(
    data: DataFolder, copy: CopyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    next(data.root.rglob("*.dcm")).unlink()
    snapshot, calls = copying._copy_state, []

    def counted(*arguments: Any) -> Any:
        calls.append(1)
        return snapshot(*arguments)

    monkeypatch.setattr(copying, "_copy_state", counted)
    assert [len(copy_data(data, copy).manifest.absent) for _ in range(2)] == [1, 1]
    assert len(calls) == 2 + 1


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def newest_state(copy: CopyFolder) -> Path:
    (path,) = copy.root.glob("state-*.db")
    return path


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def link_to_zeros(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("harm", [truncate, flip, Path.unlink, link_to_zeros], ids=lambda harm: harm.__name__)
def test_a_backup_heals_a_damaged_earlier_one(
    harm: Callable[[Path], object], config: Config, data: DataFolder, copy: CopyFolder
) -> None:
    """What the size does not show is found with `verify` only."""
    copy_data(data, copy)
    before, image = content(data.root), next(copy.files.rglob("*.dcm"))
    harm(image)
    if harm is flip:
        assert copy_data(data, copy).repaired == ()
    copied = copy_data(data, copy, verify=harm is flip)
    assert copied.repaired == (str(image.relative_to(copy.files)),)
    assert copy_data(data, copy, verify=True).repaired == ()
    shutil.rmtree(data.root)
    restore_data(copy, config)
    assert content(data.root) == before


def edit(copy: CopyFolder, **changes: object) -> None:
    copy.manifest.write_text(json.dumps(json.loads(copy.manifest.read_text()) | changes))


DAMAGES: dict[str, tuple[Callable[[CopyFolder], object], str]] = {
    "a byte of an image": (lambda copy: flip(next(copy.files.rglob("*.dcm"))), r"is damaged, spool/.* SHA-256"),
    "an image": (lambda copy: next(copy.files.rglob("*.dcm")).unlink(), "is damaged, spool/.*No such file"),
    "a byte of the state": (lambda copy: flip(newest_state(copy)), r"is damaged, state-\w+.db has"),
    "the key": (lambda copy: (copy.files / "audit.key").write_bytes(b"x"), "is damaged, audit.key has 1 bytes"),
    "the manifest": (lambda copy: copy.manifest.write_text("{"), "manifest.json cannot be read"),
    "no manifest": (lambda copy: copy.manifest.unlink(), "is no backup, it has no manifest.json"),
    "a path": (lambda copy: edit(copy, state={"path": "../x", "bytes": 1, "sha256": ""}), "leads out of the folder"),
    "a later format": (lambda copy: edit(copy, format=2, colour="blue"), "in format 2, expected up to 1"),
    "a later state": (lambda copy: edit(copy, state_version=99), "state has version 99, expected up to"),
    "a standby": (lambda copy: edit(copy, standby=True), "add --take-over"),
}


def replaced(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def edit_file(copy: CopyFolder, **changes: object) -> None:
    first, *others = json.loads(copy.manifest.read_text())["files"]
    edit(copy, files=[first | changes, *others])


DAMAGES |= {
    "a FIFO": (
        lambda copy: replaced(next(copy.files.rglob("*.dcm")), os.mkfifo),
        "is damaged, spool/.*expected a regular file",
    ),
    "a device": (
        lambda copy: link_to_zeros(next(copy.files.rglob("*.dcm"))),
        "is damaged, spool/.*expected a regular file",
    ),
    "a FIFO as manifest": (lambda copy: replaced(copy.manifest, os.mkfifo), "cannot be read .*expected a regular file"),
    "a longer image": (lambda copy: os.truncate(next(copy.files.rglob("*.dcm")), 1 << 40), "is damaged, spool/"),
    "NUL in a path": (lambda copy: edit_file(copy, path="a\0b"), r"path 'a\\x00b' has characters"),
    "a surrogate in a path": (lambda copy: edit_file(copy, path="\ud800"), r"path '\\ud800' has characters"),
    "a negative size": (lambda copy: edit_file(copy, bytes=-5), "bytes is -5, expected 0 or more"),
    "deep JSON": (lambda copy: copy.manifest.write_text("[" * 200_000), "manifest.json cannot be read"),
    "escapes as its time": (lambda copy: edit(copy, made_at="\x1b[2J"), r"made_at is '\\x1b\[2J', expected a time"),
    "escapes as a release": (lambda copy: edit(copy, release="\x1b[2J"), r"release is '\\x1b\[2J', expected"),
    "a later format with escapes": (
        lambda copy: edit(copy, format=2, release="\x1b[2J"),
        r"glam-deploy '\\x1b\[2J' in",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_backup_that_is_not_as_it_was_made_is_refused(
    name: str, config: Config, data: DataFolder, copy: CopyFolder
) -> None:
    damage, told = DAMAGES[name]
    copy_data(data, copy)
    damage(copy)
    shutil.rmtree(data.root)
    with pytest.raises(UsageError, match=told):
        restore_data(copy, config)
    assert not data.root.exists()


def test_the_audit_log_may_have_grown_meanwhile(config: Config, data: DataFolder, copy: CopyFolder) -> None:
    """As it has in a copy that was interrupted before its manifest."""
    copy_data(data, copy)
    (log,) = (copy.files / "audit").iterdir()
    log.write_bytes(log.read_bytes() + b"{}\n")
    shutil.rmtree(data.root)
    restore_data(copy, config)
    log.write_bytes(b"x" + log.read_bytes()[1:])
    shutil.rmtree(data.root)
    with pytest.raises(UsageError, match="is damaged, audit/"):
        restore_data(copy, config)


def test_an_interrupted_backup_leaves_the_earlier_one(
    config: Config, data: DataFolder, copy: CopyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_data(data, copy)
    before = content(data.root)
    send(config, View.L_MLO, exam="another")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(copying, "write_durably", full)
        copy_data(data, copy)
    shutil.rmtree(data.root)
    restore_data(copy, config)
    assert content(data.root) == before


def test_a_data_folder_in_use_is_never_overwritten(config: Config, data: DataFolder, copy: CopyFolder) -> None:
    copy_data(data, copy)
    before = content(data.root)
    with pytest.raises(UsageError, match="expected an empty or no folder"):
        restore_data(copy, config)
    assert content(data.root) == before


def test_a_restoration_that_was_killed_is_not_used(config: Config, data: DataFolder, copy: CopyFolder) -> None:
    """Neither is the folder started on, nor is it restored into."""
    copy_data(data, copy)
    shutil.rmtree(data.root)
    data.restoring.mkdir(parents=True)
    with pytest.raises(UsageError, match="not restored to the end: empty it"):
        data.make()
    with pytest.raises(UsageError, match="expected an empty or no folder"):
        restore_data(copy, config)


@pytest.mark.parametrize("place", ["data/backup", ".", "other"])
def test_a_place_that_holds_something_else_is_refused(data: DataFolder, tmp_path: Path, place: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_text("")
    with pytest.raises(UsageError, match="name another folder"):
        copy_data(data, CopyFolder(root=tmp_path / place))


def test_a_backup_of_another_appliance_is_refused(data: DataFolder, copy: CopyFolder, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    other = made(config_of(tmp_path / "second"))
    open_audit(other)
    sqlite3.connect(other.database).close()
    copy_data(data, copy)
    with pytest.raises(UsageError, match="of another data folder than"):
        copy_data(other, copy)


# the standby


@pytest.fixture
def standby(config: Config, data: DataFolder, copy: CopyFolder) -> Config:
    """Whose copy is current."""
    config = config.model_copy(update={"standby": config.standby.model_copy(update={"folder": copy.root})})
    fence = fence_of(config)
    assert fence
    copy_data(data, copy, standby=True)
    fence.remember()
    return config


def test_a_node_delivers_until_another_one_takes_over(standby: Config, copy: CopyFolder, tmp_path: Path) -> None:
    fence = fence_of(standby)
    assert fence
    assert fence.hold() == fence.taken_over() == ""
    restore_data(copy, standby.model_copy(update={"data": tmp_path / "second"}), take_over=True)
    assert "has taken over" in fence.hold()
    assert fence.taken_over() == fence.hold()
    with pytest.raises(UsageError, match="has taken over"):
        copy_data(fence.data, copy, standby=True)


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
    with pytest.raises(UsageError, match=r"taken-over.json cannot be used .it is a pipe, .*: remove it"):
        restore_data(copy, second, take_over=True)
    assert list(second.data.iterdir()) == []


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


def test_a_folder_that_does_not_answer_stops_nobody(standby: Config, copy: CopyFolder) -> None:
    """As a network disk whose server is gone: opening the file does not return."""
    os.mkfifo(copy.taken_over)
    fence = fence_of(standby)
    assert fence
    watch = FenceWatch(fence)
    assert watch.reason == ""
    copy.taken_over.write_text('{"host": "second", "at": "now"}')  # the reader goes on
    until(lambda: "second has taken over" in watch.reason)
