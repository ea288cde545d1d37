"""The dispatcher: a thread for each target, so that one that is down or slow holds up no other."""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial

from glam_deploy.appliance.audit import Audit, open_audit
from glam_deploy.appliance.config import Config, Target
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.dispatch.lane import Lane
from glam_deploy.appliance.dispatch.links import link_to
from glam_deploy.appliance.dispatch.loops import LOOPS, leads_back
from glam_deploy.appliance.state import parcels
from glam_deploy.appliance.state.database import open_database
from glam_deploy.appliance.state.events import beat
from glam_deploy.appliance.state.steady import Steady, steady_clock
from glam_deploy.errors import InternalError

log = logging.getLogger(__name__)

LOOK_S = 0.05
"""Between two looks for parcels: a part of the time from the last view to the results."""
BEAT_S = 1.0
STALLED = 2
"""A target that lets us get on with nothing for so many times `dispatch.timeout_s` is told as failing."""
IN_VAIN = 2
"""So is one that broke off so often at the same result set, which may be to blame itself."""
LEAVE_S = 5.0
"""How long the targets' threads have to finish when the process stops; what is cut off is sent again."""


def run(config: Config, stop: threading.Event) -> None:
    """Send parcels until `stop` is set.

    Raises UsageError where the data folder cannot be used, InternalError where a target's thread has ended.
    """
    data = DataFolder(root=config.data)
    data.make()
    audit = open_audit(data)
    with closing(open_database(data.database)) as connection:
        steady = steady_clock(connection)
        loops = [target.name for target in config.targets if leads_back(target, config)]
        lanes = [_lane(target, config, data, audit) for target in config.targets if target.name not in loops]
        _tell_useless(connection, config, loops)
        threads = [threading.Thread(target=_serve, args=(lane, stop), daemon=True) for lane in lanes]
        for thread in threads:
            thread.start()
        _watch(partial(_beat, connection, steady, lanes, loops), threads, stop)


def _lane(target: Target, config: Config, data: DataFolder, audit: Audit) -> Lane:
    """With a connection of its own, which goes with its thread."""
    connection = open_database(data.database, one_thread=False)
    return Lane(
        target=target,
        policy=config.dispatch,
        link=link_to(target, config.dispatch.timeout_s),
        connection=connection,
        steady=steady_clock(connection),
        root=data.root,
        audit=audit,
    )


def _serve(lane: Lane, stop: threading.Event) -> None:
    """A target's thread."""
    with closing(lane.connection):
        while not stop.wait(LOOK_S):
            try:
                while lane.step() and not stop.is_set():
                    pass
            except sqlite3.OperationalError as error:  # a full disk; it goes on when there is space
                log.error("state.db takes nothing (%s)", error)
                stop.wait(BEAT_S)


def _watch(say: Callable[[], None], threads: Sequence[threading.Thread], stop: threading.Event) -> None:
    """Say how it is, once a second, until the end."""
    while not stop.is_set():
        if not all(thread.is_alive() for thread in threads) and not stop.is_set():
            raise InternalError("a target's thread has ended: see the log for the reason")
        try:
            say()
        except sqlite3.OperationalError as error:
            log.error("state.db takes nothing (%s)", error)
        stop.wait(BEAT_S)
    deadline = time.monotonic() + LEAVE_S
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


def _beat(connection: sqlite3.Connection, steady: Steady, lanes: Sequence[Lane], loops: Sequence[str]) -> None:
    beat(connection, steady, "dispatcher", "ready", {})
    for name in loops:
        beat(connection, steady, f"target:{name}", "failing", {"reason": LOOPS})
    for lane in lanes:
        beat(connection, steady, f"target:{lane.target.name}", *_word(lane, steady()))


def _word(lane: Lane, now: float) -> tuple[str, Mapping[str, str | int]]:
    """State and detail of a target: ready; waiting, for it cannot be reached; failing, a person is needed."""
    health = lane.health
    if not health.reason:
        reason = _stalled(lane, now)
        return ("failing", {"reason": reason}) if reason else ("ready", {})
    if health.may_try(now):
        return "failing", {"reason": health.reason}
    return "waiting", {"reason": health.reason, "next_try_s": round(health.not_before - now)}


def _stalled(lane: Lane, now: float) -> str:
    """Why nothing is delivered to a target of which nothing is known yet; "" where it gets on."""
    waited = now - (lane.progress or now)
    if waited > STALLED * lane.policy.timeout_s:
        return f"no progress for {waited:.0f} s while a result set is sent to it"
    worst = max(lane.health.suspects.values(), key=lambda suspect: suspect.times, default=None)
    if worst and worst.times >= IN_VAIN:
        return f"{worst.reason} ({worst.times} times, with the same result set)"
    return ""


def _tell_useless(connection: sqlite3.Connection, config: Config, loops: Sequence[str]) -> None:
    for name in loops:
        log.error("target %s is left out: %s", name, LOOPS)
    for name, count in parcels.strangers(connection, [target.name for target in config.targets]).items():
        log.warning("%d parcels wait for target %s, which the configuration lacks: name it again, or give them up with "
                    "`glam-deploy queue discard --target %s`", count, name, name)  # fmt: skip
