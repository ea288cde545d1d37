"""A folder of compiled models, so that a second start need not compile. Nothing in it is ever needed.

A file is named by the hash of all that its content depends on, and begins with the hash of that content: a file that
was cut off or damaged is as good as none. Whoever can write to the folder can change results, so it is the user's own.
Several processes may share it: files appear whole, and one that is read may be removed meanwhile.
"""

import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

MOST_FILES = 24
"""Eight bundles or engines of three stages; the longest unused go."""
MOST_BYTES = 4 * 2**30
"""Of all models together; the longest unused go, and a larger one is not kept."""
DRAFT_S = 24 * 3600.0
"""Seconds after which a file that was being written is one that a killed process left."""
DIGEST = hashlib.sha256().digest_size
NOWHERE = Path(os.devnull)
"""The folder that keeps nothing, as asked."""


def default_folder() -> Path:
    """$XDG_CACHE_HOME/glam-deploy, else ~/.cache/glam-deploy (XDG Base Directory Specification).

    NOWHERE, with a warning in the log, for an account without home folder, as OpenShift makes them.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if home.is_absolute():
        return home / "glam-deploy"
    try:
        return Path("~/.cache").expanduser() / "glam-deploy"
    except RuntimeError:  # no HOME, and no entry in the list of accounts
        _warn_once(f"account {os.getuid()} has no home folder (HOME is not set, and no passwd entry names one)")
        return NOWHERE


class ModelCache:
    """Compiled models in one folder, which is made when the first is stored. No error of the file system gets out."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, key: Mapping[str, object]) -> memoryview | None:
        """What was stored under a key; None where there is nothing whole."""
        path = self._path(key)
        try:
            content = memoryview(path.read_bytes())
        except OSError:
            return None
        with suppress(OSError):  # for `_forget`; a folder that is only read is as good
            os.utime(path)
        digest, blob = content[:DIGEST], content[DIGEST:]
        return blob if hashlib.sha256(blob).digest() == digest else None

    def store(self, key: Mapping[str, object], blob: bytes | memoryview) -> None:
        """Keep a model under a key (JSON-ready, all that it depends on); where that cannot be, the log says so once."""
        if self._folder == NOWHERE or len(blob) + DIGEST > MOST_BYTES:
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._write(self._path(key), blob)
        except OSError as error:
            _warn_once(f"the folder {self._folder} cannot be written to ({error.strerror or error})")
            return
        self._forget()

    def _write(self, path: Path, blob: bytes | memoryview) -> None:
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".", suffix=".draft", delete=False) as draft:
            try:
                draft.write(hashlib.sha256(blob).digest())
                draft.write(blob)
                draft.close()
                Path(draft.name).replace(path)
            finally:
                Path(draft.name).unlink(missing_ok=True)

    def _path(self, key: Mapping[str, object]) -> Path:
        return self._folder / f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()}.model"

    def _forget(self) -> None:
        """Keep what was used last, up to the limits. Another process may do the same at the same time."""
        ours = _found(self._folder, f"{'[0-9a-f]' * 2 * DIGEST}.model")  # the folder may be one that others use, too
        total = 0
        for number, (path, status) in enumerate(sorted(ours, key=lambda found: -found[1].st_mtime_ns)):
            total += status.st_size
            if number >= MOST_FILES or total > MOST_BYTES:
                _remove(path)
        for path, status in _found(self._folder, ".*.draft"):
            if status.st_mtime < time.time() - DRAFT_S:
                _remove(path)


def _found(folder: Path, pattern: str) -> list[tuple[Path, os.stat_result]]:
    """Files, without those that went meanwhile."""
    found = []
    for path in folder.glob(pattern):
        with suppress(OSError):
            found.append((path, path.stat()))
    return found


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


@cache
def _warn_once(why: str) -> None:
    log.warning(
        "Compiled models are not kept, so every start compiles them again: %s. Name a folder of your own with --cache "
        "(cache= in Python) or XDG_CACHE_HOME, or say --cache %s.",
        why,
        NOWHERE,
    )
