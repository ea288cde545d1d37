"""Backups and data folders as a stranger may prepare them: nothing outside of the two folders is read or written."""

import hashlib
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from support.backups import edit, newest_state, replaced, spoil_table

from glam_deploy.appliance.backup.copying import copy_data
from glam_deploy.appliance.backup.manifest import CopyFolder
from glam_deploy.appliance.backup.restoring import restore_data
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.errors import UsageError


def rewrite_state(copy: CopyFolder, *statements: str) -> None:
    """As somebody would who can compute digests: the manifest fits the changed state."""
    path = newest_state(copy)
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    renamed = path.with_name(f"state-{digest[:16]}.db")
    path.rename(renamed)
    edit(copy, state={"path": renamed.name, "bytes": renamed.stat().st_size, "sha256": digest, "changed_ns": 0})


FOREIGN = {
    "an absolute path": "UPDATE instance SET path = '/etc/passwd' WHERE arrival = 1",
    "a path upwards": "UPDATE instance SET path = 'spool/../../victim' WHERE arrival = 1",
    "a path of the state": "UPDATE instance SET path = 'state.db' WHERE arrival = 1",
    "no path": "UPDATE instance SET path = '' WHERE arrival = 1",
    "a folder of results": "INSERT INTO job (study_uid, key, state, created_at) VALUES ('1.2', '../../x', 'done', 0)",
    "a trigger": "CREATE TRIGGER t AFTER UPDATE ON study BEGIN DELETE FROM study; END",
    "a view": "CREATE VIEW v AS SELECT * FROM study",
    "a table less": "DROP TABLE event",
    "a column more": "ALTER TABLE study ADD COLUMN more TEXT",
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_state_that_no_appliance_wrote_is_refused(
    config: Config, data: DataFolder, copy: CopyFolder, tmp_path: Path, what: str
) -> None:
    copy_data(data, copy)
    rewrite_state(copy, "PRAGMA foreign_keys = OFF", FOREIGN[what])
    other = config.model_copy(update={"data": tmp_path / "restored"})
    with pytest.raises(UsageError, match=r"cannot be used, .*: use another backup"):
        restore_data(copy, other)
    assert list(other.data.iterdir()) == []


@pytest.mark.parametrize("what", ["a bad block", *(each for each in FOREIGN if each != "a view")])
def test_a_damaged_state_replaces_no_backup(
    config: Config, data: DataFolder, copy: CopyFolder, tmp_path: Path, what: str
) -> None:
    """Neither one that was made by hand nor the copy for a standby, which is made every few seconds."""
    for standby in (False, True):
        copy_data(data, copy, standby=standby)
    if what == "a bad block":
        spoil_table(data.database, "instance")
    else:
        with closing(sqlite3.connect(data.database)) as connection:
            connection.execute(FOREIGN[what])
            connection.commit()
    for verify in (False, True):
        with pytest.raises(UsageError, match=r"state\.db is damaged \(.*\): nothing was copied, so that an earlier"):
            copy_data(data, copy, standby=True, verify=verify)
    restored = config.model_copy(update={"data": tmp_path / "restored"})
    restore_data(copy, restored, take_over=True)
    with closing(sqlite3.connect(restored.data / "state.db")) as connection:
        assert connection.execute("SELECT count(*) FROM instance").fetchone() == (2,)


@pytest.mark.parametrize("place", ["files", "files/quarantine", "files/spool"])
def test_a_link_in_a_backup_leads_nowhere(data: DataFolder, copy: CopyFolder, tmp_path: Path, place: str) -> None:
    copy.make()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    link = copy.root / place
    if link.exists():
        link.rmdir()
    link.symlink_to(elsewhere)
    if place == "files/quarantine":  # nothing is there, so that nothing needs the folder
        copy_data(data, copy)
    else:
        with pytest.raises(UsageError, match="is a link, expected a folder of the backup"):
            copy_data(data, copy)
    assert not any(elsewhere.iterdir())
    assert elsewhere.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("elsewhere")], ids=["pipe", "link"])
def test_the_lock_of_a_backup_is_a_file(data: DataFolder, copy: CopyFolder, make: Callable[[Path], object]) -> None:
    copy.make()
    make(copy.lock)
    with pytest.raises(OSError, match=r"pipe|symbolic links"):
        copy_data(data, copy)
    assert not copy.root.joinpath("elsewhere").exists()
    copy.lock.unlink()
    copy_data(data, copy)


def test_an_image_that_is_a_link_is_not_followed(data: DataFolder, copy: CopyFolder, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    replaced(next(data.root.rglob("*.dcm")), lambda path: path.symlink_to(tmp_path / "secret"))
    with pytest.raises(UsageError, match=r"\.dcm cannot be copied \(it is a link"):
        copy_data(data, copy)
    assert not any(path.read_bytes() == b"secret" for path in copy.files.rglob("*.dcm"))
