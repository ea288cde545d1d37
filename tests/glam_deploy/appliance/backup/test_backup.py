"""Backups: every byte comes back, damage and wrong places are refused, an interruption leaves the earlier one valid."""

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
from support.backups import edit, newest_state, replaced, truncate
from support.jobs import config_of, made, send

from glam_deploy.appliance.audit import open_audit
from glam_deploy.appliance.backup import copying
from glam_deploy.appliance.backup.copying import copy_data
from glam_deploy.appliance.backup.manifest import CopyFolder
from glam_deploy.appliance.backup.restoring import restore_data
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.errors import UsageError
from glam_deploy.records import View


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


def test_a_first_copy_that_was_killed_at_its_start(data: DataFolder, copy: CopyFolder) -> None:
    """The next one goes on, and nothing of the first one stays."""
    copy.files.mkdir(parents=True)
    (copy.root / f".{'0a' * 12}.part").write_bytes(b"half")
    for _ in range(2):
        copy_data(data, copy)
        assert list(copy.root.glob(".*.part")) == []
        (copy.root / f".{'0b' * 12}.part").write_bytes(b"half")
    shutil.rmtree(copy.root)
    (copy.files / "other").mkdir(parents=True)
    with pytest.raises(UsageError, match="holds other files"):
        copy_data(data, copy)


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


@pytest.mark.parametrize("name", ["audit.key", "device.uid"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"x")])
def test_a_damaged_identity_does_not_replace_that_of_an_earlier_backup(
    data: DataFolder, copy: CopyFolder, name: str, damage: Callable[[Path], object]
) -> None:
    (data.root / "device.uid").write_text("2.25.7")
    copy_data(data, copy)
    before = (copy.files / name).read_bytes()
    damage(data.root / name)
    if (name, damage) != ("device.uid", Path.unlink):
        with pytest.raises(UsageError, match=rf"{name} .*restore it from a backup"):
            copy_data(data, copy)
        assert (copy.files / name).read_bytes() == before


def test_a_backup_of_another_appliance_is_refused(data: DataFolder, copy: CopyFolder, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    other = made(config_of(tmp_path / "second"))
    open_audit(other)
    sqlite3.connect(other.database).close()
    copy_data(data, copy)
    with pytest.raises(UsageError, match="of another data folder than"):
        copy_data(other, copy)
