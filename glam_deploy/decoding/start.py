"""Start of the process that reads images: its limits, before it imports what they are for."""

import resource
import signal
import socket
import sys

from glam_deploy.death_signal import die_with_parent
from glam_deploy.decoding import sandbox

MEMORY_LIMIT = 4 << 30
"""Bytes of data (RLIMIT_DATA) that the process may have; the largest image that is read (10,000 x 10,000) takes 1.6 GB.
"""


def main() -> None:
    """Read images until the caller closes the channel.

    Arguments: the channel's descriptor, the caller's process id, and what is added to the caller's niceness.
    """
    missing = confine(int(sys.argv[2]))
    from glam_deploy.decoding.child import serve

    serve(socket.socket(fileno=int(sys.argv[1])), missing, niceness=int(sys.argv[3]))


def confine(parent: int) -> str:
    """Let this process end with its parent, and limit it for good.

    Returns "", or why it has limits of memory only, and no filter of system calls (`sandbox.restrict`).
    """
    die_with_parent(parent)()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for limit in (resource.RLIMIT_DATA, resource.RLIMIT_FSIZE):  # shared memory is a file
        resource.setrlimit(limit, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold patient data
    return sandbox.restrict()
