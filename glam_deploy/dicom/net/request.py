"""First PDU of a connection, an A-ASSOCIATE-RQ (PS3.8 section 9.3.2), checked before an association is created."""

import socket
import time

from pynetdicom.pdu import A_ASSOCIATE_RQ

MAX_REQUEST = 1 << 18
"""Largest A-ASSOCIATE-RQ in bytes; 128 presentation contexts with 60 transfer syntaxes take 250,000."""
MAX_ITEMS = 8192
"""Largest number of items and sub-items in a request."""

_REQUEST, _HEAD, _FIXED = 0x01, 6, 68
_CONTEXT, _USER_INFORMATION = 0x20, 0x50
_MOST_CONTEXTS = 128
"""Presentation context IDs are the odd numbers up to 255 (PS3.8 section 9.3.2.2)."""
_UNRECOGNIZED, _UNEXPECTED = 1, 2
INVALID_PDU_PARAMETER = 6
"""Reason/Diag. of an A-ABORT (PS3.8 section 9.3.8)."""


class NoRequestError(Exception):
    """No valid A-ASSOCIATE-RQ was received."""

    def __init__(self, reason: str, abort: int | None = None) -> None:
        """`abort`: Reason/Diag. of the A-ABORT to send (PS3.8 section 9.3.8), None to send nothing."""
        super().__init__(reason)
        self.abort = abort


def abort_pdu(reason: int) -> bytes:
    """A-ABORT by the service provider (PS3.8 section 9.3.8)."""
    return bytes([7, 0, 0, 0, 0, 4, 0, 0, 2, reason])


def read_request(connection: socket.socket, deadline: float, *, longest: int) -> bytes:
    """Read the complete PDU before `deadline` (monotonic clock). Raises NoRequestError.

    `longest`: largest accepted PDU of any type, in bytes.
    """
    head = _receive(connection, _HEAD, deadline)
    kind, length = head[0], int.from_bytes(head[2:], "big")
    if kind != _REQUEST:
        raise NoRequestError(*_other_protocol(kind))
    if length > min(longest, MAX_REQUEST):
        raise NoRequestError(
            f"a PDU of {length} bytes, expected up to {longest}"
            if length > longest
            else f"an association request of {length} bytes, expected up to {MAX_REQUEST}",
            INVALID_PDU_PARAMETER,
        )
    pdu = head + _receive(connection, length, deadline)
    _check(pdu)
    return pdu


def _other_protocol(kind: int) -> tuple[str, int]:
    """Reason and A-ABORT reason for a connection whose first byte is not that of an A-ASSOCIATE-RQ."""
    if kind == 0x16:
        return "the peer uses TLS, but this is the DICOM port without TLS", _UNRECOGNIZED
    if 0x02 <= kind <= 0x07:
        return "the first PDU is not an association request", _UNEXPECTED
    return f"the peer does not use DICOM: its first byte is 0x{kind:02X}, expected 0x01", _UNRECOGNIZED


def _receive(connection: socket.socket, count: int, deadline: float) -> bytes:
    buffer = bytearray(count)
    view, filled = memoryview(buffer), 0
    while filled < count:
        left = deadline - time.monotonic()
        if left <= 0:
            raise NoRequestError("no complete association request was received in time", _UNEXPECTED)
        connection.settimeout(left)
        try:
            received = connection.recv_into(view[filled:])
        except TimeoutError:
            continue
        except OSError as error:
            raise NoRequestError(f"the connection was lost ({type(error).__name__})") from None
        if not received:
            raise NoRequestError("the peer closed the connection without an association request")
        filled += received
    return bytes(buffer)


def _check(pdu: bytes) -> None:
    """Raise NoRequestError for a request that pynetdicom cannot decode, or only with excessive memory or time."""
    try:
        kinds = _items(pdu, _HEAD + _FIXED)
    except ValueError as error:
        raise NoRequestError(f"an association request with {error}", INVALID_PDU_PARAMETER) from None
    if kinds.count(_CONTEXT) > _MOST_CONTEXTS or len(kinds) > MAX_ITEMS:
        raise NoRequestError(
            f"an association request with {len(kinds)} items and {kinds.count(_CONTEXT)} presentation contexts, "
            f"expected up to {MAX_ITEMS} and {_MOST_CONTEXTS}",
            INVALID_PDU_PARAMETER,
        )
    try:
        request = A_ASSOCIATE_RQ()
        request.decode(pdu)
        for context in request.to_primitive().presentation_context_definition_list:
            assert context.abstract_syntax and context.transfer_syntax
    except Exception as error:  # of any type; its message is not used, because it quotes the request
        reason = f"an association request that cannot be decoded ({type(error).__name__})"
        raise NoRequestError(reason, INVALID_PDU_PARAMETER) from None


def _items(pdu: bytes, start: int) -> list[int]:
    """Types of all items and sub-items (PS3.8 section 9.3.2), read without creating objects.

    Raises ValueError if their lengths are wrong.
    """
    kinds: list[int] = []
    spans = [(start, len(pdu))]
    while spans:
        at, end = spans.pop()
        while at < end:
            if at + 4 > end or (after := at + 4 + int.from_bytes(pdu[at + 2 : at + 4], "big")) > end:
                raise ValueError("wrong item lengths")
            kinds.append(pdu[at])
            if pdu[at] in (_CONTEXT, _USER_INFORMATION):
                spans.append((min(after, at + (8 if pdu[at] == _CONTEXT else 4)), after))
            at = after
    return kinds
