"""`python -m glam_deploy.archive.cleanup FOLDER`: ends Ray's processes after the process that started them has ended.

A process of its own, because that process may be killed: some of Ray's then go on for a minute. Standard input is a
pipe whose other end only the starter has; its end is the signal to begin. Ray's processes are those that have a file in
FOLDER open, where each of them writes its log.
"""

import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

GRACE_S = 2.0
"""Time for Ray's processes to end by themselves."""
LONGEST_S = 30.0


def main(folder: Path) -> None:
    """Wait for the end of standard input, then kill all others with open files in `folder`, and remove it."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    starter = os.getppid()
    sys.stdin.buffer.read()
    began, quiet = time.monotonic(), 0
    while quiet < 2 and time.monotonic() - began < LONGEST_S:
        found = [process for process in users_of(folder) if process != starter]
        quiet = 0 if found else quiet + 1
        if time.monotonic() - began > GRACE_S:
            for process in found:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
        time.sleep(0.1)
    shutil.rmtree(folder, ignore_errors=True)


def users_of(folder: Path) -> list[int]:
    """Ids of this user's other processes that have a file in `folder` open, by proc(5), "/proc/pid/fd"."""
    inside = f"{folder.resolve()}/"
    return [
        int(process.name)
        for process in Path("/proc").iterdir()
        if process.name.isdecimal()
        and int(process.name) != os.getpid()
        and any(target.startswith(inside) for target in _open_files(process))
    ]


def _open_files(process: Path) -> list[str]:
    found = []
    with suppress(OSError):  # of another user, or it has ended
        for link in (process / "fd").iterdir():
            with suppress(OSError):
                found.append(str(link.readlink()))
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
