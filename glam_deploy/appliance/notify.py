"""Telling systemd how the service is (sd_notify(3)): a datagram to the socket that NOTIFY_SOCKET names."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress


def notify(word: str, environment: Mapping[str, str] = os.environ) -> None:
    """Say READY=1, WATCHDOG=1 or STOPPING=1; nothing where nobody listens."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # a manager that has gone hears nothing, which is no reason to end
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
        # "@" stands for the zero byte of an abstract address
        out.sendto(word.encode(), "\0" + address[1:] if address.startswith("@") else address)
