"""Bundles on other nodes, and the end of processes by the files that they have open; needs no Ray."""

import subprocess
import sys
from pathlib import Path

import pytest
from support.bundles import fill
from support.until import until

from glam_deploy.archive.cleanup import users_of
from glam_deploy.archive.shipping import files_of, shipped
from glam_deploy.errors import BackendUnavailable, BundleError
from glam_deploy.processes import python_command

HOLDER = "import sys, time; file = open(sys.argv[1]); print('open', flush=True); time.sleep(60)"


def holder(path: Path) -> subprocess.Popen[str]:
    path.touch()
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    return process


def test_cleanup_ends_what_has_files_open_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray too").mkdir()
    inside, outside = holder(tmp_path / "ray/log"), holder(tmp_path / "ray too/log")
    command = python_command("-m", "glam_deploy.archive.cleanup", tmp_path / "ray")
    with subprocess.Popen(command, stdin=subprocess.PIPE) as cleanup:
        assert users_of(tmp_path / "ray") == [inside.pid]
        assert inside.poll() is None
        assert cleanup.stdin is not None
        cleanup.stdin.close()
        until(lambda: inside.poll() is not None)
        cleanup.wait()
    assert outside.poll() is None
    assert not (tmp_path / "ray").exists()
    outside.kill()
    for process in (inside, outside):
        process.communicate()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_bundle_is_written_once_a_node_and_checked(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "bundle").mkdir()
    fill(tmp_path / "bundle")
    bundle, files = shipped(tmp_path / "bundle"), files_of(tmp_path / "bundle")
    assert bundle.on_this_node(None) == tmp_path / "bundle"
    there = bundle.on_this_node(files)
    assert there == cache / "glam-deploy/bundles" / bundle.digest
    assert files_of(there) == files
    assert bundle.on_this_node({}) == there  # the files are not needed again
    name = next(name for name in files if name != "manifest.json")
    content = bytearray(files[name])
    content[-1] ^= 1
    (there / name).write_bytes(content)
    with pytest.raises(BundleError, match="was changed"):
        bundle.on_this_node(files)


def test_a_node_without_a_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bundle").mkdir()
    fill(tmp_path / "bundle")
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    told = r"\(Not a directory\): move the file away .*XDG_CACHE_HOME"
    with pytest.raises(BackendUnavailable, match=told):
        shipped(tmp_path / "bundle").on_this_node(files_of(tmp_path / "bundle"))
