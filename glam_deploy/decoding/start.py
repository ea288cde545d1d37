"""Start of the processes that read images, and their limits."""

import resource
import signal
import socket
import sys
from pathlib import Path

from glam_deploy.death_signal import die_with_parent
from glam_deploy.decoding import landlock, sandbox

MEMORY_LIMIT = 4 << 30
"""Bytes of data (RLIMIT_DATA) that the process may have; the largest image that is read (10,000 x 10,000) takes 1.6 GB.
"""


def main() -> None:
    """Start a process for each image until the caller closes the channel.

    Arguments: the channel's descriptor, the caller's process id, and what is added to the caller's niceness.
    """
    limit(int(sys.argv[2]))
    from glam_deploy.decoding.child import serve

    serve(socket.socket(fileno=int(sys.argv[1])), niceness=int(sys.argv[3]))


def confine(parent: int, image: Path | None = None) -> str:
    """Let this process end with its parent, and limit it for good.

    `image`: the file that it may read; None: it has a descriptor of it. Returns "", or which limits besides those of
    memory it has not got, and why (`landlock.restrict`, `sandbox.restrict`).
    """
    limit(parent)
    absent = {"limit of files": landlock.restrict(image), "filter of system calls": sandbox.restrict()}
    return " and ".join(f"no {what} ({why})" for what, why in absent.items() if why)


def limit(parent: int) -> None:
    """Let this process end with its parent, and limit its memory and its files."""
    die_with_parent(parent)()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for each in (resource.RLIMIT_DATA, resource.RLIMIT_FSIZE):  # shared memory is a file
        resource.setrlimit(each, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold patient data
