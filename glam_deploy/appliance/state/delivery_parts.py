"""The objects of deliveries, counted by kind and state, for the status page, `queue` and the reasons of failures."""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

_QUERY = (
    "SELECT parcel_id, path, o.state, coalesce(o.reason, '') AS reason FROM job"
    " JOIN parcel ON parcel.job_id = job.id JOIN parcel_object AS o ON o.parcel_id = parcel.id"
    " WHERE {} ORDER BY parcel_id, path"
)


@dataclass(frozen=True, kw_only=True)
class DeliveryPart:
    """Objects of one kind of a delivery, with the same state and reason."""

    delivery: int
    """Number of the delivery."""
    kind: str
    """By the name of its switch in [results]."""
    state: str
    """"pending", "sent", "proven" or "dead"."""
    reason: str
    """The target's last answer, if it was not a plain success; holds no identifier."""
    count: int

    @property
    def arrived(self) -> bool:
        """Whether the target has accepted them."""
        return self.state in ("sent", "proven")

    def __str__(self) -> str:
        """As in "2 seg not delivered: it accepts no Segmentation Storage"."""
        waits = self.state == "pending" and not self.reason
        state = {"proven": "delivered", "sent": "accepted"}.get(self.state, "waiting" if waits else "not delivered")
        return f"{self.count} {self.kind} {state}{f': {self.reason}' if self.reason else ''}"


def parts_of_delivery(connection: sqlite3.Connection, delivery_id: int) -> list[DeliveryPart]:
    """The parts of one delivery, by kind."""
    return _parts(connection.execute(_QUERY.format("parcel.id = ?"), (delivery_id,)))


def parts_of_study(connection: sqlite3.Connection, study_uid: str) -> list[DeliveryPart]:
    """The parts of all deliveries of a study, by delivery and kind."""
    return _parts(connection.execute(_QUERY.format("job.study_uid = ?"), (study_uid,)))


def _parts(rows: Iterable[sqlite3.Row]) -> list[DeliveryPart]:
    counts = Counter((row["parcel_id"], PurePath(row["path"]).stem, row["state"], row["reason"]) for row in rows)
    return [
        DeliveryPart(delivery=delivery, kind=kind, state=state, reason=reason, count=count)
        for (delivery, kind, state, reason), count in sorted(counts.items())
    ]


def shortfall(parts: Sequence[DeliveryPart], *, proof: bool) -> str:
    """Why a delivery is incomplete: "4 of 6 objects delivered, 2 not (2 seg): the target's answer".

    With `proof`, an object that the target has accepted but does not show counts as not delivered.
    """
    missing = [part for part in parts if not part.arrived or (proof and part.state == "sent")]
    total, lacking = (sum(part.count for part in found) for found in (parts, missing))
    by_reason: dict[str, list[DeliveryPart]] = {}
    for part in missing:
        by_reason.setdefault(_reason(part), []).append(part)
    reasons = [
        f"{sum(part.count for part in found)} not ({', '.join(f'{part.count} {part.kind}' for part in found)}): {why}"
        for why, found in by_reason.items()
    ]
    return ", ".join([f"{total - lacking} of {total} objects delivered", *reasons])


def _reason(part: DeliveryPart) -> str:
    return "accepted, but the target does not show them" if part.arrived else part.reason or "refused without a reason"
