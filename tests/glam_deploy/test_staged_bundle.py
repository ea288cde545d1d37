"""A bundle appears whole or not at all, and nothing else is ever lost for it."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.bundles import FILES, edit_manifest, facts, fill, snapshot, unprivileged, write_manifest

from glam_deploy.bundle import MANIFEST, open_bundle, staged_bundle
from glam_deploy.errors import UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound bundle."""
    place = tmp_path / "bundle"
    place.mkdir()
    fill(place)
    return place


def test_staged_bundle_appears_whole_and_readable_for_others(tmp_path: Path) -> None:
    place = tmp_path / "new/bundle"
    with staged_bundle(place) as staging:
        fill(staging)
        (staging / "checkpoint.safetensors").chmod(0o600)
        assert not place.exists()
    open_bundle(place).check()
    assert {p.stat().st_mode & 0o777 for p in (place, place / "graphs")} == {0o755}
    assert {(place / name).stat().st_mode & 0o777 for name in (*FILES, MANIFEST)} == {0o644}
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("standing", [True, False])
def test_nothing_is_left_of_a_failed_export(
    tmp_path: Path, folder: Path, stop: type[BaseException], standing: bool
) -> None:
    place = folder if standing else tmp_path / "other"
    before = snapshot(tmp_path)
    with pytest.raises(stop), staged_bundle(place) as staging:
        (staging / "half").write_bytes(b"half")
        raise stop
    assert snapshot(tmp_path) == before
    assert list(tmp_path.iterdir()) == [folder]


def test_bundle_is_replaced_as_a_whole(tmp_path: Path, folder: Path) -> None:
    (folder / "golden").mkdir()
    (folder / "golden/case.npz").write_bytes(b"only the old one has it")
    write_manifest(folder, facts())
    with staged_bundle(folder) as staging:
        fill(staging)
    open_bundle(folder).check()
    assert set(snapshot(tmp_path)) == {f"bundle/{name}" for name in (*FILES, MANIFEST)}


def test_damaged_or_newer_bundle_is_replaced_too(folder: Path) -> None:
    edit_manifest(folder, lambda m: m.update(schema_version=9))
    (folder / "graphs/local.onnx").unlink()
    with staged_bundle(folder) as staging:
        fill(staging)
    open_bundle(folder).check()


def test_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with staged_bundle(tmp_path / "empty") as staging:
        fill(staging)
    open_bundle(tmp_path / "empty").check()


def other_manifest(place: Path) -> None:
    place.mkdir()
    (place / MANIFEST).write_text('{"manifest_version": 3, "files": {}}')


def other_files(place: Path) -> None:
    place.mkdir()
    (place / "thesis.tex").write_text("years of work")


def bundle_with_results(place: Path) -> None:
    place.mkdir()
    fill(place)
    (place / "results").mkdir()
    (place / "results/thesis.tex").write_text("years of work")


def plain_file(place: Path) -> None:
    place.write_text("years of work")


@pytest.mark.parametrize("make", [other_manifest, other_files, bundle_with_results, plain_file])
def test_what_is_no_bundle_is_never_replaced(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "place")
    before = snapshot(tmp_path)
    with (
        pytest.raises(UsageError, match=r"belongs to no bundle .*nothing was written"),
        staged_bundle(tmp_path / "place"),
    ):
        raise AssertionError("work begins before the place is known to be free")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("place", [".", "..", "/", "../desk", "sub/.."])
def test_current_folder_and_those_around_it_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "desk/sub").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "desk")
    with pytest.raises(UsageError, match="is the current folder or contains it"), staged_bundle(Path(place)):
        raise AssertionError("not reached")


@pytest.mark.parametrize("place", ["bundle", "bundle/", "./bundle", "a/b/bundle", "../desk/bundle"])
def test_relative_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    (tmp_path / "desk").mkdir()
    monkeypatch.chdir(tmp_path / "desk")
    for _ in range(2):
        with staged_bundle(Path(place)) as staging:
            fill(staging)
        open_bundle(Path(place)).check()


def test_link_to_a_bundle_stays_a_link(tmp_path: Path, folder: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(folder)
    with staged_bundle(link) as staging:
        fill(staging)
    assert link.is_symlink()
    open_bundle(folder).check()


@pytest.mark.parametrize("place", ["file/bundle", "loop", "x" * 300])
def test_place_that_cannot_be(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match="cannot be written"), staged_bundle(tmp_path / place) as staging:
        fill(staging)
    assert {p.name for p in tmp_path.iterdir()} == {"file", "loop"}


def test_no_right_to_write(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    with unprivileged(), pytest.raises(UsageError, match="Permission denied"), staged_bundle(closed / "bundle"):
        raise AssertionError("not reached")


def test_full_disk(folder: Path) -> None:
    before = snapshot(folder)
    with pytest.raises(UsageError, match=r"No space left on device.*free disk space"), staged_bundle(folder):
        raise OSError(28, os.strerror(28))
    assert snapshot(folder) == before


# two at once


def test_last_of_two_exports_at_once_stays(tmp_path: Path) -> None:
    place = tmp_path / "bundle"
    with staged_bundle(place) as first, staged_bundle(place) as second:
        assert first != second
        fill(first)
        fill(second)
        edit_manifest(first, lambda m: m.update(licence="of the one that ends last"))
    assert open_bundle(place).manifest.licence == "of the one that ends last"
    assert list(tmp_path.iterdir()) == [place]


def test_old_bundle_comes_back_where_the_last_step_fails(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename = snapshot(folder), Path.rename

    def fail_for_new(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError(5, os.strerror(5))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_new)
    with pytest.raises(UsageError, match="Input/output error"), staged_bundle(folder) as staging:
        fill(staging)
    assert snapshot(folder) == before
    assert list(tmp_path.iterdir()) == [folder]


def test_another_export_takes_the_place_at_the_last_moment(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def be_late(self: Path, target: Path) -> Path:
        if self.name == "new":
            target.mkdir()
            fill(target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", be_late)
    with pytest.raises(UsageError, match="not empty"), staged_bundle(folder) as staging:
        fill(staging)
    open_bundle(folder).check()
    assert list(tmp_path.iterdir()) == [folder]
