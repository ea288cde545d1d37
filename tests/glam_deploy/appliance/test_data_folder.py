"""Which folders become a data folder: an empty one, and one of ours; a folder of other programs stays as it was."""

import os
import re
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from support.bundles import unprivileged
from support.commands import PLAIN, start_process

from glam_deploy.appliance.config import parse_config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.web.monitoring import assess
from glam_deploy.cli.check_config import data_in_use, missing_files
from glam_deploy.cli.doctor import findings
from glam_deploy.cli.doctor_findings import FAILS
from glam_deploy.errors import UsageError

CONFIG = """
license_acknowledged = true
data = "{data}"
[receive]
port = 0
[web]
port = 0
token_file = "web.token"
[worker]
bundle = "bundle"
"""


def seen(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Name -> mode, and content if it is a file; "." for the folder itself."""
    found = {".": (folder.stat().st_mode, b"")}
    for path in folder.rglob("*"):
        found[str(path.relative_to(folder))] = path.stat().st_mode, path.read_bytes() if path.is_file() else b""
    return found


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    folder = tmp_path / "etc"
    folder.mkdir(mode=0o755)
    (folder / "passwd").write_text("root")
    (folder / "cache").mkdir()
    return folder


def test_a_folder_of_other_programs_is_refused_and_left_as_it_is(foreign: Path) -> None:
    before = seen(foreign)
    with pytest.raises(UsageError, match=r"etc holds 'passwd' and no state\.db.*: set `data`"):
        DataFolder(root=foreign).make()
    assert seen(foreign) == before


def test_serve_refuses_it_and_changes_nothing(foreign: Path, tmp_path: Path) -> None:
    (tmp_path / "glam.toml").write_text(CONFIG.format(data=foreign))
    before = seen(foreign)
    process = start_process("serve", "--config", tmp_path / "glam.toml", code=PLAIN, stdout=-1, stderr=-1)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"the data folder {foreign} holds 'passwd'" in told and "Traceback" not in told
    assert seen(foreign) == before


@pytest.mark.parametrize("names", [(), ("lost+found",), ("state.db", "notes.txt")])
def test_an_empty_folder_a_new_disk_and_a_folder_in_use_are_taken(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).touch()
    DataFolder(root=tmp_path).make()
    assert (tmp_path / "spool/incoming").is_dir()


@pytest.mark.parametrize("step", range(1, 9))
def test_a_first_start_that_was_interrupted_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    made: list[str] = []
    real = os.mkdir

    def mkdir(path: str, mode: int = 0o777) -> None:
        if len(made) == step:
            raise KeyboardInterrupt
        made.append(path)
        real(path, mode)

    with monkeypatch.context() as patch:
        patch.setattr(os, "mkdir", mkdir)
        with pytest.raises(KeyboardInterrupt):
            DataFolder(root=tmp_path / "data").make()
    DataFolder(root=tmp_path / "data").make()


@pytest.mark.parametrize("name", [".0123456789abcdef01234567.part", "audit.key", "state.db-journal", "device.uid"])
def test_what_a_first_start_leaves_before_the_database(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert DataFolder(root=tmp_path).obstacle() is None


@pytest.fixture
def anybody() -> Iterator[Path]:
    """A folder that every user may enter, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@pytest.mark.parametrize("mode", [0o700, 0o755])
def test_another_user_than_the_owner_is_refused(anybody: Path, mode: int) -> None:
    data = DataFolder(root=anybody / "data")
    data.root.mkdir()
    data.root.chmod(mode)
    told = r"belongs to root, but this process runs as (nobody|#65534), .*: run this as root, with sudo -u root"
    with unprivileged():
        with pytest.raises(UsageError, match=told):
            data.make()
        (reason,) = assess(data, 0).reasons
    assert re.search(told, reason)
    assert not [*data.root.iterdir()]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_a_folder_that_this_user_may_not_enter_is_refused(anybody: Path) -> None:
    data = DataFolder(root=anybody / "closed/data")
    data.root.parent.mkdir(mode=0o700)
    told = r"closed/data cannot be reached \(Permission denied\): run this as the user of the appliance"
    with unprivileged(), pytest.raises(UsageError, match=told):
        data.make()
    assert not data.root.exists()


def test_a_device_is_no_folder() -> None:
    obstacle = DataFolder(root=Path("/dev/null")).obstacle()
    assert obstacle and obstacle.what == "is not a folder"


@pytest.mark.parametrize(
    ("left", "told"),
    [
        ("state.db.version-1", r"rename state\.db\.version-1 to state\.db"),
        ("spool/studies/0123/1.2.dcm", "put it back, or move the folder away and restore a backup"),
        ("quarantine/1.2.0123.dcm", "put it back, or move the folder away and restore a backup"),
        (".restoring/audit.key", "empty it, and run glam-deploy restore again"),
    ],
)
def test_a_state_that_is_gone_is_not_replaced_by_an_empty_one(tmp_path: Path, left: str, told: str) -> None:
    data = DataFolder(root=tmp_path / "data")
    data.make()
    (data.root / "audit.key").write_bytes(b"k" * 32)
    (data.root / left).parent.mkdir(parents=True, exist_ok=True)
    (data.root / left).touch()
    with pytest.raises(UsageError, match=told):
        data.make()
    (tmp_path / "glam.toml").write_text(CONFIG.format(data=data.root))
    (tmp_path / "web.token").write_text("t" * 32)
    config = parse_config((tmp_path / "glam.toml").read_text(), folder=tmp_path)
    with pytest.raises(UsageError, match=told):
        data_in_use(config)
    assert any(re.search(told, line) for line in missing_files(config))
    (finding,) = (each for each in islice(findings(config), 2) if each.what == "data folder")
    assert finding.state == FAILS and re.search(told, f"{finding.found}: {finding.remedy}")
    assert not data.database.exists()
