"""Builds that fail, are stopped or meet others at work: the bundle is whole whatever happens."""

import fcntl
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest
from support import tensorrt as support_tensorrt
from support.bundles import edit_manifest, facts, snapshot, unprivileged, write_manifest
from support.store import build

from glam_deploy.bundle import (
    ENGINES_FOLDER,
    MANIFEST,
    UNFINISHED,
    Bundle,
    open_bundle,
    staged_bundle,
)
from glam_deploy.errors import BackendBuildError, BundleError, UsageError
from glam_deploy.gpu.engines.tensorrt import store

pytestmark = pytest.mark.usefixtures("quick_kernels")


# failures


def test_failed_build_leaves_the_bundle_as_it_was(bundle: Bundle) -> None:
    build(bundle, precision="fp32")
    before = snapshot(bundle.folder)
    with pytest.raises(BackendBuildError, match=r"global graph: TensorRT 11\.4\.0\.1 cannot build it: out of kernels"):
        build(bundle, support_tensorrt.library(fails="out of kernels"))
    with pytest.raises(BackendBuildError, match=r"only 0\.0% of the multiply-adds"):
        build(bundle, support_tensorrt.library(computes_in="Float"))
    assert snapshot(bundle.folder) == before
    open_bundle(bundle.folder).check()


def test_first_build_that_fails_leaves_no_folder(bundle: Bundle) -> None:
    with pytest.raises(BackendBuildError):
        build(bundle, support_tensorrt.library(fails="out of kernels"))
    assert not (bundle.folder / ENGINES_FOLDER).exists()


def test_kernels_that_do_not_compile(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: str, *, architecture: str, name: str) -> bytes:
        raise BackendBuildError(f"{name} does not compile for {architecture}")

    monkeypatch.setattr(store, "compile_cubin", fail)
    with pytest.raises(BackendBuildError, match="sm_89"):
        build(bundle)
    assert not (bundle.folder / ENGINES_FOLDER).exists()


def test_ctrl_c_leaves_the_bundle_as_it_was(bundle: Bundle) -> None:
    before = snapshot(bundle.folder)
    pressed = Event()

    def press(step: str, detail: str, done: float) -> None:
        if not pressed.is_set():
            pressed.set()
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        build(bundle, support_tensorrt.library(stop_after=1), report=press)
    assert snapshot(bundle.folder) == before


@pytest.mark.parametrize("place", [f"{ENGINES_FOLDER}/tensorrt-fp32-0123456789ab", f"{UNFINISHED}/new"])
def test_what_a_killed_build_left_is_cleared_by_the_next(bundle: Bundle, place: str) -> None:
    left = bundle.folder / place
    left.mkdir(parents=True)
    (left / "local.engine").write_bytes(b"half")
    build(bundle).bundle.check()
    assert not left.exists()


def test_drafts_are_no_part_of_the_bundle(bundle: Bundle) -> None:
    built: list[str] = []

    def report(step: str, detail: str, done: float) -> None:
        open_bundle(bundle.folder).check()
        built.extend(path.name for path in (bundle.folder / UNFINISHED).rglob("*.engine"))

    build(bundle, report=report)
    assert "local.engine" in built


def test_files_of_others_are_not_cleared(bundle: Bundle) -> None:
    mine = bundle.folder / ENGINES_FOLDER / "mine-notes" / "thesis.tex"
    mine.parent.mkdir(parents=True)
    mine.write_text("years of work")
    build(bundle)
    assert mine.read_text() == "years of work"


def test_manifest_is_replaced_when_all_files_are_there(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever a reader looks, the manifest that it finds is of files that are whole."""
    looked = []
    replace = Path.replace

    def look(self: Path, target: Path) -> Path:
        open_bundle(bundle.folder)
        new = json.loads(self.read_bytes())
        looked.append([(bundle.folder / name).stat().st_size == entry["bytes"] for name, entry in new["files"].items()])
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", look)
    build(bundle)
    assert len(looked) == 1
    assert all(looked[0])


def test_bundle_that_is_replaced_meanwhile(bundle: Bundle) -> None:
    def replace(step: str, detail: str, done: float) -> None:
        if step == "CUDA kernels":
            edit_manifest(bundle.folder, lambda manifest: manifest.update(licence="another"))

    with pytest.raises(BundleError, match="was replaced while its engines were built"):
        build(bundle, report=replace)
    assert not (bundle.folder / ENGINES_FOLDER).exists()


def test_bundle_that_is_taken_away_meanwhile(bundle: Bundle) -> None:
    def take(step: str, detail: str, done: float) -> None:
        if step == "CUDA kernels" and bundle.folder.exists():
            bundle.folder.rename(bundle.folder.with_name("elsewhere"))

    with pytest.raises(UsageError, match="bundle: engines cannot be written"):
        build(bundle, report=take)


def test_no_bundle_there(bundle: Bundle, tmp_path: Path) -> None:
    missing = replace(bundle, folder=tmp_path / "nothing")
    with pytest.raises(UsageError, match="is not a bundle"):
        build(missing)
    assert not missing.folder.exists()


def test_no_right_to_write(bundle: Bundle) -> None:
    bundle.folder.parent.chmod(0o755)
    for folder in [*bundle.folder.parents][:4]:
        folder.chmod(0o755)
    build(bundle)
    with unprivileged():
        assert not build(bundle).new  # nothing to be written
        with pytest.raises(UsageError, match=r"cannot be written \(Permission denied\)"):
            build(bundle, precision="fp32")


# others at work


def test_second_build_waits_for_the_first(bundle: Bundle) -> None:
    waiting, told = Event(), []

    def report(step: str, detail: str, done: float) -> None:
        told.append(step)
        if step.startswith("waiting"):
            waiting.set()

    handle = os.open(bundle.folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    outcomes: list[store.BuildOutcome] = []
    second = Thread(target=lambda: outcomes.append(build(bundle, report=report)))
    second.start()
    assert waiting.wait(timeout=60)
    assert not (bundle.folder / ENGINES_FOLDER).exists()
    os.close(handle)
    second.join(timeout=60)
    assert told[:2] == ["waiting for another build of this bundle to end", "global engine"]
    assert outcomes[0].new


def test_export_over_a_bundle_with_engines(bundle: Bundle) -> None:
    build(bundle)
    left = bundle.folder / UNFINISHED / "new"
    left.mkdir(parents=True)
    (left / "local.engine").write_bytes(b"half")
    with staged_bundle(bundle.folder) as staging:
        write_manifest(staging, facts())
    assert [path.name for path in bundle.folder.iterdir()] == [MANIFEST]


def test_export_over_files_of_others_among_the_engines_is_refused(bundle: Bundle) -> None:
    build(bundle)
    (bundle.folder / ENGINES_FOLDER / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"engines/thesis\.tex"), staged_bundle(bundle.folder):
        raise AssertionError("not reached")
