"""How many of the latest views have which notice: what differs from the usual stands out by its share."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from glam_deploy.appliance.web.view_results import notices

VIEWS = 100
"""Views that are counted: about 25 exams, half a day of a screening unit."""


@dataclass(frozen=True, kw_only=True)
class NoticeShares:
    """Notices of the latest views."""

    views: int
    """Number of views that were counted: `VIEWS`, or as many as have results."""
    counts: dict[str, int]
    """Code of a notice -> number of views that have it, the most frequent first."""

    def text(self, code: str) -> str:
        """For one code, in words: "12 of the last 100 views"."""
        return f"{self.counts.get(code, 0)} of the last {self.views} views"


def notice_shares(folders: Iterable[Path]) -> NoticeShares:
    """Counts over the views whose results are in `folders`; a view with several notices of one code counts once."""
    found = [each for folder in folders if (each := notices(folder)) is not None]
    counts = Counter(code for each in found for code in {notice["code"] for notice in each})
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return NoticeShares(views=len(found), counts=dict(ordered))
