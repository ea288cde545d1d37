"""Keeps the copy of `[standby]` current, and holds this node once another one has taken over from the copy.

The node that takes over writes a mark into the folder of the copy before it starts. This node reads the folder before
each delivery, so that it delivers only while nobody has taken over and it can be sure of that: a folder that cannot be
read, or that is not the one copied into before (a disk that is not mounted), holds deliveries too.
"""

import logging
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass

from glam_deploy.appliance.backup.copying import copy_data
from glam_deploy.appliance.backup.manifest import CopyFolder, write_durably
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder, read_json
from glam_deploy.appliance.process import RECURRING
from glam_deploy.appliance.state.database import MonotonicClock, record_heartbeat
from glam_deploy.errors import UsageError
from glam_deploy.installation import page

log = logging.getLogger(__name__)

COMPONENT = "standby"
"""Name of the copy among the components; its heartbeat is the end of the last copy."""

Hold = Callable[[], str]
"""Why this node may deliver nothing now; "" if it may."""


@dataclass(frozen=True, kw_only=True)
class Fence:
    """Decides whether this node may deliver, by the folder of its copy."""

    data: DataFolder
    copy: CopyFolder

    def taken_over(self) -> str:
        """Who has taken over, as a message; "" if nobody has, as far as the folder can be read."""
        try:
            taken = self.copy.read_taken_over()
        except OSError:
            return ""
        if taken is None:
            return ""
        return (
            f"{taken.host} has taken over at {taken.at} (by {self.copy.taken_over}): this node receives, processes and "
            f"delivers nothing any more. {page('operations.md')} tells how to bring over what only this node has, and "
            "how to make it the standby"
        )

    def hold(self) -> str:
        """Why nothing may be delivered now; "" if it may."""
        try:
            if self.copy.read_taken_over():
                return self.taken_over()
            found, known = self.copy.read_id(), self._known_id()
        except OSError as error:
            return (
                f"{self.copy.root} cannot be read ({error.strerror}), so another node may have taken over: deliveries "
                "wait until it can, or until [standby] is removed from the configuration"
            )
        if known and found != known:
            return (
                f"{self.copy.root} is not the folder that was copied into before: is its disk mounted? To begin a new "
                f"copy there, remove {self.data.standby_id}"
            )
        return ""

    def remember(self) -> None:
        """Record that the folder holds a copy of this data folder."""
        if not self.data.standby_id.exists():
            write_durably(self.data.standby_id, self.copy.read_id())

    def _known_id(self) -> str:
        return str(read_json(self.data.standby_id)) if self.data.standby_id.exists() else ""


def fence_of(config: Config) -> Fence | None:
    """The fence of a configuration; None without `[standby]`."""
    if config.standby.folder is None:
        return None
    return Fence(data=DataFolder(root=config.data), copy=CopyFolder(root=config.standby.folder))


def hold_of(config: Config) -> Hold:
    """Why this node may deliver nothing now, by `[standby]`."""
    fence = fence_of(config)
    return fence.hold if fence else lambda: ""


def replicate(
    config: Config, fence: Fence, connection: sqlite3.Connection, monotonic: MonotonicClock, stop: threading.Event
) -> None:
    """Copy the data folder every `standby.every_s` until `stop` is set; `connection` belongs to this thread."""
    while True:
        reason = _copy(fence)
        state, detail = ("failing", {"reason": reason}) if reason else ("ready", {})
        try:
            if reason:
                log.error("the copy for the standby failed: %s", reason, extra=RECURRING)
            record_heartbeat(connection, monotonic, COMPONENT, state, detail)
        except sqlite3.Error as error:
            log.error("state.db cannot be written (%s)", error, extra=RECURRING)
        if stop.wait(config.standby.every_s):
            return


def _copy(fence: Fence) -> str:
    """Make one copy; why it failed, "" if it did not."""
    if reason := fence.hold():
        return reason
    try:
        copied = copy_data(fence.data, fence.copy, standby=True)
        if count := len(copied.repaired):
            log.warning("%d files of the copy in %s were missing or damaged, and copied again", count, fence.copy.root)
        fence.remember()
    except (UsageError, sqlite3.Error) as error:
        return str(error)
    except OSError as error:
        return f"{fence.copy.root}: {error.strerror}"
    return ""
