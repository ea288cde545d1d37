"""Audit log: one JSON line for each object received, refused, processed or sent; studies appear under pseudonyms.

A line holds `at` (UTC), `event` and further values. Each line is written by one system call, and the lines of all
processes go into one file a day. A study or instance appears as its `identity.pseudonym`, never as its UID.
"""

import json
import logging
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from glam_deploy.appliance.data import DataFolder, part_file
from glam_deploy.appliance.identity import pseudonym
from glam_deploy.appliance.process import RECURRING
from glam_deploy.durable import sync
from glam_deploy.errors import UsageError
from glam_deploy.regular import read_regular

KEY_BYTES = 32
_KEY = "audit.key"

_LOG = logging.getLogger(__name__)

AuditValue = str | int | float | bool | None


def load_key(data: DataFolder) -> bytes:
    """The key of the pseudonyms: 32 bytes, made at the first start, readable by this user only, never changed.

    Raises UsageError as `known_key`.
    """
    if (key := known_key(data)) is not None:
        return key
    _make_key(data.root, data.root / _KEY)
    return load_key(data)


def known_key(data: DataFolder) -> bytes | None:
    """The key; None before the first start.

    Raises UsageError if the file has another length, or is gone although the audit log has lines: with another key
    every study would get a second pseudonym.
    """
    path = data.root / _KEY
    if not path.exists():
        if not any(data.audit.glob("*.jsonl")):
            return None
        raise UsageError(
            f"{path} is gone, without which no study of the audit log can be found: restore it from a backup. If there "
            f"is none, move the files in {data.audit} away; a new key is made then"
        )
    try:
        key = read_regular(path, 1 << 20)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): restore it from a backup") from error
    if len(key) != KEY_BYTES:
        raise UsageError(
            f"{path} has {len(key)} bytes, expected {KEY_BYTES}: restore it from a backup. If there is none, remove "
            f"it and move the files in {data.audit} away; a new key is made then, with which no study of them is found"
        )
    return key


def _make_key(folder: Path, path: Path) -> None:
    """Write the key file; if several processes start at once, the key of the first one is kept."""
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
    """Writes the audit log in `folder`; safe to share between threads, and between processes with the same `key`."""

    folder: Path
    key: bytes

    def pseudonym(self, identifier: str) -> str:
        """The pseudonym of a study or an instance, given its UID: 16 hexadecimal digits."""
        return pseudonym(self.key, identifier)

    def write(self, event: str, *, study: str | None = None, instance: str | None = None, **values: AuditValue) -> None:
        """Add a line, and log it. `study`, `instance`: UIDs, written as pseudonyms; `values` must hold no identifier.

        If the disk does not take the line, that is logged and nothing else: `state.db` holds the same facts.
        """
        named = {"study": study, "instance": instance}
        names = {what: self.pseudonym(uid) for what, uid in named.items() if uid is not None}
        now = datetime.now(UTC)
        entry = {"event": event, **names, **{key: value for key, value in values.items() if value is not None}}
        _LOG.info("%s", json.dumps(entry))
        line = json.dumps({"at": now.isoformat(timespec="milliseconds"), **entry})
        try:
            _append(self.folder / f"{now:%Y-%m-%d}.jsonl", line.encode() + b"\n")
        except OSError as error:
            _LOG.error("the audit log of %s cannot be written (%s)", event, error.strerror, extra=RECURRING)


def open_audit(data: DataFolder) -> Audit:
    """The audit log of a data folder that has been made."""
    return Audit(folder=data.audit, key=load_key(data))


def _append(path: Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)
