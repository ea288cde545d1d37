"""State of a target (circuit breaker), from the results of its deliveries: when to try again, and what to blame.

If a target cannot be reached, all its deliveries wait. If it accepts the connection and then breaks off, hangs or is
out of space, the cause may be that delivery or the target. The next delivery decides: if it succeeds, the first
delivery is to blame, and an attempt counts for it; if it fails too, the target is to blame, and all deliveries wait. A
failure of the target therefore costs a delivery at most one attempt, counted when the target works again.

The module has no clock and does no I/O.
"""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

P = TypeVar("P")

SUSPECTS_TO_BLAME_TARGET = 2
"""Number of different deliveries that must fail, without a success in between, to blame the target."""


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Exponential backoff in seconds: doubles from `first_s` up to `longest_s`."""

    first_s: float
    longest_s: float

    def after(self, failures: int) -> float:
        """The wait after this many failures in a row, 1 or more."""
        return min(self.first_s * 2.0 ** min(failures - 1, 100), self.longest_s)


@dataclass(frozen=True, kw_only=True)
class Suspect(Generic[P]):
    """A delivery at which the target broke off."""

    delivery: P
    times: int
    reason: str


@dataclass(kw_only=True)
class TargetHealth(Generic[P]):
    """State of one target; times are monotonic, in seconds. Nothing is sent before `not_before`."""

    backoff: Backoff
    failures: int = 0
    """Failures in a row that have opened the circuit."""
    not_before: float = 0.0
    reason: str = ""
    """The target's fault; "" while it works."""
    suspects: dict[int, Suspect[P]] = field(default_factory=dict)
    """Delivery id -> deliveries at which the target broke off since it last accepted an object."""

    def may_try(self, now: float) -> bool:
        return now >= self.not_before

    def retry_now(self) -> None:
        """Allow a try at once and reset the backoff, because a person asked for it."""
        self.failures, self.not_before = 0, 0.0

    def record_unreachable(self, now: float, reason: str) -> None:
        """The target could not be reached: open the circuit."""
        self.failures += 1
        self.not_before = now + self.backoff.after(self.failures)
        self.reason = reason

    def record_interruption(self, delivery_id: int, delivery: P, now: float, reason: str) -> float:
        """The target broke off during this delivery; the monotonic time of its next try."""
        before = self.suspects.get(delivery_id)
        times = before.times + 1 if before else 1
        self.suspects[delivery_id] = Suspect(delivery=delivery, times=times, reason=reason)
        if len(self.suspects) >= SUSPECTS_TO_BLAME_TARGET:
            self.record_unreachable(now, reason)
        return now + self.backoff.after(times)

    def record_success(self, delivery_id: int) -> list[Suspect[P]]:
        """The target answered for an object of this delivery: close the circuit; the other suspects are to blame."""
        blamed = [suspect for other, suspect in self.suspects.items() if other != delivery_id]
        self.failures, self.not_before, self.reason = 0, 0.0, ""
        self.suspects.clear()
        return blamed
