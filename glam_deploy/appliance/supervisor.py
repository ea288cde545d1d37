"""The supervisor: runs one process per role, restarts those that end, and kills those that hang (watchdog).

A process hangs when it writes no heartbeat to `state.db`.
"""

import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from glam_deploy.appliance.audit import open_audit
from glam_deploy.appliance.backup.replication import Fence, fence_of
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder, sole_process
from glam_deploy.appliance.process import configure_logging, keep_to_this_user
from glam_deploy.appliance.state import overview
from glam_deploy.appliance.state.database import last_heartbeats, open_database, reason_of
from glam_deploy.appliance.state.soundness import require_undamaged
from glam_deploy.death_signal import die_with_parent
from glam_deploy.errors import BackendUnavailable, GlamError, UsageError, fault
from glam_deploy.processes import python_command

log = logging.getLogger(__name__)

CHECK_S = 5.0
"""Seconds between two checks."""
MISSED_CHECKS = 60
"""Checks without a heartbeat after which a process counts as hung: 300 s, 20 times
`database.HEARTBEAT_TIMEOUT_S`, longer than any step of a role that writes no heartbeat."""


ROLES: Mapping[str, str] = MappingProxyType(
    {
        "receiver": "glam_deploy.appliance.receiver",
        "web": "glam_deploy.appliance.web.server",
        "fetcher": "glam_deploy.appliance.fetch.role",
        "keeper": "glam_deploy.appliance.keeper",
        "worker": "glam_deploy.appliance.work.worker",
        "dispatcher": "glam_deploy.appliance.dispatcher",
    }
)
"""Role -> the module whose `run(config, stop)` implements it. Roles are stopped in this order: receiving ones first."""


def configured_roles(config: Config) -> tuple[str, ...]:
    """The roles that this configuration needs: the fetcher only with the table [fetch]."""
    return tuple(role for role in ROLES if role != "fetcher" or config.fetch)


FIRST_RETRY_S, LONGEST_RETRY_S = 0.5, 60.0
STABLE_S = 60.0
"""A process that ran for this long is restarted after FIRST_RETRY_S when it ends."""
STOP_S = 60.0
"""Time that the roles have to finish or give back their work, before they are killed."""
POLL_S = 0.1
FATAL_EXIT_CODES = (UsageError.exit_code, BackendUnavailable.exit_code)
"""Exit codes after which a restart cannot help: the configuration is wrong, or a package is missing."""


class WatchedProcess(Protocol):
    """What the watchdog needs of a role's process (`supervisor.RoleProcess`)."""

    role: str
    starts: int

    @property
    def is_running(self) -> bool: ...

    def kill(self) -> None: ...


class HangDetector:
    """Counts, for each process, the checks without a heartbeat."""

    def __init__(self, missed_checks: int = MISSED_CHECKS) -> None:
        self._missed_checks = missed_checks
        self._heartbeats: Mapping[str, float] = {}
        self._starts: Mapping[str, int] = {}
        self._missed: dict[str, int] = {}

    def check(self, heartbeats: Mapping[str, float], starts: Mapping[str, int]) -> list[str]:
        """Make one check; the names of the processes that hang now.

        `heartbeats`: name -> time of its last heartbeat. `starts`: name -> how often it was started. The count begins
        anew for a process that was restarted, and for one that was just reported as hung, since it may take a while to
        end.
        """
        active = {name for name in starts if name in heartbeats and heartbeats[name] != self._heartbeats.get(name)}
        restarted = {name for name in starts if starts[name] != self._starts.get(name)}
        for name in starts:
            if name in active | restarted:
                self._missed[name] = 0
            elif active:
                self._missed[name] += 1
        self._heartbeats, self._starts = dict(heartbeats), dict(starts)
        hung = [name for name in starts if self._missed[name] >= self._missed_checks]
        self._missed |= dict.fromkeys(hung, 0)
        return hung


class FenceWatch:
    """Asks every CHECK_S whether another node has taken over, in a thread: a network disk may not answer for long."""

    def __init__(self, fence: Fence) -> None:
        """Returns after the first answer, or after CHECK_S without one."""
        self.reason = ""
        """Who has taken over, as a message; "" if nobody has, as far as is known."""
        self._fence, self._asked = fence, threading.Event()
        threading.Thread(target=self._ask, daemon=True, name="fence").start()
        self._asked.wait(CHECK_S)

    def _ask(self) -> None:
        while not self.reason:
            self.reason = self._fence.taken_over()
            self._asked.set()
            time.sleep(CHECK_S)


class Watchdog:
    """Kills hung role processes, which the supervisor then restarts. Reads `state.db` without waiting for writers."""

    def __init__(self, data: DataFolder, fence: Fence | None = None) -> None:
        """`data`: a data folder that has been made. `fence`: of `[standby]`."""
        self._data, self._audit = data, open_audit(data)
        self._fence = FenceWatch(fence) if fence else None
        self._detector = HangDetector(MISSED_CHECKS)
        self._next = 0.0

    def __call__(self, now: float, processes: Sequence[WatchedProcess]) -> None:
        """Make a check if CHECK_S have passed since the last one; `now`: time.monotonic().

        Raises UsageError if another node has taken over.
        """
        if now < self._next:
            return
        self._next = now + CHECK_S
        self.check_fence()
        try:
            with overview.open_read_only(self._data.database) as connection:
                heartbeats = last_heartbeats(connection)
        except (*overview.READ_ERRORS, UsageError):
            return
        hung = self._detector.check(heartbeats, {each.role: each.starts for each in processes if each.is_running})
        for process in processes:
            if process.role in hung:
                silent_s = MISSED_CHECKS * CHECK_S
                log.error("%s has written no heartbeat for %g s, while others did: killing it", process.role, silent_s)
                self._audit.write("role_killed", role=process.role, silent_s=silent_s)
                process.kill()

    def check_fence(self) -> None:
        """Raises UsageError if another node has taken over."""
        if self._fence and self._fence.reason:
            self._audit.write("taken_over")
            raise UsageError(self._fence.reason)


def run_role(config: Config, role: str, stop: threading.Event) -> None:
    """Run one role until `stop` is set.

    Raises UsageError if the role cannot work with this configuration, or if another process has it already. An
    exception that is not a GlamError is logged without its text and becomes SystemExit(1).
    """
    configure_logging(role)
    keep_to_this_user()
    data = DataFolder(root=config.data)
    data.make()
    try:
        with sole_process(data, role):
            import_module(ROLES[role]).run(config, stop)
    except GlamError:
        raise
    except Exception as error:  # a traceback would show the error's text, which may hold a patient's name
        reason = f" ({reason_of(error)})" if isinstance(error, overview.READ_ERRORS) else ""
        log.error("ended with %s%s", fault(error), reason)
        raise SystemExit(1) from None


def stop_on_signals() -> threading.Event:
    """An event that is set at Ctrl-C or SIGTERM; the second such signal kills the process.

    The interpreter writes signal numbers into a pipe, which a thread reads. A signal handler would run in the main
    thread, where the event's lock may be held; a signal mask does not work because libraries start threads of their
    own.
    """
    stop, handled = threading.Event(), (signal.SIGINT, signal.SIGTERM)
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for signal_number in handled:
        if signal.getsignal(signal_number) != signal.SIG_IGN:
            signal.signal(signal_number, lambda signal_number, frame: None)

    def listen() -> None:
        received = (byte for byte in iter(lambda: os.read(read, 1)[0], None) if byte in handled)
        next(received)
        stop.set()
        next(received)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=listen, daemon=True, name="signals").start()
    return stop


class RoleProcess:
    """The process of one role, and when to start the next one."""

    def __init__(self, role: str, start: Callable[[], "subprocess.Popen[bytes]"]) -> None:
        self.role = role
        self.starts = 0
        self._start = start
        self._process: subprocess.Popen[bytes] | None = None
        self._since = 0.0
        self._next = 0.0
        self._wait = FIRST_RETRY_S

    @property
    def is_running(self) -> bool:
        """Whether there is a process, as of the last `poll`."""
        return self._process is not None

    def poll(self, now: float) -> int | None:
        """Start the process if it is due; its exit code if it has just ended, else None. `now`: time.monotonic()."""
        if self._process is None:
            if now >= self._next:
                self._start_process(now)
            return None
        code = self._process.poll()
        if code is not None:
            self._process = None
            self._wait = FIRST_RETRY_S if now - self._since >= STABLE_S else self._wait
            self._schedule_restart(now)
        return code

    def _start_process(self, now: float) -> None:
        try:
            self._process, self._since, self.starts = self._start(), now, self.starts + 1
        except OSError as error:  # no memory, or too many processes
            log.error("%s cannot be started (%s)", self.role, error.strerror)
            self._schedule_restart(now)

    def _schedule_restart(self, now: float) -> None:
        self._next, self._wait = now + self._wait, min(2 * self._wait, LONGEST_RETRY_S)

    def terminate(self) -> None:
        if self._process:
            self._process.terminate()

    def kill(self) -> None:
        if self._process:
            self._process.kill()

    def end(self, deadline: float) -> None:
        """Wait until `deadline` (time.monotonic()) for the process to end, then kill it."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.error(
                "%s did not stop within %g s: killing it; its work is resumed at the next start", self.role, STOP_S
            )
            self._process.kill()
            self._process.wait()


def supervise_all(config: Config, path: Path, stop: threading.Event) -> int:
    """Make the data folder and run all roles of the configuration in the file `path` until `stop`; the exit code.

    Raises UsageError if the data folder or `state.db` cannot be used, if the latter is damaged, or if another node has
    taken over. See `supervise`.
    """
    configure_logging("serve")
    if os.geteuid() == 0:
        log.warning(
            "running as root, which serve does not need: run it under an account of its own (docs/appliance.md)"
        )
    keep_to_this_user()
    data = DataFolder(root=config.data)
    data.make()
    with sole_process(data, "supervisor"):
        require_undamaged(data.database)
        open_database(data.database).close()
        watchdog = Watchdog(data, fence_of(config))
        watchdog.check_fence()
        command = ["-m", "glam_deploy", "serve", "--config", str(path)]
        return supervise(command, stop, roles=configured_roles(config), watch=watchdog)


def supervise(
    command: Sequence[str],
    stop: threading.Event,
    *,
    roles: Sequence[str] = tuple(ROLES),
    watch: Callable[[float, Sequence[RoleProcess]], None] = lambda now, processes: None,
) -> int:
    """Keep a process `[*command, "--role", role]` running for each role until `stop` is set; the exit code.

    The exit code is 0 after `stop`, or that of a role whose first process ends with one of FATAL_EXIT_CODES, after the
    other roles were stopped. Call it in the main thread: the processes end with the thread that started them.
    """
    processes = [RoleProcess(role, lambda role=role: _spawn([*command, "--role", role])) for role in roles]  # type: ignore[misc]
    started = False
    try:
        while not stop.wait(POLL_S):
            for process in processes:
                code = process.poll(time.monotonic())
                if code is not None and _log_exit(process, code):
                    return code
            watch(time.monotonic(), processes)
            if not started:
                started = True
                notify_systemd("READY=1")
            notify_systemd("WATCHDOG=1")
        return 0
    finally:
        notify_systemd("STOPPING=1")
        _stop_all(processes)


def _log_exit(process: RoleProcess, code: int) -> bool:
    """Log the end of a role's process; True if its exit code is fatal at the first start."""
    is_fatal = process.starts == 1 and code in FATAL_EXIT_CODES
    how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    then = "cannot work with this configuration: stopping all" if is_fatal else "is restarted"
    log.error("%s ended %s and %s", process.role, how, then)
    return is_fatal


def _stop_all(processes: Sequence[RoleProcess]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + STOP_S
    for process in processes:
        process.end(deadline)


def _spawn(command: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start a child process that the kernel kills when this thread ends; Ctrl-C of a terminal does not reach it."""
    die = die_with_parent(os.getpid())
    return subprocess.Popen(python_command(*command), process_group=0, preexec_fn=die)  # noqa: PLW1509


def notify_systemd(message: str, environment: Mapping[str, str] = os.environ) -> None:
    """Send READY=1, WATCHDOG=1 or STOPPING=1 to systemd (sd_notify(3)); does nothing without NOTIFY_SOCKET."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # a service manager that has gone is no reason to end
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        # "@" stands for the zero byte of an abstract socket address
        out.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)
