"""Ledger and parts in agreement again, after a kill, the loss of a file or damage."""

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from glam_deploy.archive.ledger import Instance, Ledger, Seen, uid_key
from glam_deploy.archive.parts import FILES, TABLES, VIEWS, Parts
from glam_deploy.archive.rows import FAILED, SCORES

_INSTANCE = ("instance", "status", "entry", "reason", "sop_instance_uid", *SCORES, "patches")
_SEEN = ("entry", "outcome", "instance", "location")
"""Columns of `instance_of` and of `seen_of`."""


def instance_of(row: Mapping[str, Any]) -> Instance:
    """What the ledger has of a row of `views`.

    An instance that failed does not make its UID ambiguous: mostly it is a damaged copy of the other one.
    """
    return Instance(
        id=row["instance"],
        status=row["status"],
        entry=row["entry"],
        reason=row["reason"],
        uid=None if row["status"] == FAILED else uid_key(row["sop_instance_uid"]),
        result=result_key(row),
    )


def result_key(row: Mapping[str, Any]) -> bytes:
    """Key of what was found in an instance, from its row of `views`: 8 bytes of a SHA-256.

    Equal for two files of one image, such as in two transfer syntaxes or with another header; different for two images,
    because of their scores and the positions of their patches.
    """
    scores = [struct.pack("<f", math.nan if (score := row[name]) is None else score).hex() for name in SCORES]
    found = json.dumps([row["status"], scores, row["patches"]], sort_keys=True)
    return hashlib.sha256(found.encode()).digest()[:8]


def seen_of(row: Mapping[str, Any]) -> Seen:
    """What the ledger has of a row of `files`."""
    return Seen(id=row["entry"], outcome=row["outcome"], instance=row["instance"], location=row["location"])


@dataclass(frozen=True, kw_only=True)
class Difference:
    """Where the parts on the disk and the ledger differ. Parts are pairs of table and name."""

    damaged: tuple[tuple[str, str], ...]
    gone: tuple[tuple[str, str], ...]
    """Missing or damaged parts with rows that the ledger has."""
    unknown: tuple[str, ...]
    """Names of parts that the ledger has not recorded, in their order."""
    checksums: Mapping[str, str]
    """Path of each whole part -> SHA-256."""

    @property
    def repaired(self) -> tuple[tuple[str, str], ...]:
        """All parts whose rows have to be computed again."""
        return tuple(sorted({*self.damaged, *self.gone}))

    @property
    def changes_ledger(self) -> bool:
        return bool(self.gone or self.unknown)


def compare(parts: Parts, ledger: Ledger) -> Difference:
    """The difference; changes nothing. Reads all bytes of all parts (`Parts.check`)."""
    found = {(table, name): sha256 for table in TABLES for name, sha256 in parts.check(table)}
    whole = {part: sha256 for part, sha256 in found.items() if sha256}
    recorded = ledger.parts()
    has_rows = {VIEWS: ledger.has_instances, FILES: ledger.has_entries}
    return Difference(
        damaged=tuple(part for part in found if part not in whole),
        gone=tuple(
            (table, name)
            for name in sorted(recorded)
            for table in TABLES
            if (table, name) not in whole and has_rows[table](name)
        ),
        unknown=tuple(sorted({name for _, name in whole} - recorded)),
        checksums={parts.place(*part): sha256 for part, sha256 in whole.items()},
    )


def recover(difference: Difference, parts: Parts, ledger: Ledger) -> None:
    """Make the ledger agree with the parts: all of it, or nothing if this process is killed.

    Instances and entries of parts that are gone have no row any more, so that a run tries them again.
    """
    with ledger.transaction():
        forget = {VIEWS: ledger.forget_instances, FILES: ledger.forget_entries}
        for table, name in difference.gone:
            forget[table](name)
        for name in difference.unknown:
            views, files = (
                parts.read(table, name, columns) if parts.place(table, name) in difference.checksums else []
                for table, columns in ((VIEWS, _INSTANCE), (FILES, _SEEN))
            )
            ledger.record(name, map(instance_of, views), map(seen_of, files))
        for place, sha256 in difference.checksums.items():
            if not ledger.checksums(place):
                ledger.expect(place, sha256)
        if difference.changes_ledger:
            ledger.forget_orphans()
        if difference.repaired:
            ledger.miss_owners()
