"""What every source of images offers: its entries, one after another, and the bytes of one entry.

A source is frozen and can be pickled, because readers in other processes and on other machines use it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Protocol

from glam_deploy.errors import GlamError


class SourceUnavailable(GlamError):
    """A source cannot be reached at the moment: no entry is at fault, and a later run continues."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One file, member of a container or object of a server; not yet read."""

    location: str
    """Path or URL, unique in its source; a member of a container is `CONTAINER!MEMBER`."""
    name: str
    """File name for messages, and for the view in file names."""
    version: str = ""
    """Size and modification time, ETag or the like: an entry with the location and version of an earlier run has the
    content that it had then. "" if the source states nothing of this kind: then the content is read again."""
    size: int | None = None
    """Bytes; None if the source does not state it."""

    @property
    def path(self) -> PurePath:
        """File name with the folders above it, in which the view may be."""
        return PurePath(self.location.replace("!", "/")).parent / self.name


OnPassedOver = Callable[[str], None]


def ignored(location: str) -> None:
    """What is done by default with the location of a file that is no image."""


class Source(Protocol):
    """A source of images."""

    def entries(self, on_passed_over: OnPassedOver = ignored) -> Iterator[Entry]:
        """All entries, in the same order at every call, without holding all of them in memory.

        `on_passed_over` is called with the location of each other file, but not of hidden ones and DICOMDIR. Raises
        UsageError for a source that does not exist, SourceUnavailable for one that cannot be reached.
        """
        ...

    def read(self, entry: Entry) -> bytes:
        """The content of an entry, at most `reading.MAX_BYTES`.

        Raises InputError for an entry that is damaged, too large or gone, SourceUnavailable if the source cannot be
        reached.
        """
        ...
