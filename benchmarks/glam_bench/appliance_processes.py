"""Processes for measurements of the appliance: started, waited for, ended."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeVar

from glam_deploy.dicom.net.peer import Peer
from glam_deploy.errors import PeerError, UsageError
from glam_deploy.processes import python_command

T = TypeVar("T")

PATIENCE_S = 600.0


@contextmanager
def process(command: Sequence[object], folder: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in `folder`, into which its log is written, for as long as the block lasts."""
    with (
        (folder / f"{Path(str(command[0])).name}.log").open("wb") as log,
        subprocess.Popen([str(word) for word in command], cwd=folder, stdout=log, stderr=log) as started,
    ):
        try:
            yield started
        finally:
            started.terminate()


def serve(folder: Path, *options: str) -> AbstractContextManager["subprocess.Popen[bytes]"]:
    """`glam-deploy serve` with the `glam.toml` in `folder` and further options."""
    return process(python_command("-m", "glam_deploy", "serve", "--config", "glam.toml", *options), folder)


def wait_for(condition: Callable[[], T], what: str, *, every_s: float = 0.01) -> T:
    """The first true value of `condition`, asked for `every_s`. Raises UsageError that names `what`."""
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise UsageError(f"waited {PATIENCE_S:.0f} s for {what} in vain")
        time.sleep(every_s)
    return value


def echoes(peer: Peer) -> bool:
    """Whether a peer answers C-ECHO."""
    from glam_deploy.dicom.net.sender import echo

    try:
        echo(peer)
    except PeerError:
        return False
    return True


def free_port() -> int:
    """A TCP port on which no process listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
