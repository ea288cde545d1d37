"""Writing a bundle: a new one as a whole, and changes to the manifest of one in use, by one process at a time."""

import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from glam_deploy.bundle.folder import UNFINISHED, Bundle, contents, file_sha256, open_bundle
from glam_deploy.bundle.manifest import EngineEntry, FileEntry, GateEntry, Manifest
from glam_deploy.bundle.schema import MANIFEST, MANIFEST_LIMIT, NO_MANIFEST, VERSION, write_json
from glam_deploy.errors import UsageError
from glam_deploy.regular import read_regular


@contextmanager
def staged_bundle(folder: Path) -> Iterator[Path]:
    """A fresh folder to fill; it becomes `folder` when the block ends well and vanishes when it does not.

    A bundle that stands at `folder` is replaced as a whole, and stays as it is where anything fails. Raises UsageError
    where files that belong to no bundle would be lost, where `folder` is the current folder or holds it, and where the
    place cannot be written to.
    """
    try:
        place = Path(os.path.realpath(folder))
        _require_free(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as room:
            staging = Path(room) / "new"
            staging.mkdir()
            yield staging
            _make_readable(staging)
            _put_in_place(staging, place, retired=Path(room) / "old")
    except OSError as error:
        raise UsageError(
            f"{folder}: cannot be written ({error.strerror or error}). Free space, or name another place with --out."
        ) from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` over all that lies in `folder`, with the files, sizes and hashes that are found there."""
    files = {name: _file_entry(folder / name) for name in sorted(contents(folder) - {MANIFEST})}
    write_json(folder / MANIFEST, replace(manifest, files=files))


def _require_free(place: Path) -> None:
    """Nothing may stand at `place` but a bundle without additions, or an empty folder."""
    if Path.cwd().is_relative_to(place):
        raise UsageError(f"{place}: is the current folder or holds it. Name a folder of the bundle's own with --out.")
    if not place.exists():
        return
    others = sorted(contents(place, leftovers=False) - _named_files(place)) if place.is_dir() else [place.name]
    if others:
        raise UsageError(
            f"{place}: exists and holds what belongs to no bundle ({others[0]}); nothing was written. Move it away, or "
            f"name another place with --out."
        )


def _named_files(folder: Path) -> set[str]:
    """What the manifest in `folder` accounts for, whatever its version; empty where it is no bundle's manifest."""
    try:
        manifest = json.loads(read_regular(folder / MANIFEST, MANIFEST_LIMIT))
        return {MANIFEST, *manifest["files"]} if manifest.keys() >= {VERSION, "network"} else set()
    except (OSError, *NO_MANIFEST):
        return set()


def _put_in_place(staging: Path, place: Path, *, retired: Path) -> None:
    """Two renames, for no single one replaces a folder with content; the old bundle comes back if the second fails."""
    try:
        if place.exists():
            place.rename(retired)
        staging.rename(place)
    finally:
        if retired.exists() and not place.exists():
            retired.rename(place)


def _make_readable(staging: Path) -> None:
    """A service under another account runs the bundle; temporary folders and some writers leave it to the owner."""
    staging.chmod(0o755)
    for path in staging.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _file_entry(path: Path) -> FileEntry:
    return FileEntry(sha256=file_sha256(path), bytes=path.stat().st_size)


# a bundle in use


@contextmanager
def locked(folder: Path, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Keep other processes from changing the bundle; the lock is on the folder itself and goes with the process.

    `on_wait` is called where another holds it. Raises OSError where the folder cannot be opened.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def require_changeable(folder: Path) -> None:
    """Raises OSError where the manifest could not be replaced. Leaves the bundle as it is."""
    with locked(folder), tempfile.TemporaryFile(dir=folder) as draft:
        draft.write(b"manifest")


def replace_engines(
    bundle: Bundle, engines: Iterable[EngineEntry], *, added: Iterable[str], removed: Iterable[str]
) -> Bundle:
    """Give a bundle another list of engines; the bundle as it is then. The caller holds the lock.

    Files `added` must lie in their places. Those `removed` are no longer named; they are the caller's to delete.
    """
    gone = set(removed)
    kept = {name: entry for name, entry in bundle.files.items() if name not in gone}
    files = kept | {name: _file_entry(bundle.folder / name) for name in added}
    return _replace(bundle, replace(bundle.manifest, engines=tuple(engines), files=dict(sorted(files.items()))))


def replace_gates(bundle: Bundle, gates: Iterable[GateEntry]) -> Bundle:
    """Give a bundle another list of verdicts; the bundle as it is then. The caller holds the lock."""
    return _replace(bundle, replace(bundle.manifest, gates=tuple(gates)))


def _replace(bundle: Bundle, manifest: Manifest) -> Bundle:
    """The draft lies where drafts of a build lie, so that one left over by a killed process belongs to no reader.

    A manifest of an earlier schema is written in the present one.
    """
    room = bundle.folder / UNFINISHED
    room.mkdir(parents=True, exist_ok=True)
    write_json(room / MANIFEST, manifest)
    (room / MANIFEST).chmod(0o644)
    (room / MANIFEST).replace(bundle.folder / MANIFEST)
    for empty in (room, room.parent):
        with suppress(OSError):
            empty.rmdir()
    return open_bundle(bundle.folder)
