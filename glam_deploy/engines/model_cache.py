"""Cache of compiled models in a folder, so that a later start need not compile them. All files may be deleted.

The name of a file is the hash of everything that its content depends on. A file begins with the hash of its content, so
a truncated or damaged file is ignored. An account that can write to the folder can change results: a folder or file
that another account owns or may write is not used. Several processes may share the folder: files are written
atomically, and may be removed while they are read.
"""

import hashlib
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from glam_deploy.regular import open_regular, others_access

log = logging.getLogger(__name__)

MOST_FILES = 24
"""Maximum number of files: eight bundles or engines with three stages; the least recently used are removed."""
MOST_BYTES = 4 * 2**30
"""Maximum total size; the least recently used files are removed, and a larger model is not stored."""
DRAFT_S = 24 * 3600.0
"""Age in seconds after which a temporary file is removed, because the process that wrote it was killed."""
DIGEST = hashlib.sha256().digest_size
NOWHERE = Path(os.devnull)
"""Value of the option `cache` that disables the cache."""


def default_folder() -> Path:
    """$XDG_CACHE_HOME/glam-deploy, else ~/.cache/glam-deploy (XDG Base Directory Specification).

    NOWHERE, with a warning in the log, for an account without a home folder, for example on OpenShift.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if home.is_absolute():
        return home / "glam-deploy"
    try:
        return Path("~/.cache").expanduser() / "glam-deploy"
    except RuntimeError:  # no HOME and no passwd entry
        account = "this account" if sys.platform == "win32" else f"account {os.getuid()}"
        _warn_once(f"{account} has no home folder (HOME is not set, and no passwd entry names one)")
        return NOWHERE


class ModelCache:
    """Compiled models in one folder, which is created for the first model. No method raises OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, key: Mapping[str, object]) -> memoryview | None:
        """The model stored under `key`; None if there is none, or its file is damaged or not of this account alone."""
        path = self._path(key)
        if not self._folder.is_dir():  # also a device, whose mode others need
            return None
        try:
            if not self._is_private():
                return None
            with open_regular(path) as file:
                if reason := others_access(os.fstat(file.fileno())):
                    _refuse_once(path, reason)
                    return None
                content = memoryview(file.read())
        except OSError:
            return None
        with suppress(OSError):  # time of last use, for `_evict`; fails in a read-only folder, which may be read
            os.utime(path)
        digest, blob = content[:DIGEST], content[DIGEST:]
        return blob if hashlib.sha256(blob).digest() == digest else None

    def store(self, key: Mapping[str, object], blob: bytes | memoryview) -> None:
        """Store a model under `key`: JSON values of all that it depends on. A failure is logged once."""
        if self._folder == NOWHERE or len(blob) + DIGEST > MOST_BYTES:
            return
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._is_private():
                return
            self._write(self._path(key), blob)
        except OSError as error:
            _warn_once(f"the folder {self._folder} cannot be written to ({error.strerror or error})")
            return
        self._evict()

    def _is_private(self) -> bool:
        """Whether only this account may change the folder; a warning says why not. Raises OSError."""
        if reason := others_access(self._folder.stat()):
            _refuse_once(self._folder, reason)
        return not reason

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

    def _evict(self) -> None:
        """Remove the least recently used models above the limits, and old temporary files; other processes may too."""
        models = _files(self._folder, f"{'[0-9a-f]' * 2 * DIGEST}.model")  # other programs may use the folder, too
        total = 0
        for number, (path, status) in enumerate(sorted(models, key=lambda model: -model[1].st_mtime_ns)):
            total += status.st_size
            if number >= MOST_FILES or total > MOST_BYTES:
                _remove(path)
        for path, status in _files(self._folder, ".*.draft"):
            if status.st_mtime < time.time() - DRAFT_S:
                _remove(path)


def _files(folder: Path, pattern: str) -> list[tuple[Path, os.stat_result]]:
    """Files of a pattern with their status, without those that another process has just removed."""
    found = []
    for path in folder.glob(pattern):
        with suppress(OSError):
            found.append((path, path.stat()))
    return found


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


@cache
def _refuse_once(path: Path, reason: str) -> None:
    log.warning(
        "The cached models in %s are not used, so every start compiles them again: it %s, and whoever can write it can "
        "change results. Give a folder of your own with --cache (cache= in Python) or XDG_CACHE_HOME, or remove the "
        "right to write: chmod -R go-w.",
        path,
        reason,
    )


@cache
def _warn_once(why: str) -> None:
    log.warning(
        "Compiled models are not cached, so every start compiles them again: %s. Give a writable folder with --cache "
        "(cache= in Python) or XDG_CACHE_HOME, or disable the cache with --cache %s.",
        why,
        NOWHERE,
    )
