"""Atomic writing of new bundles, and locked changes of the manifest of an existing bundle."""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from glam_deploy.bundle.folder import UNFINISHED, Bundle, contents, file_sha256, open_bundle
from glam_deploy.bundle.lock import locked
from glam_deploy.bundle.manifest import (
    ENSEMBLE,
    MANIFEST,
    MANIFEST_LIMIT,
    NO_MANIFEST,
    VERSION,
    EngineEntry,
    Ensemble,
    FileEntry,
    GateEntry,
    Manifest,
    Member,
    manifest_json,
    read_ensemble,
)
from glam_deploy.bundle.signature import SIGNATURE
from glam_deploy.errors import BundleError, UsageError, unwritable
from glam_deploy.json_records import parse_json, to_json
from glam_deploy.regular import read_regular


@contextmanager
def staged_bundle(folder: Path) -> Iterator[Path]:
    """Context with a new empty folder, which is renamed to `folder` at the end, or deleted if an exception is raised.

    An existing bundle at `folder` is replaced completely; it stays unchanged if an exception is raised. Raises
    UsageError if files that belong to no bundle would be lost, if `folder` is the current folder or contains it, and if
    it cannot be written.
    """
    try:
        place = Path(os.path.realpath(folder))
        _require_free(place)
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as room:
            staging = Path(room) / "new"
            staging.mkdir()
            yield staging
            make_readable(staging)
            _put_in_place(staging, place, retired=Path(room) / "old")
    except OSError as error:
        raise UsageError(
            f"{folder}: cannot be written {unwritable(error)}, or give another folder with --out."
        ) from error


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` into `folder`, with the sizes and hashes of all files in that folder."""
    files = {name: _file_entry(folder / name) for name in sorted(contents(folder) - {MANIFEST, SIGNATURE})}
    (folder / MANIFEST).write_bytes(manifest_json(replace(manifest, files=files)))


def write_ensemble(folder: Path, members: Iterable[Bundle]) -> None:
    """Write `ensemble.json` into `folder`, which holds the bundles."""
    entries = [Member(folder=one.folder.name, checkpoint_sha256=one.manifest.checkpoint.sha256) for one in members]
    content = to_json(Ensemble(schema_version=1, members=tuple(entries)))
    (folder / ENSEMBLE).write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _require_free(place: Path) -> None:
    """Raises UsageError unless `place` does not exist, is an empty folder, or is a bundle without other files."""
    if Path.cwd().is_relative_to(place):
        raise UsageError(f"{place}: is the current folder or contains it. Give another folder with --out.")
    if not place.exists():
        return
    others = sorted(contents(place, leftovers=False) - _named_files(place)) if place.is_dir() else [place.name]
    if others:
        raise UsageError(
            f"{place}: exists and has a file that belongs to no bundle ({others[0]}); nothing was written. Move it "
            f"away, or give another folder with --out."
        )


def _named_files(folder: Path) -> set[str]:
    """Files that the manifest in `folder` lists, for any schema version, or those of an ensemble's bundles.

    Empty if there is neither.
    """
    if (folder / ENSEMBLE).is_file() and not (folder / MANIFEST).exists():
        return _files_of_ensemble(folder)
    try:
        manifest = parse_json(read_regular(folder / MANIFEST, MANIFEST_LIMIT))
        return {MANIFEST, SIGNATURE, *manifest["files"]} if manifest.keys() >= {VERSION, "network"} else set()
    except (OSError, *NO_MANIFEST):
        return set()


def _files_of_ensemble(folder: Path) -> set[str]:
    try:
        ensemble = read_ensemble(read_regular(folder / ENSEMBLE, MANIFEST_LIMIT), folder / ENSEMBLE)
    except (OSError, BundleError):
        return set()
    inner = {f"{m.folder}/{name}" for m in ensemble.members for name in _named_files(folder / m.folder)}
    return {ENSEMBLE, SIGNATURE, *inner}


def _put_in_place(staging: Path, place: Path, *, retired: Path) -> None:
    """Replace `place` by `staging` in two renames; if the second fails, the old bundle is restored.

    One rename is not enough, because it cannot replace a folder that is not empty.
    """
    try:
        if place.exists():
            place.rename(retired)
        staging.rename(place)
    finally:
        if retired.exists() and not place.exists():
            retired.rename(place)


def make_readable(staging: Path) -> None:
    """Make all files readable for other accounts, because the service that uses the bundle runs under another one."""
    staging.chmod(0o755)
    for path in staging.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _file_entry(path: Path) -> FileEntry:
    return FileEntry(sha256=file_sha256(path), bytes=path.stat().st_size)


# changes of an existing bundle


def require_changeable(folder: Path) -> None:
    """Raises OSError if the manifest cannot be replaced. Changes nothing."""
    with locked(folder), tempfile.TemporaryFile(dir=folder) as draft:
        draft.write(b"manifest")


def replace_engines(
    bundle: Bundle, engines: Iterable[EngineEntry], *, added: Iterable[str], removed: Iterable[str]
) -> Bundle:
    """Replace the list of TensorRT engines in the manifest; returns the changed bundle. The caller has the lock.

    Files of `added` must exist. Files of `removed` are no longer listed; the caller deletes them.
    """
    gone = set(removed)
    kept = {name: entry for name, entry in bundle.files.items() if name not in gone}
    files = kept | {name: _file_entry(bundle.folder / name) for name in added}
    return _replace(bundle, replace(bundle.manifest, engines=tuple(engines), files=dict(sorted(files.items()))))


def replace_gates(bundle: Bundle, gates: Iterable[GateEntry]) -> Bundle:
    """Replace the list of gate verdicts in the manifest; returns the changed bundle. The caller has the lock."""
    return _replace(bundle, replace(bundle.manifest, gates=tuple(gates)))


def _replace(bundle: Bundle, manifest: Manifest) -> Bundle:
    """Replace the manifest; one of an earlier schema becomes one of schema 2. A signature does not fit any more."""
    replace_file(bundle.folder, MANIFEST, manifest_json(manifest))
    return open_bundle(bundle.folder)


def replace_file(folder: Path, name: str, content: bytes) -> None:
    """Write a temporary file and rename it to a file of the folder of a bundle. Raises OSError.

    The temporary file is in the folder of unfinished builds, so that one of a killed process is ignored.
    """
    drafts = folder / UNFINISHED
    drafts.mkdir(parents=True, exist_ok=True)
    (drafts / name).write_bytes(content)
    (drafts / name).chmod(0o644)
    (drafts / name).replace(folder / name)
    for empty in (drafts, drafts.parent):
        with suppress(OSError):
            empty.rmdir()
