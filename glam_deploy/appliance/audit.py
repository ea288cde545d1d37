"""The audit: one line of JSON for everything that was let in, refused, found and sent, with pseudonyms for whom.

A line holds `at` (UTC), `event` and facts. No process writes a line in part, and lines of all processes lie in one
file a day. A study or instance stands there as `identity.pseudonym` calls it, never by its UID.
"""

import json
import logging
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from glam_deploy.appliance.data import DataFolder, part_file, sync
from glam_deploy.appliance.identity import pseudonym
from glam_deploy.errors import UsageError

KEY_BYTES = 32

_LOG = logging.getLogger(__name__)

Fact = str | int | float | bool | None


def load_key(data: DataFolder) -> bytes:
    """The key of the pseudonyms, 32 bytes; made at the first start, for this user alone, and the same ever after.

    Raises UsageError where the file is no such key: another one would give every study a second pseudonym.
    """
    path = data.root / "audit.key"
    if not path.exists():
        _make_key(data.root, path)
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise UsageError(
            f"{path} has {len(key)} bytes, expected {KEY_BYTES}: restore it from a backup, or remove it, after which "
            "no pseudonym in the audit can be matched with a study any more"
        )
    return key


def _make_key(folder: Path, path: Path) -> None:
    """Of several processes that start at once, the first one's key stands."""
    with part_file(folder) as (part, file):
        part.chmod(0o600)
        file.write(secrets.token_bytes(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
        try:
            os.link(part, path)
        except FileExistsError:
            return
    sync(folder)


@dataclass(frozen=True, kw_only=True)
class Audit:
    """Writes to `folder`; safe to share between threads, and between processes that have the same `key`."""

    folder: Path
    key: bytes

    def name(self, identifier: str) -> str:
        """What the audit, logs and pages call a study or an instance, given its UID: 16 hexadecimal digits."""
        return pseudonym(self.key, identifier)

    def write(self, event: str, *, study: str | None = None, instance: str | None = None, **facts: Fact) -> None:
        """Add a line, and say it in the log. `study`, `instance`: UIDs, written as pseudonyms; facts hold none.

        A disk that takes no line is logged and nothing else: what has happened stands in `state.db` too.
        """
        named = {"study": study, "instance": instance}
        names = {what: self.name(uid) for what, uid in named.items() if uid is not None}
        now = datetime.now(UTC)
        told = {"event": event, **names, **{fact: value for fact, value in facts.items() if value is not None}}
        _LOG.info("%s", json.dumps(told))
        line = json.dumps({"at": now.isoformat(timespec="milliseconds"), **told})
        try:
            _append(self.folder / f"{now:%Y-%m-%d}.jsonl", line.encode() + b"\n")
        except OSError as error:
            _LOG.error("the audit took no line on %s (%s)", event, error.strerror)


def open_audit(data: DataFolder) -> Audit:
    """The audit of a data folder that has been made."""
    return Audit(folder=data.audit, key=load_key(data))


def _append(path: Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)
