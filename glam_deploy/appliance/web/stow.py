"""STOW-RS (PS3.18 section 10.5): instances over HTTP, through the same ingest as C-STORE.

    POST /dicom-web/studies, /dicom-web/studies/{study}
    multipart/related; type="application/dicom"; parts are whole DICOM files, written to the disk as they arrive

Answers, as application/dicom+json: 200 all stored, 202 some, 409 none; 503 the disk is full or too many clients send at
once, 413 a part is too large, 415 another media type, 400 not a multipart body.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

import anyio
from anyio import from_thread, to_thread
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from glam_deploy.appliance.ingest import Receipt, Status
from glam_deploy.appliance.web.access import Refused
from glam_deploy.appliance.web.context import WebContext, client_address, context_of, visitor_of
from glam_deploy.dicom.uids import is_uid

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks


MEDIA_TYPE = "application/dicom"
RETRY_SECONDS = 60
CHUNK_BYTES = 1 << 20

_REFERENCED, _FAILED, _OTHER_FAILURES = "00081199", "00081198", "0008119A"

DicomJson = dict[str, dict[str, object]]
"""Tag -> attribute, in the DICOM JSON model (PS3.18 annex F)."""


async def store(request: Request) -> Response:
    """Store every part, and answer with the result of each."""
    context = context_of(request)
    study = request.path_params.get("study")
    boundary = _checked(request, study)
    if context.uploads.available_tokens < 1:
        raise Refused(
            503, "too_many_uploads", "Too many clients send at once: try again later.", retry_after=RETRY_SECONDS
        )
    upload = _StowUpload(context, f"stow@{client_address(request)}", study)
    chunks = _chunks(request, context.config.receive.idle_s)
    await to_thread.run_sync(upload.receive, chunks, boundary, limiter=context.uploads)
    return _answer(upload.receipts)


def _checked(request: Request, study: str | None) -> bytes:
    """The boundary of the body. Raises Refused for a request that is refused before its body is read."""
    visitor = visitor_of(request)
    if visitor is None or visitor.credential == "session":
        raise Refused(
            403, "stow_by_session", "Instances need a bearer token or a client certificate, not a browser session."
        )
    if study is not None and not is_uid(study):
        raise Refused(400, "no_uid", "The study in the URL is not a valid UID.")
    accepted = request.headers.get("accept", "*/*")
    if not any(kind in accepted for kind in ("*/*", "application/*", "application/dicom+json", "application/json")):
        raise Refused(406, "not_acceptable", "Answers are application/dicom+json.")
    try:
        boundary, kind = boundary_of(request.headers.get("content-type", ""))
    except Malformed as error:
        raise Refused(415, "media_type", f"Content-Type: {error}.") from None
    if kind != MEDIA_TYPE:
        raise Refused(415, "media_type", 'Content-Type: expected multipart/related; type="application/dicom".')
    return boundary


def _chunks(request: Request, idle_s: float) -> Iterator[bytes]:
    """The body in pieces of about CHUNK_BYTES, for the thread that reads it; each piece costs a thread switch."""
    stream = aiter(request.stream())

    async def following() -> bytes:
        some = bytearray()
        while len(some) < CHUNK_BYTES:
            with anyio.fail_after(idle_s):
                chunk = await anext(stream, None)
            if chunk is None:
                break
            some += chunk
        return bytes(some)

    try:
        while chunk := from_thread.run(following):
            yield chunk
    except TimeoutError:
        raise Refused(408, "idle", f"No data arrived for {idle_s:g} s.") from None


class _StowUpload:
    """The parts of one request on their way into the ingest; used in one thread."""

    def __init__(self, context: WebContext, sender: str, study: str | None) -> None:
        self._context, self._sender, self._study = context, sender, study
        self.receipts: list[Receipt] = []

    def receive(self, chunks: Iterable[bytes], boundary: bytes) -> None:
        """Store all parts. Raises Refused if the body cannot be read to its end; parts stored before that stay,
        unacknowledged.
        """
        with ExitStack() as self._open:
            try:
                read_parts(chunks, boundary, self._begin)
            except Malformed as error:
                raise Refused(400, "malformed", f"{str(error).capitalize()}.") from None
            except TooManyParts as error:
                raise Refused(413, "too_many_parts", f"There are {error}: send the others in further ones.") from None
        if not self.receipts:
            raise Refused(400, "malformed", "The body has no part.")

    def _begin(self, headers: Mapping[str, str]) -> "_Part":
        kind = headers.get("content-type", MEDIA_TYPE).partition(";")[0].strip().lower()
        if kind != MEDIA_TYPE:
            raise Refused(415, "media_type", "Every part must be application/dicom.")
        return _Part(self._context, self._open, self._sender, self._study, self.receipts)


class _Part:
    """One part being stored; `close` adds its receipt."""

    def __init__(
        self, context: WebContext, stack: ExitStack, sender: str, study: str | None, receipts: list[Receipt]
    ) -> None:
        self._intake = stack.enter_context(context.ingest.open(sender=sender, study=study))
        self._left = context.config.receive.max_object_bytes
        self._stack, self._receipts = stack, receipts

    def write(self, chunk: bytes) -> None:
        self._left -= len(chunk)
        if self._left < 0:
            # the rest is not read, since it may have no end
            raise Refused(413, "too_large", "A part is larger than receive.max_object_bytes.")
        self._intake.write(chunk)

    def close(self) -> None:
        self._receipts.append(self._intake.finish())
        self._stack.close()


def _answer(receipts: Sequence[Receipt]) -> Response:
    """PS3.18 section 10.5.3: a status, and every instance in one of three sequences."""
    stored = [receipt for receipt in receipts if receipt.status == Status.SUCCESS]
    named = [receipt for receipt in receipts if receipt.status != Status.SUCCESS and receipt.sop_uid]
    others = [receipt for receipt in receipts if receipt.status != Status.SUCCESS and not receipt.sop_uid]
    sequences = {
        _REFERENCED: [_reference(receipt) | {"00081190": {"vr": "UR"}} for receipt in stored],
        _FAILED: [_reference(receipt) | _reason(receipt) for receipt in named],
        _OTHER_FAILURES: [_reason(receipt) for receipt in others],
    }
    content = {tag: {"vr": "SQ", "Value": items} for tag, items in sequences.items() if items}
    status = _status(len(stored), [receipt.status for receipt in (*named, *others)])
    headers = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else None
    return JSONResponse(content, status, headers, media_type="application/dicom+json")


def _status(stored: int, failures: Sequence[Status]) -> int:
    if not failures:
        return 200
    if stored:
        return 202
    return 503 if set(failures) == {Status.OUT_OF_RESOURCES} else 409


def _reference(receipt: Receipt) -> DicomJson:
    uids = {"00081150": receipt.sop_class, "00081155": receipt.sop_uid}
    return {tag: {"vr": "UI", "Value": [uid]} if uid else {"vr": "UI"} for tag, uid in uids.items()}


def _reason(receipt: Receipt) -> DicomJson:
    return {"00081197": {"vr": "US", "Value": [int(receipt.status)]}}


class Part(Protocol):
    """Receives the content of a part."""

    def write(self, chunk: bytes) -> object: ...

    def close(self) -> None: ...


MOST_PARTS = 1000
MOST_HEAD_BYTES = 1 << 13
"""Bytes of the headers of one part."""
MOST_AFTER = 1 << 16
"""Bytes after the closing boundary, which are ignored."""


class Malformed(Exception):
    """The body, or its Content-Type, is not valid multipart/related."""


class TooManyParts(Exception):
    """The body has more than `MOST_PARTS` parts."""


def boundary_of(content_type: str) -> tuple[bytes, str]:
    """The boundary, and the type of the parts, in a Content-Type for STOW-RS. Raises Malformed."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    # RFC 2046 section 5.1.1
    if kind != b"multipart/related" or not 0 < len(boundary) <= 70:
        raise Malformed("expected multipart/related with a boundary")
    return boundary, options.get(b"type", b"").decode("latin-1").lower()


def read_parts(chunks: Iterable[bytes], boundary: bytes, begin: Callable[[Mapping[str, str]], Part]) -> None:
    """Pass every part of a multipart/related body (RFC 2387) to the `Part` that `begin` makes from its headers.

    Header names are in lower case. Raises Malformed if the body ends early or is invalid, and TooManyParts; a part in
    progress is then not closed, and the rest of the body is not read.
    """
    reader, after = _Reader(begin), 0
    parser = MultipartParser(boundary, reader.callbacks())
    try:
        for chunk in chunks:
            after += len(chunk) if reader.ended else 0
            if after > MOST_AFTER:
                raise Malformed(f"more than {MOST_AFTER} bytes follow the closing boundary")
            parser.write(chunk)
    except MultipartParseError as error:
        raise Malformed(f"the body is not a multipart body with this boundary ({type(error).__name__})") from None
    if not reader.ended:
        raise Malformed("the body ends before its closing boundary")


class _Reader:
    """Callbacks of the multipart parser."""

    def __init__(self, begin: Callable[[Mapping[str, str]], Part]) -> None:
        self._begin = begin
        self._part: Part | None = None
        self._headers: dict[str, str] = {}
        self._name, self._value = b"", b""
        self._parts = self._head_bytes = 0
        self.ended = False

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_name,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._start,
            "on_part_data": self._write_data,
            "on_part_end": self._close,
            "on_end": self._end,
        }

    def _begin_part(self) -> None:
        self._headers.clear()
        self._parts, self._head_bytes = self._parts + 1, 0
        if self._parts > MOST_PARTS:
            raise TooManyParts(f"more than {MOST_PARTS} parts in one request")

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._count_head(end - start)
        self._name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._count_head(end - start)
        self._value += data[start:end]

    def _count_head(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > MOST_HEAD_BYTES:
            raise Malformed(f"the headers of a part have more than {MOST_HEAD_BYTES} bytes")

    def _end_header(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value.decode("latin-1")
        self._name, self._value = b"", b""

    def _start(self) -> None:
        self._part = self._begin(dict(self._headers))

    def _write_data(self, data: bytes, start: int, end: int) -> None:
        assert self._part is not None
        self._part.write(data[start:end])

    def _close(self) -> None:
        assert self._part is not None
        self._part.close()
        self._part = None

    def _end(self) -> None:
        self.ended = True
