"""Changing the manifest of a bundle in use: by one process at a time, in one step."""

import fcntl
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from glam_deploy.bundle import MANIFEST, UNFINISHED, Bundle, file_entry, open_bundle, write_json


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
    bundle: Bundle, engines: Sequence[Mapping[str, Any]], *, added: Iterable[str], removed: Iterable[str]
) -> Bundle:
    """Give a bundle another list of engines; the bundle as it is then. The caller holds the lock.

    Files `added` must lie in their places. Those `removed` are no longer named; they are the caller's to delete.
    """
    gone = set(removed)
    kept = {name: entry for name, entry in bundle.files.items() if name not in gone}
    files = kept | {name: file_entry(bundle.folder / name) for name in added}
    return _replace(bundle, engines=list(engines), files=dict(sorted(files.items())))


def replace_gates(bundle: Bundle, gates: Sequence[Mapping[str, Any]]) -> Bundle:
    """Give a bundle another list of verdicts; the bundle as it is then. The caller holds the lock."""
    return _replace(bundle, gates=list(gates))


def _replace(bundle: Bundle, **changed: object) -> Bundle:
    """The draft lies where drafts of a build lie, so that one left over by a killed process belongs to nobody."""
    room = bundle.folder / UNFINISHED
    room.mkdir(parents=True, exist_ok=True)
    write_json(room / MANIFEST, {**bundle.manifest, **changed})
    (room / MANIFEST).chmod(0o644)
    (room / MANIFEST).replace(bundle.folder / MANIFEST)
    for empty in (room, room.parent):
        with suppress(OSError):
            empty.rmdir()
    return open_bundle(bundle.folder)
