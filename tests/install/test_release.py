"""The distributions of a release are the same bytes each time."""

import subprocess
import tarfile
from pathlib import Path

import pytest
from install.conftest import BUILD, built

pytestmark = [pytest.mark.install, pytest.mark.timeout(1800)]


def test_two_builds_are_the_same_bytes(origin: Path, release: Path, tmp_path: Path) -> None:
    """In folders of other names, at other times, with another umask and time zone."""
    (tmp_path / "a longer name").mkdir()
    again = built(origin, tmp_path / "a longer name" / "of a clone", umask=0o002, zone="America/Lima")
    assert len(again) == 3
    assert {path.name: path.read_bytes() for path in release.iterdir() if path.suffix != ".json"} == again


def test_the_source_distribution_says_nothing_of_the_machine(origin: Path, release: Path) -> None:
    stamp = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=origin, check=True, capture_output=True).stdout
    (sdist,) = release.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {(0, 0, "", "", int(stamp))}
    assert {m.mode for m in members} <= {0o644, 0o755}


def test_only_a_commit_is_released(origin: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "--quiet", str(origin), str(tmp_path / "clone")], check=True)
    (tmp_path / "clone/README.md").write_text("changed")
    done = subprocess.run(BUILD, cwd=tmp_path / "clone", check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "1 files differ from the last commit, the first is README.md" in done.stderr
