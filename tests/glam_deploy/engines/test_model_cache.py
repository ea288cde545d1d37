"""Compiled models between starts: what comes back is what was stored, or nothing."""

import os
from pathlib import Path

import pytest
from support.bundles import unprivileged
from support.commands import start_process

from glam_deploy.engines import model_cache
from glam_deploy.engines.model_cache import ModelCache, default_folder

KEY = {"graph": "00", "library": "some 1.0"}


def stored(folder: Path, blob: bytes = b"compiled") -> Path:
    ModelCache(folder).store(KEY, blob)
    (path,) = folder.iterdir()
    return path


def test_there_and_back(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path / "a/b")
    assert cache.read(KEY) is None
    cache.store(KEY, b"one")
    cache.store({**KEY, "library": "some 1.1"}, b"two")
    cache.store(KEY, b"three")
    assert cache.read(KEY) == b"three"
    assert cache.read(dict(reversed(KEY.items()))) == b"three"
    assert len(list((tmp_path / "a/b").iterdir())) == 2
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("damage", [lambda c: c[:-1], lambda c: c[:10], lambda c: b"", lambda c: c[:-1] + b"!"])
def test_damaged_files_are_none(tmp_path: Path, damage: object) -> None:
    path = stored(tmp_path)
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    assert ModelCache(tmp_path).read(KEY) is None


def test_a_folder_that_cannot_be_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"mine")
    for folder in (tmp_path / "file", tmp_path / "file/in", Path(os.devnull)):
        cache = ModelCache(folder)
        cache.store(KEY, b"one")
        assert cache.read(KEY) is None
    assert (tmp_path / "file").read_bytes() == b"mine"


def test_the_longest_unused_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_cache, "MOST_FILES", 2)
    cache = ModelCache(tmp_path)
    for age, name in enumerate(("old", "middle")):
        cache.store({"graph": name}, name.encode())
        path = cache._path({"graph": name})
        os.utime(path, (age, age))
    assert cache.read({"graph": "old"}) == b"old"  # and so is younger than the other
    cache.store({"graph": "new"}, b"new")
    found = {name: cache.read({"graph": name}) for name in ("old", "middle", "new")}
    assert found == {"old": b"old", "middle": None, "new": b"new"}


def test_default_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    for told, expected in (("/c", "/c"), ("relative", "/home/someone/.cache"), ("", "/home/someone/.cache")):
        monkeypatch.setenv("XDG_CACHE_HOME", told)
        assert default_folder() == Path(expected) / "glam-deploy"


# limits, and places where nothing can be kept


def test_the_size_of_all_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_cache, "MOST_BYTES", 3 * 100)
    cache = ModelCache(tmp_path)
    blob = b"x" * (100 - model_cache.DIGEST)
    for age, name in enumerate("abc"):
        cache.store({"graph": name}, blob)
        os.utime(cache._path({"graph": name}), (age, age))
    assert cache.read({"graph": "a"}) == blob  # and so is the youngest
    cache.store({"graph": "d"}, blob)
    assert [bool(cache.read({"graph": name})) for name in "abcd"] == [True, False, True, True]
    cache.store({"graph": "too large"}, b"x" * 300)
    assert [bool(cache.read({"graph": name})) for name in "acd"] == [True, True, True]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 300


def test_what_a_killed_process_left_goes_after_a_day_and_files_of_others_stay(tmp_path: Path) -> None:
    old, young, other = tmp_path / ".a.draft", tmp_path / ".b.draft", tmp_path / "notes.txt"
    for path in (old, young, other):
        path.write_bytes(b"half")
    for path in (old, other):
        os.utime(path, (1, 1))
    ModelCache(tmp_path).store(KEY, b"one")
    assert [path.exists() for path in (old, young, other)] == [False, True, True]


STORES = """
import sys
from pathlib import Path
from glam_deploy.engines import model_cache
model_cache.MOST_FILES = 3
cache = model_cache.ModelCache(Path(sys.argv[1]))
for number in range(150):
    name = str(number % 7)
    found = cache.read({"graph": name})
    assert found in (None, name.encode() * 1000), found
    cache.store({"graph": name}, name.encode() * 1000)
"""


def test_several_processes_share_a_folder(tmp_path: Path) -> None:
    processes = [start_process(tmp_path, code=STORES) for _ in range(3)]
    for process in processes:
        _, err = process.communicate()
        assert (process.returncode, err) == (0, "")
    assert len(list(tmp_path.iterdir())) == 3


HOMELESS = """
import logging, os, sys
from pathlib import Path
logging.basicConfig()
for name in ("HOME", "XDG_CACHE_HOME"):
    os.environ.pop(name, None)
from glam_deploy.engines.model_cache import ModelCache, default_folder
os.setuid(1234567890)
for _ in range(2):
    cache = ModelCache(default_folder())
    cache.store({}, b"one")
    assert cache.read({}) is None
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can take an account that does not exist")
def test_an_account_without_home_and_passwd_entry_keeps_nothing_and_says_so_once() -> None:
    process = start_process(code=HOMELESS)
    _, err = process.communicate()
    assert process.returncode == 0, err
    warning = "Compiled models are not cached, so every start compiles them again: account 1234567890 has no"
    assert err.count(warning) == 1
    assert "Give a writable folder with --cache (cache= in Python) or XDG_CACHE_HOME" in err


def test_a_home_that_cannot_be_written_to_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o500)
    with unprivileged():
        ModelCache(home / ".cache/glam-deploy").store(KEY, b"one")
    assert f"the folder {home / '.cache/glam-deploy'} cannot be written to (Permission denied)" in caplog.text


def test_dev_null_keeps_nothing_and_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    model_cache._refuse_once.cache_clear()
    ModelCache(Path(os.devnull)).store(KEY, b"one")
    assert ModelCache(Path(os.devnull)).read(KEY) is None
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("place", "mode", "reason"),
    [
        ("folder", 0o777, "can be written by its group and all accounts"),
        ("folder", 0o770, "can be written by its group"),
        ("folder", 0o1777, "can be written by its group and all accounts"),
        ("file", 0o602, "can be written by all accounts"),
    ],
)
def test_what_others_may_write_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, place: str, mode: int, reason: str
) -> None:
    file = stored(tmp_path / "cache")
    changed = file if place == "file" else file.parent
    changed.chmod(mode)
    assert ModelCache(tmp_path / "cache").read(KEY) is None
    assert f"The cached models in {changed} are not used" in caplog.text
    assert f": it {reason}, and whoever can write it can change results" in caplog.text
    changed.chmod(0o755 if place == "folder" else 0o644)
    assert ModelCache(tmp_path / "cache").read(KEY) == b"compiled"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("place", ["folder", "file"])
def test_what_another_account_owns_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture, place: str) -> None:
    file = stored(tmp_path / "cache")
    changed = file if place == "file" else file.parent
    os.chown(changed, 1234, 1234)
    assert ModelCache(tmp_path / "cache").read(KEY) is None
    assert f"{changed} are not used, so every start compiles them again: it belongs to account 1234" in caplog.text


def test_nothing_is_stored_where_others_may_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    ModelCache(tmp_path).store(KEY, b"one")
    assert not list(tmp_path.iterdir())
