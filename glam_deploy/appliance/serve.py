"""The supervisor: a process for each role, restarted when it dies or hangs, stopped in order, never left behind."""

import logging
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import MappingProxyType

from glam_deploy.appliance import silence
from glam_deploy.appliance.audit import open_audit
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.log import start_log
from glam_deploy.appliance.notify import notify
from glam_deploy.appliance.parent import dying_with
from glam_deploy.appliance.state import overview
from glam_deploy.appliance.state.database import open_database
from glam_deploy.appliance.state.events import beats
from glam_deploy.errors import BackendUnavailable, GlamError, UsageError, fault
from glam_deploy.processes import python_command

log = logging.getLogger(__name__)

ROLES: Mapping[str, str] = MappingProxyType(
    {
        "receiver": "glam_deploy.appliance.receive.receiver",
        "web": "glam_deploy.appliance.web.server",
        "keeper": "glam_deploy.appliance.keep.keeper",
        "worker": "glam_deploy.appliance.work.worker",
        "dispatcher": "glam_deploy.appliance.dispatch.dispatcher",
    }
)
"""Role -> the module whose `run(config, stop)` is that role; stopped in this order, what lets work in first."""

FIRST_RETRY_S, LONGEST_RETRY_S = 0.5, 60.0
SETTLED_S = 60.0
"""A process that lived for so long starts anew at FIRST_RETRY_S when it dies."""
STOP_S = 60.0
"""How long the roles have to finish or give back what they are at, before they are killed."""
TICK_S = 0.1
HOPELESS = (UsageError.exit_code, BackendUnavailable.exit_code)
"""Exit codes of a role that no restart can help: the configuration is wrong, or a package is missing."""

_PRIVATE = 0o077
"""umask: whatever comes to lie in the data folder is for this user alone."""


def run_role(config: Config, role: str, stop: threading.Event) -> None:
    """Be one role until `stop`. What goes wrong and is no GlamError is told without its text, and raised as SystemExit.

    Raises UsageError where the role cannot work with this configuration.
    """
    start_log(role)
    os.umask(_PRIVATE)
    try:
        import_module(ROLES[role]).run(config, stop)
    except GlamError:
        raise
    except Exception as error:  # a trace would quote what the error says, which may be a patient's name
        log.error("ended by %s", fault(error))
        raise SystemExit(1) from None


def stop_on_signals() -> threading.Event:
    """Set at Ctrl-C and SIGTERM; the second of them ends the process at once.

    The interpreter writes what it hears into a pipe, and a thread reads it: a handler runs in the main thread, where it
    might meet the event's own lock taken. A mask would not do: libraries have threads of their own, which hear too.
    """
    stop, heard = threading.Event(), (signal.SIGINT, signal.SIGTERM)
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in heard:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, frame: None)

    def listen() -> None:
        numbers = (byte for byte in iter(lambda: os.read(read, 1)[0], None) if byte in heard)
        next(numbers)
        stop.set()
        next(numbers)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=listen, daemon=True, name="signals").start()
    return stop


class Child:
    """One role's process, and when to start the next one."""

    def __init__(self, role: str, start: Callable[[], "subprocess.Popen[bytes]"]) -> None:
        self.role = role
        self.starts = 0
        self._start = start
        self._process: subprocess.Popen[bytes] | None = None
        self._since = 0.0
        self._next = 0.0
        self._wait = FIRST_RETRY_S

    @property
    def runs(self) -> bool:
        """Whether there is a process, as far as was noticed."""
        return self._process is not None

    def tend(self, now: float) -> int | None:
        """Start it where it is due; its exit code where it has just ended."""
        if self._process is None:
            if now >= self._next:
                self._begin(now)
            return None
        code = self._process.poll()
        if code is not None:
            self._process = None
            self._wait = FIRST_RETRY_S if now - self._since >= SETTLED_S else self._wait
            self._wait_on(now)
        return code

    def _begin(self, now: float) -> None:
        try:
            self._process, self._since, self.starts = self._start(), now, self.starts + 1
        except OSError as error:  # no memory, or too many processes
            log.error("%s cannot be started (%s)", self.role, error.strerror)
            self._wait_on(now)

    def _wait_on(self, now: float) -> None:
        self._next, self._wait = now + self._wait, min(2 * self._wait, LONGEST_RETRY_S)

    def terminate(self) -> None:
        if self._process:
            self._process.terminate()

    def kill(self) -> None:
        if self._process:
            self._process.kill()

    def end(self, deadline: float) -> None:
        """Wait for its end until `deadline` (monotonic), then kill it."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.error("%s did not stop in %g s and is killed; what it was at is taken up again", self.role, STOP_S)
            self._process.kill()
            self._process.wait()


class Watch:
    """Ends roles that hang, so that they are started again. Reads `state.db`, and never waits for who writes there."""

    def __init__(self, data: DataFolder) -> None:
        """`data` has been made."""
        self._data, self._audit = data, open_audit(data)
        self._silence = silence.Silence(silence.LOOKS)
        self._next = 0.0

    def __call__(self, now: float, children: Sequence[Child]) -> None:
        """Look, if it is time (`now` is monotonic)."""
        if now < self._next:
            return
        self._next = now + silence.LOOK_S
        try:
            with overview.reading(self._data.database) as connection:
                said = beats(connection)
        except (*overview.UNREADABLE, UsageError):
            return
        hung = self._silence.look(said, {child.role: child.starts for child in children if child.runs})
        for child in children:
            if child.role in hung:
                self._end(child)

    def _end(self, child: Child) -> None:
        silent_s = silence.LOOKS * silence.LOOK_S
        log.error("%s has said nothing for %g s, while others did, and is killed", child.role, silent_s)
        self._audit.write("role_killed", role=child.role, silent_s=silent_s)
        child.kill()


def supervise_all(config: Config, path: Path, stop: threading.Event) -> int:
    """Make the data folder and run all roles of the configuration, which came from `path`, until `stop`; the exit code.

    Raises UsageError where the data folder or its state cannot be used. For the rest see `supervise`.
    """
    start_log("serve")
    if os.geteuid() == 0:
        log.warning("this is root, which serve does not need: run it under an account of its own (docs/appliance.md)")
    os.umask(_PRIVATE)
    data = DataFolder(root=config.data)
    data.make()
    open_database(data.database).close()
    return supervise(["-m", "glam_deploy", "serve", "--config", str(path)], stop, watch=Watch(data))


def supervise(
    command: Sequence[str],
    stop: threading.Event,
    *,
    roles: Sequence[str] = tuple(ROLES),
    watch: Callable[[float, Sequence[Child]], None] = lambda now, children: None,
) -> int:
    """Keep a process `[*command, "--role", role]` for each role until `stop`; the exit code.

    0 when told to stop; that of a role whose very first process ends in HOPELESS, after the others were stopped. To be
    called in the main thread: the processes die with the thread that started them, whatever ends it.
    """
    children = [Child(role, lambda role=role: _spawn([*command, "--role", role])) for role in roles]  # type: ignore[misc]
    started = False
    try:
        while not stop.wait(TICK_S):
            for child in children:
                code = child.tend(time.monotonic())
                if code is not None and _told(child, code):
                    return code
            watch(time.monotonic(), children)
            if not started:
                started = True
                notify("READY=1")
            notify("WATCHDOG=1")
        return 0
    finally:
        notify("STOPPING=1")
        _stop_all(children)


def _told(child: Child, code: int) -> bool:
    """Log a role's end; whether there is no hope for it."""
    hopeless = child.starts == 1 and code in HOPELESS
    how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    then = "cannot work as it is configured here, so all stop" if hopeless else "is started again"
    log.error("%s ended %s and %s", child.role, how, then)
    return hopeless


def _stop_all(children: Sequence[Child]) -> None:
    for child in children:
        child.terminate()
    deadline = time.monotonic() + STOP_S
    for child in children:
        child.end(deadline)


def _spawn(command: Sequence[str]) -> "subprocess.Popen[bytes]":
    """A child that the kernel kills when this thread dies, however it dies; a terminal's Ctrl-C does not reach it."""
    die = dying_with(os.getpid())
    return subprocess.Popen(python_command(*command), process_group=0, preexec_fn=die)  # noqa: PLW1509
