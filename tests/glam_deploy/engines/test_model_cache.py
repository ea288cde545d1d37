"""Compiled models between starts: what comes back is what was stored, or nothing."""

import os
from pathlib import Path

import pytest

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
