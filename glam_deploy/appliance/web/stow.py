"""STOW-RS (PS3.18 section 10.5): instances over HTTP, through the same ingest as C-STORE.

    POST /dicom-web/studies, /dicom-web/studies/{study}
    multipart/related; type="application/dicom"; parts are whole DICOM files, written to the disk as they come

Answers, as application/dicom+json: 200 all stored, 202 some, 409 none; 503 the disk is full or too many send at once,
413 a part is too large, 415 another media type, 400 no multipart body.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import anyio
from anyio import from_thread, to_thread
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from glam_deploy.appliance.identity import is_uid
from glam_deploy.appliance.ingest import Receipt, Status
from glam_deploy.appliance.web.access import Refused, address_of, visitor_of
from glam_deploy.appliance.web.multipart import Malformed, TooManyParts, boundary_of, read_parts
from glam_deploy.appliance.web.site import Site, site_of

MEDIA_TYPE = "application/dicom"
RETRY_SECONDS = 60
CHUNK_BYTES = 1 << 20

_REFERENCED, _FAILED, _OTHER_FAILURES = "00081199", "00081198", "0008119A"


async def store(request: Request) -> Response:
    """Take every part in, then tell how each fared."""
    site = site_of(request)
    study = request.path_params.get("study")
    boundary = _checked(request, study)
    if site.uploads.available_tokens < 1:
        raise Refused(503, "too_many_uploads", "Too many send at once: try again later.", retry_after=RETRY_SECONDS)
    taking = _Taking(site, f"stow@{address_of(request)}", study)
    chunks = _chunks(request, site.config.receive.idle_s)
    await to_thread.run_sync(taking.take, chunks, boundary, limiter=site.uploads)
    return _answer(taking.receipts)


def _checked(request: Request, study: str | None) -> bytes:
    """The boundary of the body. Raises Refused for a request that is turned away unread."""
    visitor = visitor_of(request)
    if visitor is None or visitor.way == "session":
        raise Refused(403, "stow_by_session", "Instances are sent with a bearer token or a client certificate.")
    if study is not None and not is_uid(study):
        raise Refused(400, "no_uid", "The study in the address is no UID.")
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
    """The body as it comes, in the thread that reads it; in large pieces, for a change of threads costs."""
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
        raise Refused(408, "idle", f"Nothing came for {idle_s:g} s.") from None


class _Taking:
    """One request's parts on their way into the ingest; in one thread."""

    def __init__(self, site: Site, sender: str, study: str | None) -> None:
        self._site, self._sender, self._study = site, sender, study
        self.receipts: list[Receipt] = []

    def take(self, chunks: Iterable[bytes], boundary: bytes) -> None:
        """Raises Refused where the body cannot be read to its end; what was stored before then is, unacknowledged."""
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
        return _Part(self._site, self._open, self._sender, self._study, self.receipts)


class _Part:
    """One part on its way; `close` adds its receipt."""

    def __init__(self, site: Site, stack: ExitStack, sender: str, study: str | None, receipts: list[Receipt]) -> None:
        self._intake = stack.enter_context(site.ingest.open(sender=sender, study=study))
        self._left = site.config.receive.max_object_bytes
        self._stack, self._receipts = stack, receipts

    def write(self, chunk: bytes) -> None:
        self._left -= len(chunk)
        if self._left < 0:
            # the rest is not read: it may be without end
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


def _reference(receipt: Receipt) -> dict[str, Any]:
    uids = {"00081150": receipt.sop_class, "00081155": receipt.sop_uid}
    return {tag: {"vr": "UI", "Value": [uid]} if uid else {"vr": "UI"} for tag, uid in uids.items()}


def _reason(receipt: Receipt) -> dict[str, Any]:
    return {"00081197": {"vr": "US", "Value": [int(receipt.status)]}}
