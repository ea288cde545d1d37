"""A folder of compiled models, so that a second start need not compile. Nothing in it is ever needed.

A file is named by the hash of all that its content depends on, and begins with the hash of that content: a file that
was cut off or damaged is as good as none. Whoever can write to the folder can change results, so it is the user's own.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

MOST_FILES = 24
"""Eight bundles or engines of three stages; the longest unused go."""
DIGEST = hashlib.sha256().digest_size


def default_folder() -> Path:
    """$XDG_CACHE_HOME/glam-deploy, else ~/.cache/glam-deploy (XDG Base Directory Specification)."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path("~/.cache").expanduser()) / "glam-deploy"


class ModelCache:
    """Compiled models in one folder, which is made when the first is stored. No error of the file system gets out."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, key: Mapping[str, object]) -> memoryview | None:
        """What was stored under a key; None where there is nothing whole."""
        path = self._path(key)
        try:
            content = memoryview(path.read_bytes())
            os.utime(path)  # for `_forget`
        except OSError:
            return None
        digest, blob = content[:DIGEST], content[DIGEST:]
        return blob if hashlib.sha256(blob).digest() == digest else None

    def store(self, key: Mapping[str, object], blob: bytes | memoryview) -> None:
        """Keep a model under a key (JSON-ready, all that it depends on); where that cannot be, it is left."""
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self._folder, prefix=".", delete=False) as draft:
                try:
                    draft.write(hashlib.sha256(blob).digest())
                    draft.write(blob)
                    draft.close()
                    Path(draft.name).replace(self._path(key))
                finally:
                    Path(draft.name).unlink(missing_ok=True)
            self._forget()

    def _path(self, key: Mapping[str, object]) -> Path:
        return self._folder / f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()}.model"

    def _forget(self) -> None:
        ours = self._folder.glob(f"{'[0-9a-f]' * 2 * DIGEST}.model")  # the folder may be one that others use, too
        newest_first = sorted(ours, key=lambda path: path.stat().st_mtime, reverse=True)
        for path in newest_first[MOST_FILES:]:
            path.unlink(missing_ok=True)
