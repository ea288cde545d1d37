"""`backup` and `restore`: what a person is told."""

import shutil
from pathlib import Path

from support.commands import Cli
from support.jobs import config_of, made, send

from glam_deploy.records import View

CONFIG = 'license_acknowledged = true\ndata = "data"\n[worker]\nbundle = "bundle"\n'


def test_commands_tell_what_they_did_and_what_to_do(cli: Cli, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    data = made(config)
    send(config, View.L_CC)
    path, backup = tmp_path / "glam.toml", tmp_path / "backup"
    path.write_text(CONFIG)
    said = cli("backup", backup, "--config", path)
    assert (said.code, said.err) == (0, "")
    assert "has everything acknowledged before 20" in said.out
    assert '"event": "backup"' in "".join(log.read_text() for log in data.audit.iterdir())
    (image,) = backup.rglob("*.dcm")
    damaged = bytearray(image.read_bytes())
    damaged[-1] ^= 1
    image.write_bytes(damaged)
    said = cli("backup", backup, "--verify", "--config", path)
    assert said.code == 0
    assert "1 file of the earlier backup had been missing or damaged, and copied again, spool/" in said.err
    assert '"repaired": 1' in "".join(log.read_text() for log in data.audit.iterdir())
    said = cli("restore", backup, "--config", path)
    assert (said.code, said.out) == (2, "")
    assert "expected an empty or no folder" in said.err
    shutil.rmtree(data.root)
    said = cli("restore", backup, "--config", path)
    assert (said.code, said.err) == (0, "")
    assert "have the senders send again" in said.out


def test_the_content_of_a_backup_cannot_write_to_the_terminal(cli: Cli, tmp_path: Path) -> None:
    path, backup = tmp_path / "glam.toml", tmp_path / "backup"
    path.write_text(CONFIG)
    backup.mkdir()
    backup.joinpath("manifest.json").write_text('{"format": 1, "a\\u001b[2J": 1}')
    said = cli("restore", backup, "--config", path)
    assert said.code == 2
    assert "\x1b" not in said.err


def test_what_cannot_be_done_is_told_without_a_trace(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "glam.toml"
    path.write_text(CONFIG)
    said = cli("backup", tmp_path / "backup", "--config", path)
    assert (said.code, said.out) == (2, "")
    assert "does not exist yet: start the appliance" in said.err
    config = config_of(tmp_path)
    made(config)
    send(config, View.L_CC)
    (tmp_path / "file").write_text("")
    said = cli("backup", tmp_path / "file" / "backup", "--config", path)
    assert (said.code, said.out) == (2, "")
    assert "cannot be written" in said.err
