"""SMTP sessions with limits, which smtplib does not have: a reply may have any number of lines, and any time."""

import smtplib
import socket
import ssl
from io import BufferedReader
from typing import cast

from glam_deploy.dicom.net.budget import BoundedInput, Budget

MAX_REPLIES = 1 << 18
"""Largest number of bytes of all replies of a session; a usual session has 1,000, and 100 for each recipient."""


class SessionLimit(smtplib.SMTPException):
    """The server exceeded a limit of the session, which the text names."""


class BoundedSmtp(smtplib.SMTP):
    """SMTP session that ends after two times `timeout_s`, or `MAX_REPLIES` bytes of replies, with SessionLimit."""

    def __init__(
        self, host: str, port: int, name: str, *, timeout_s: float, context: ssl.SSLContext | None = None
    ) -> None:
        """Connect. `timeout_s`: limit to connect, and for the next byte. `context`: for TLS from the first byte.

        Raises as smtplib.SMTP does.
        """
        self._context, self._budget = context, Budget()
        self._budget.start(2 * timeout_s, MAX_REPLIES)
        super().__init__(host, port, name, timeout=timeout_s)

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        """The connection, made by `connect` of smtplib."""
        plain = cast(socket.socket, super()._get_socket(host, port, timeout))  # type: ignore[misc]
        return self._context.wrap_socket(plain, server_hostname=host) if self._context else plain

    def getreply(self) -> tuple[int, bytes]:
        if self.file is None and self.sock:
            raw = self.sock.makefile("rb", buffering=0)
            self.file = BufferedReader(BoundedInput(raw, self.sock, self._budget))
        try:
            return super().getreply()
        except smtplib.SMTPServerDisconnected:
            if self._budget.exceeded:
                raise SessionLimit(self._budget.exceeded) from None
            raise
