"""What is to be fetched from the archive: searches by day or accession number, and studies. All transitions of `fetch`.

wanted -> fetching          the fetcher has begun it
fetching -> wanted          given back, or failed and due again later; all of them when the fetcher starts
fetching -> fetched         a search has added the studies that it found; of a study all images are here
fetching -> dead            it does not exist, or too many attempts
wanted, fetching, dead -> cancelled   by a person
wanted, dead, cancelled -> wanted     by a person

Transitions of an item that a person has cancelled meanwhile have no effect.
"""

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from glam_deploy.appliance.state.database import transaction
from glam_deploy.errors import UsageError

Kind = Literal["day", "accession", "study"]
STATES = ("wanted", "fetching", "fetched", "dead", "cancelled")
UNFINISHED = ("wanted", "fetching", "dead")
Pseudonym = Callable[[str], str]
PAGE = 500
BATCH = 500
"""Items that are added in one transaction: other processes, such as the receiver, wait for it."""
PAUSE_S = 0.02
"""Pause between two of these transactions, in which the other processes write."""
_RETRY_NOW = -1.0
"""Value of `next_try` of an item that a person wants tried at once; monotonic times are never below 0."""


@dataclass(frozen=True, kw_only=True)
class FetchItem:
    """A search or a study that the fetcher has begun."""

    id: int
    kind: Kind
    name: str
    """Name in logs: the day, or the pseudonym of the accession number or of the study."""
    value: str
    """Day as YYYYMMDD, accession number or Study Instance UID."""
    attempts: int


@dataclass(frozen=True, kw_only=True)
class Added:
    """What became of the items of one request."""

    new: int
    again: int
    """Known ones that are wanted again: searches by day, and what was cancelled."""
    known: int
    """Waiting, fetched or dead: nothing was changed."""


def add(
    connection: sqlite3.Connection, kind: Kind, values: Iterable[str], pseudonym: Pseudonym, *, again: bool = False
) -> Added:
    """Want these days, accession numbers or Study Instance UIDs; each is one item, however often it is added.

    A day is always searched again, because exams may have been added to the archive; studies that it finds a second
    time are not fetched again. `again`: what was fetched or is dead is wanted again. Several transactions of up to
    `BATCH` items each; what was added before an error stays, and is known when it is added again.
    """
    found: list[str] = []
    for batch in _batches(values, str if kind == "day" else pseudonym):
        with transaction(connection):
            found += [_add(connection, kind, name, value, again) for name, value in batch]
    return Added(new=found.count("new"), again=found.count("again"), known=found.count("known"))


def _batches(values: Iterable[str], name_of: Callable[[str], str]) -> Iterator[list[tuple[str, str]]]:
    """Name and value of each distinct value, up to `BATCH` at a time, with a pause between them."""
    distinct = list(dict.fromkeys(values))
    for start in range(0, len(distinct), BATCH):
        if start:
            time.sleep(PAUSE_S)
        yield [(name_of(value), value) for value in distinct[start : start + BATCH]]


def _add(connection: sqlite3.Connection, kind: Kind, name: str, value: str, again: bool) -> str:
    inserted = connection.execute(
        "INSERT OR IGNORE INTO fetch (kind, name, value, state, created_at) VALUES (?, ?, ?, 'wanted', ?)",
        (kind, name, value, time.time()),
    )
    if inserted.rowcount:
        return "new"
    states = ["cancelled", *(["fetched"] if again or kind == "day" else []), *(["dead"] if again else [])]
    changed = connection.execute(
        "UPDATE fetch SET state = 'wanted', value = ?, attempts = 0, next_try = 0, reason = NULL, finished_at = NULL"
        f" WHERE kind = ? AND name = ? AND state IN ({', '.join('?' * len(states))})",
        (value, kind, name, *states),
    )
    return "again" if changed.rowcount else "known"


def release_all(connection: sqlite3.Connection) -> int:
    """Give back what a fetcher that was killed had begun; how many items."""
    return connection.execute("UPDATE fetch SET state = 'wanted' WHERE state = 'fetching'").rowcount


def take_retry_request(connection: sqlite3.Connection) -> bool:
    """Whether a person asked to retry an item since the last call."""
    asked = f"state = 'wanted' AND next_try = {_RETRY_NOW}"
    if connection.execute(f"SELECT 1 FROM fetch WHERE {asked} LIMIT 1").fetchone() is None:
        return False
    return bool(connection.execute(f"UPDATE fetch SET next_try = 0 WHERE {asked}").rowcount)


def claim(connection: sqlite3.Connection, now: float) -> FetchItem | None:
    """Begin the oldest item that is due at monotonic time `now`; None if there is none."""
    due = "SELECT id FROM fetch WHERE state = 'wanted' AND next_try <= ? ORDER BY id LIMIT 1"
    if connection.execute(due, (now,)).fetchone() is None:
        return None
    with transaction(connection):
        row = connection.execute(
            f"UPDATE fetch SET state = 'fetching' WHERE id = ({due}) RETURNING id, kind, name, value, attempts", (now,)
        ).fetchone()
    return row and FetchItem(**dict(row))


def release(connection: sqlite3.Connection, item: FetchItem, *, reason: str | None = None, next_try: float = 0) -> None:
    """Give an item back without counting an attempt, to be tried at monotonic time `next_try`.

    `reason`: None keeps the one before.
    """
    connection.execute(
        "UPDATE fetch SET state = 'wanted', reason = coalesce(?, reason), next_try = ?"
        " WHERE id = ? AND state = 'fetching'",
        (reason, next_try, item.id),
    )


def finish_search(
    connection: sqlite3.Connection,
    item: FetchItem,
    study_uids: Sequence[str],
    pseudonym: Pseudonym,
    *,
    reason: str | None = None,
) -> int:
    """Add the studies that a search found, and end it; how many of them are new.

    Transactions as those of `add`: the search ends in the last one, so that one that was interrupted is repeated. After
    it was cancelled, no further study is added. `reason`: what is told of the result.
    """
    new = 0
    for batch in _batches(study_uids, pseudonym):
        with transaction(connection):
            if not is_current(connection, item):
                return new
            new += sum(_add_found(connection, name, uid) for name, uid in batch)
    count = len(set(study_uids))
    with transaction(connection):
        _finish(connection, item, count, reason or (None if count else "no mammography found"))
    return new


def _add_found(connection: sqlite3.Connection, name: str, study_uid: str) -> bool:
    """Want a study, unless it is known in any state."""
    made = connection.execute(
        "INSERT OR IGNORE INTO fetch (kind, name, value, state, created_at) VALUES ('study', ?, ?, 'wanted', ?)",
        (name, study_uid, time.time()),
    )
    return bool(made.rowcount)


def finish_study(connection: sqlite3.Connection, item: FetchItem, images: int, reason: str | None = None) -> bool:
    """End a study whose wanted images are all here; False if it was cancelled meanwhile."""
    with transaction(connection):
        return _finish(connection, item, images, reason)


def _finish(connection: sqlite3.Connection, item: FetchItem, found: int, reason: str | None) -> bool:
    done = connection.execute(
        "UPDATE fetch SET state = 'fetched', found = ?, reason = ?, value = iif(kind = 'day', value, NULL),"
        " finished_at = ? WHERE id = ? AND state = 'fetching'",
        (found, reason, time.time(), item.id),
    )
    return bool(done.rowcount)


def fail(connection: sqlite3.Connection, item: FetchItem, reason: str, *, next_try: float, attempts: int) -> str:
    """Count a failed attempt; the new state: "wanted" again at `next_try`, or "dead" after `attempts` of them.

    `reason` holds no identifier.
    """
    with transaction(connection):
        dead = item.attempts + 1 >= attempts
        connection.execute(
            "UPDATE fetch SET state = ?, attempts = attempts + 1, reason = ?, next_try = ?, finished_at = ?"
            " WHERE id = ? AND state = 'fetching'",
            ("dead" if dead else "wanted", reason, next_try, time.time() if dead else None, item.id),
        )
    return "dead" if dead else "wanted"


def is_current(connection: sqlite3.Connection, item: FetchItem) -> bool:
    """Whether an item that was begun has not been cancelled."""
    row = connection.execute("SELECT 1 FROM fetch WHERE id = ? AND state = 'fetching'", (item.id,)).fetchone()
    return row is not None


def is_fetching(connection: sqlite3.Connection, pseudonym: str) -> bool:
    """Whether images of the study with this pseudonym are being fetched."""
    query = "SELECT 1 FROM fetch WHERE kind = 'study' AND name = ? AND state = 'fetching'"
    return connection.execute(query, (pseudonym,)).fetchone() is not None


def retry(connection: sqlite3.Connection, number: int) -> None:
    """Want an item again at once, with its attempts counted from 0. Raises UsageError if it is fetched or begun."""
    _decide(connection, number, "wanted", ("wanted", "dead", "cancelled"), "retried")


def cancel(connection: sqlite3.Connection, number: int) -> None:
    """Give an item up, also while it is fetched; images that are here stay. Raises UsageError if it is fetched."""
    _decide(connection, number, "cancelled", ("wanted", "fetching", "dead"), "cancelled")


def _decide(connection: sqlite3.Connection, number: int, state: str, before: Sequence[str], done: str) -> None:
    changed = connection.execute(
        f"UPDATE fetch SET state = ?, attempts = 0, next_try = {_RETRY_NOW}, reason = iif(? = 'wanted', NULL, reason),"
        f" finished_at = NULL WHERE id = ? AND state IN ({', '.join('?' * len(before))})",
        (state, state, number, *before),
    )
    if not changed.rowcount:
        row = connection.execute("SELECT state FROM fetch WHERE id = ?", (number,)).fetchone()
        was = f"is {row['state']}" if row else "does not exist"
        raise UsageError(f"item {number} {was}: only {' or '.join(before)} items can be {done}")


def counts(connection: sqlite3.Connection) -> dict[str, int]:
    """Number of items in each of `STATES`, in that order."""
    found = dict(connection.execute("SELECT state, count(*) FROM fetch GROUP BY state").fetchall())
    return {state: found.get(state, 0) for state in STATES}


def items(
    connection: sqlite3.Connection, states: Sequence[str] = STATES, *, after: int = 0, limit: int = PAGE
) -> list[sqlite3.Row]:
    """Up to `limit` items in these states with a number above `after`, in order of arrival; without their values."""
    return connection.execute(
        "SELECT id, kind, name, state, attempts, reason, found, created_at, finished_at FROM fetch"
        f" WHERE state IN ({', '.join('?' * len(states))}) AND id > ? ORDER BY id LIMIT ?",
        (*states, after, limit),
    ).fetchall()


def matching(connection: sqlite3.Connection, text: str, pseudonym: Pseudonym) -> list[int]:
    """Numbers of the items with this number, day, pseudonym (4 characters or more), accession number or study UID."""
    if text.isascii() and text.isdigit() and len(text) <= 7:
        rows = connection.execute("SELECT id FROM fetch WHERE id = ?", (int(text),)).fetchall()
        if rows:
            return [rows[0]["id"]]
    if rows := connection.execute("SELECT id FROM fetch WHERE name IN (?, ?)", (text, pseudonym(text))).fetchall():
        return [row["id"] for row in rows]
    if len(text) < 4 or not text.isalnum():
        return []
    found = connection.execute("SELECT id FROM fetch WHERE substr(name, 1, ?) = ? LIMIT 20", (len(text), text))
    return [row["id"] for row in found]
