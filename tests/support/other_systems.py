"""Windows and macOS for the code of this repository, on a machine with Linux.

`simulate` makes a process in which modules of glam-deploy see only what the Python documentation promises for that
system: its notes "Availability" of the modules `os`, `signal`, `socket`, `select`, `errno` and of the modules that only
Unix has. Other packages see the machine as it is: what they have for another system is their wheels' concern.
"""

import builtins
import errno
import os
import sys
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

OURS = ("glam_deploy", "glam_export", "glam_bench")

UNIX_MODULES = ("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty")
"""Python Library Reference, "Unix-specific services" and "Availability: Unix"."""

LINUX = {
    "os": """copy_file_range eventfd eventfd_read eventfd_write fdatasync getresgid getresuid getxattr listxattr
        memfd_create pidfd_open pipe2 posix_fadvise posix_fallocate removexattr sched_getaffinity sched_getparam
        sched_getscheduler sched_setaffinity sched_setparam sched_setscheduler setns setresgid setresuid setxattr splice
        unshare MFD_CLOEXEC O_DIRECT O_LARGEFILE O_NOATIME O_PATH O_RSYNC O_TMPFILE RTLD_DEEPBIND""",
    "signal": "SIGPOLL SIGPWR SIGRTMAX SIGRTMIN SIGSTKFLT sigtimedwait sigwaitinfo",
    "select": "epoll",
    "errno": "ECOMM EMEDIUMTYPE ENOMEDIUM EREMOTEIO",
}
"""Names that macOS lacks."""

UNIX = {
    "os": """O_ACCMODE O_CLOEXEC O_DIRECTORY O_DSYNC O_NDELAY O_NOCTTY O_NOFOLLOW O_NONBLOCK O_SYNC WNOHANG chown
        chroot confstr fchdir fchmod fchown fork forkpty fpathconf fstatvfs get_blocking getegid geteuid getgid
        getgrouplist getgroups getloadavg getpgid getpgrp getpriority getsid getuid initgroups killpg lchown lockf
        major makedev minor mkfifo mknod nice openpty pathconf posix_spawn posix_spawnp pread preadv pwrite pwritev
        readv register_at_fork sched_yield sendfile set_blocking setegid seteuid setgid setgroups setpgid setpriority
        setregid setreuid setsid setuid statvfs sync sysconf tcgetpgrp tcsetpgrp uname wait wait3 wait4 waitid
        WIFEXITED WEXITSTATUS writev""",
    "signal": """SIGALRM SIGBUS SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGPROF SIGQUIT SIGSTOP SIGTSTP SIGURG SIGUSR1
        SIGUSR2 SIGWINCH SIGXCPU alarm getitimer pause pthread_kill pthread_sigmask setitimer siginterrupt sigpending
        sigwait""",
    "socket": "AF_UNIX SCM_RIGHTS SOCK_CLOEXEC SOCK_NONBLOCK SO_REUSEPORT socketpair_unix",
    "select": "poll kqueue",
}
"""Names that Windows lacks, besides those of LINUX."""

LACKED = {"darwin": (LINUX,), "win32": (LINUX, UNIX)}


class View(ModuleType):
    """A module without some names, and with others in the place of its own."""

    def __init__(self, module: ModuleType, lacked: set[str], others: Mapping[str, object]) -> None:
        super().__init__(module.__name__)
        self.__dict__.update(_module=module, _lacked=lacked, **others)

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__["_lacked"]:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} on this system", name=name)
        return getattr(self.__dict__["_module"], name)


def simulate(system: str) -> None:
    """Make this process one on "win32" or "darwin". Call it before modules of glam-deploy are imported."""
    views = {name: View(module, _lacked(system, name), _others(system, name)) for name, module in _modules().items()}
    absent = UNIX_MODULES if system == "win32" else ()
    views |= {"msvcrt": _msvcrt()} if system == "win32" else {}

    def seen(name: str, *rest: Any) -> ModuleType:
        if name in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return views[name] if name in views else __import__(name, *rest)

    _give(vars(builtins) | {"__import__": seen})


def _give(ours: dict[str, Any]) -> None:
    """Give the modules of glam-deploy that are imported from now on other built-in functions, of which one imports."""
    plain = SourceFileLoader.exec_module

    def exec_module(self: SourceFileLoader, module: ModuleType) -> None:
        if module.__name__.split(".")[0] in OURS:
            module.__dict__["__builtins__"] = ours
        plain(self, module)

    SourceFileLoader.exec_module = exec_module  # type: ignore[method-assign]


def _modules() -> dict[str, ModuleType]:
    return {name: __import__(name) for name in ("os", "sys", "signal", "socket", "select", "errno")}


def _lacked(system: str, module: str) -> set[str]:
    return {name for names in LACKED[system] for name in names.get(module, "").split()}


def _others(system: str, module: str) -> dict[str, object]:
    """What has another value there, or another behaviour."""
    if module == "sys":
        return {"platform": system}
    windows = {"O_BINARY": _BINARY, "O_NOINHERIT": _NOINHERIT, "open": _open_on_windows, "fsync": _fsync_on_windows}
    return windows if (system, module) == ("win32", "os") else {}


_BINARY, _NOINHERIT = 1 << 28, 1 << 29
"""In the place of Microsoft's values: bits that no flag of Linux has."""


def _open_on_windows(path: Any, flags: int, mode: int = 0o777) -> int:
    """As `_open` of Microsoft's C library: no folder can be opened, and text mode, the default, changes bytes."""
    if Path(path).is_dir():
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    if not flags & _BINARY:
        raise AssertionError(f"{path}: opened in text mode, in which line ends are changed")
    return os.open(path, flags & ~(_BINARY | _NOINHERIT), mode)


def _fsync_on_windows(descriptor: int) -> None:
    """As `_commit`, which flushes the buffers of a file that may be written."""
    import fcntl

    if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    os.fsync(descriptor)


def _msvcrt() -> ModuleType:
    """`locking` of Microsoft's C library: of bytes from the current position on, for this open file alone."""
    import fcntl

    def locking(descriptor: int, kind: int, count: int) -> None:
        operation = fcntl.LOCK_UN if kind == module.LK_UNLCK else fcntl.LOCK_EX | fcntl.LOCK_NB
        try:
            fcntl.flock(descriptor, operation)
        except BlockingIOError as error:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES)) from error

    module: Any = ModuleType("msvcrt")
    module.locking, module.LK_UNLCK, module.LK_LOCK, module.LK_NBLCK = locking, 0, 1, 2
    return module


def started_in(system: str) -> str:
    """Python that makes its process one on that system."""
    return f"from support import other_systems; other_systems.simulate({system!r})\n"


assert sys.platform == "linux"
