"""Times of the day at which studies are fetched."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time
from typing import Self


@dataclass(frozen=True, kw_only=True)
class Windows:
    """Windows of local wall clock time; without any, it is always time.

    At a change between summer and winter time a window starts and ends by the wall clock: 22:00-06:00 is one hour
    shorter or longer in that night.
    """

    spans: tuple[tuple[time, time], ...] = ()
    """Start, and end, which is not part of the window; a window whose end is not later than its start ends on the next
    day.
    """

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Self:
        """Windows in the form of the configuration, 22:00-06:00."""
        pairs = (text.split("-") for text in texts)
        return cls(spans=tuple((time.fromisoformat(start), time.fromisoformat(end)) for start, end in pairs))

    def is_open(self, moment: datetime) -> bool:
        """Whether a local time lies in a window."""
        now = moment.time()
        return not self.spans or any(
            start <= now < end if start < end else now >= start or now < end for start, end in self.spans
        )


def local_now() -> datetime:
    """The local time of this machine."""
    return datetime.now().astimezone()
