"""How a target is, judged by what happened to parcels, and when it is tried again. No clock of its own, no I/O.

A target that lets nobody in is at fault: all its parcels wait. One that lets us in and then breaks off, hangs or is out
of room may choke on that one parcel, or may be ill itself. The next parcel tells: if it gets through, the first is to
blame and an attempt is counted; if it does not either, the target is to blame, and all wait. Such an illness of the
target costs a parcel one attempt at most, when it is over.
"""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

P = TypeVar("P")

ENOUGH = 2
"""So many different parcels in vain, none served between, and it is the target."""


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Waits that double, in seconds."""

    first_s: float
    longest_s: float

    def after(self, failures: int) -> float:
        """Wait after so many failures in a row, 1 or more."""
        return min(self.first_s * 2.0 ** min(failures - 1, 100), self.longest_s)


@dataclass(frozen=True, kw_only=True)
class Suspect(Generic[P]):
    """A parcel that the target broke off at."""

    parcel: P
    times: int
    reason: str


@dataclass(kw_only=True)
class Health(Generic[P]):
    """Of one target; times are steady, in seconds. The circuit is open (nothing is sent) until `not_before`."""

    backoff: Backoff
    failures: int = 0
    """In a row, each of which has opened the circuit."""
    not_before: float = 0.0
    reason: str = ""
    """What is wrong with the target; "" while all is well."""
    suspects: dict[int, Suspect[P]] = field(default_factory=dict)
    """By the parcel's number: what the target broke off at since it last served a parcel."""

    def may_try(self, now: float) -> bool:
        return now >= self.not_before

    def hurry(self) -> None:
        """A person says that it is repaired: it is tried now, and waits begin anew."""
        self.failures, self.not_before = 0, 0.0

    def unreachable(self, now: float, reason: str) -> None:
        """It let nobody in."""
        self.failures += 1
        self.not_before = now + self.backoff.after(self.failures)
        self.reason = reason

    def broke(self, number: int, parcel: P, now: float, reason: str) -> float:
        """It let us in and then failed at this parcel: the steady time before which that one is not tried again."""
        before = self.suspects.get(number)
        times = before.times + 1 if before else 1
        self.suspects[number] = Suspect(parcel=parcel, times=times, reason=reason)
        if len(self.suspects) >= ENOUGH:
            self.unreachable(now, reason)
        return now + self.backoff.after(times)

    def served(self, number: int) -> list[Suspect[P]]:
        """It answered for an object of this parcel: all is well, and other parcels that failed are to blame."""
        blamed = [suspect for other, suspect in self.suspects.items() if other != number]
        self.failures, self.not_before, self.reason = 0, 0.0, ""
        self.suspects.clear()
        return blamed
