"""The first PDU of a connection: an A-ASSOCIATE-RQ (PS3.8 section 9.3.2), looked at before an association is made."""

import socket
import time

from pynetdicom.pdu import A_ASSOCIATE_RQ

MAX_REQUEST = 1 << 18
"""Bytes of the longest request for an association: 128 presentation contexts of 60 transfer syntaxes take 250,000."""
MAX_ITEMS = 8192
"""Items and sub-items of a request."""

_REQUEST, _HEAD, _FIXED = 0x01, 6, 68
_CONTEXT, _USER_INFORMATION = 0x20, 0x50
_MOST_CONTEXTS = 128
"""Presentation context IDs are the odd numbers up to 255 (PS3.8 section 9.3.2.2)."""
_UNRECOGNIZED, _UNEXPECTED = 1, 2
INVALID_PDU_PARAMETER = 6
"""Reason of an A-ABORT (PS3.8 section 9.3.8)."""


class NoRequestError(Exception):
    """No request for an association came that can be answered."""

    def __init__(self, reason: str, abort: int | None = None) -> None:
        """`abort`: reason of the A-ABORT that is answered (PS3.8 section 9.3.8), None for no answer."""
        super().__init__(reason)
        self.abort = abort


def abort_pdu(reason: int) -> bytes:
    """A-ABORT by the service provider (PS3.8 section 9.3.8)."""
    return bytes([7, 0, 0, 0, 0, 4, 0, 0, 2, reason])


def read_request(connection: socket.socket, deadline: float, *, longest: int) -> bytes:
    """The whole PDU, by the time `deadline` (monotonic). Raises NoRequestError.

    `longest`: bytes of the longest PDU of any kind that is taken.
    """
    head = _receive(connection, _HEAD, deadline)
    kind, length = head[0], int.from_bytes(head[2:], "big")
    if kind != _REQUEST:
        raise NoRequestError(*_stranger(kind))
    if length > min(longest, MAX_REQUEST):
        raise NoRequestError(
            f"a PDU of {length} bytes, expected up to {longest}"
            if length > longest
            else f"a request for an association of {length} bytes, expected up to {MAX_REQUEST}",
            INVALID_PDU_PARAMETER,
        )
    pdu = head + _receive(connection, length, deadline)
    _check(pdu)
    return pdu


def _stranger(kind: int) -> tuple[str, int]:
    """Who begins with this byte."""
    if kind == 0x16:
        return "it speaks TLS, and this is the plain DICOM port", _UNRECOGNIZED
    if 0x02 <= kind <= 0x07:
        return "its first PDU is no request for an association", _UNEXPECTED
    return f"it does not speak DICOM: its first byte is 0x{kind:02X}, expected 0x01", _UNRECOGNIZED


def _receive(connection: socket.socket, count: int, deadline: float) -> bytes:
    buffer = bytearray(count)
    view, filled = memoryview(buffer), 0
    while filled < count:
        left = deadline - time.monotonic()
        if left <= 0:
            raise NoRequestError("no whole request for an association came in time", _UNEXPECTED)
        connection.settimeout(left)
        try:
            received = connection.recv_into(view[filled:])
        except TimeoutError:
            continue
        except OSError as error:
            raise NoRequestError(f"its connection broke ({type(error).__name__})") from None
        if not received:
            raise NoRequestError("it closed the connection without a request for an association")
        filled += received
    return bytes(buffer)


def _check(pdu: bytes) -> None:
    """Raises NoRequestError for a request that pynetdicom cannot decode, or only at a great cost."""
    try:
        kinds = _items(pdu, _HEAD + _FIXED)
    except ValueError as error:
        raise NoRequestError(f"a request for an association with {error}", INVALID_PDU_PARAMETER) from None
    if kinds.count(_CONTEXT) > _MOST_CONTEXTS or len(kinds) > MAX_ITEMS:
        told = f"{kinds.count(_CONTEXT)} presentation contexts, expected up to {_MOST_CONTEXTS}"
        raise NoRequestError(f"a request for an association with {len(kinds)} items and {told}", INVALID_PDU_PARAMETER)
    try:
        request = A_ASSOCIATE_RQ()
        request.decode(pdu)
        for context in request.to_primitive().presentation_context_definition_list:
            assert context.abstract_syntax and context.transfer_syntax
    except Exception as error:  # whatever it stumbles on: it quotes what it was given
        told = f"a request for an association that cannot be understood ({type(error).__name__})"
        raise NoRequestError(told, INVALID_PDU_PARAMETER) from None


def _items(pdu: bytes, start: int) -> list[int]:
    """Types of all items and sub-items (PS3.8 section 9.3.2), looked at without building any.

    Raises ValueError where their lengths are wrong.
    """
    kinds: list[int] = []
    spans = [(start, len(pdu))]
    while spans:
        at, end = spans.pop()
        while at < end:
            if at + 4 > end or (after := at + 4 + int.from_bytes(pdu[at + 2 : at + 4], "big")) > end:
                raise ValueError("lengths of items that are wrong")
            kinds.append(pdu[at])
            if pdu[at] in (_CONTEXT, _USER_INFORMATION):
                spans.append((min(after, at + (8 if pdu[at] == _CONTEXT else 4)), after))
            at = after
    return kinds
