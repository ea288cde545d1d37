"""DIMSE client that reads an archive: C-FIND, and C-GET or C-MOVE of one object (PS3.4 annex C, Study Root)."""

import queue
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    BreastProjectionXRayImageStorageForPresentation,
    BreastProjectionXRayImageStorageForProcessing,
    BreastTomosynthesisImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)
from pynetdicom import build_context, build_role, evt
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (  # type: ignore[attr-defined]
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
    Verification,
)

from glam_deploy.dicom.net import delivery
from glam_deploy.dicom.net.archive import (
    MAMMOGRAPHY,
    MOST_MATCHES,
    SEARCH_TIMEOUTS,
    WANTED,
    Begin,
    FoundStudies,
    ImageRef,
    Proceed,
    StoppedError,
    StudyContent,
    agrees,
    always,
    found_studies,
    has_mammography,
    study_content,
)
from glam_deploy.dicom.net.associations import Receipt, Upload
from glam_deploy.dicom.net.client import PLAIN, BoundedMessages, ClientAssociation, ClientMessages
from glam_deploy.dicom.net.command_uids import UnusableUids, claim_of
from glam_deploy.dicom.net.delivery import SLOWEST
from glam_deploy.dicom.net.peer import Peer
from glam_deploy.dicom.part10 import TRANSFER_SYNTAXES
from glam_deploy.dicom.values import Elements
from glam_deploy.errors import PeerBroke, PeerDeclined, PeerError

_FIND = StudyRootQueryRetrieveInformationModelFind
_GET = StudyRootQueryRetrieveInformationModelGet
_MOVE = StudyRootQueryRetrieveInformationModelMove

_IMAGE_SYNTAXES = tuple(
    syntax for syntax in TRANSFER_SYNTAXES if not any(word in syntax.name for word in ("MPEG", "HEVC", "Part 2"))
)
"""Transfer syntaxes of single images."""
_OTHER_CLASSES = (
    BreastTomosynthesisImageStorage, BreastProjectionXRayImageStorageForPresentation,
    BreastProjectionXRayImageStorageForProcessing, DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing, SecondaryCaptureImageStorage, MultiFrameSingleBitSecondaryCaptureImageStorage,
    MultiFrameGrayscaleByteSecondaryCaptureImageStorage, MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
)  # fmt: skip
"""Other SOP classes of series of the modality MG, which are retrieved if the archive does not tell SOP classes."""
LARGEST_MOVED = 64 << 20
"""Bytes of the largest object for which the response to C-MOVE is awaited, at the lowest rate `delivery.SLOWEST`."""
_UNKNOWN_DESTINATION = 0xA801
"""Status of C-MOVE (PS3.4 table C.4-2)."""
NO_DATA_SET = 0xC000


class RetrieveSession(ClientAssociation):
    """One association with an archive: an `archive.ArchiveSession`.

    With `destination`, an AE title that the archive knows, objects are retrieved by C-MOVE to it, else by C-GET on the
    same association, in the transfer syntax in which they are stored if the archive agrees.
    """

    def __init__(
        self, peer: Peer, *, most: int = LARGEST_MOVED, destination: str | None = None, proceed: Proceed = always
    ) -> None:
        """`most`: bytes of the largest object of C-GET, which may take as long as at the rate `delivery.SLOWEST`."""
        self._destination, self._proceed = destination, proceed
        self._longest = peer.timeout_s + (LARGEST_MOVED if destination else most) / SLOWEST
        self._model = _MOVE if destination else _GET
        services = [build_context(service, PLAIN) for service in (Verification, _FIND, self._model)]
        # a context for each syntax: of several in one the archive chooses one, whatever the object is stored in
        storage = [build_context(sop_class, syntax) for sop_class in WANTED for syntax in _syntaxes(sop_class)]
        storage += [build_context(sop_class, list(_IMAGE_SYNTAXES)) for sop_class in _OTHER_CLASSES]
        roles = [build_role(sop_class, scp_role=True) for sop_class in (*WANTED, *_OTHER_CLASSES)]
        super().__init__(
            peer,
            services if destination else [*services, *storage],
            roles=[] if destination else roles,
            handlers=[(evt.EVT_C_STORE, _stored)],
            messages=_BoundedWaitingMessages if destination else _ReceivedMessages,
        )

    def missing(self) -> list[str]:
        """Names of the services and SOP classes that fetching needs and the archive accepts in no transfer syntax."""
        return sorted(UID(sop_class).name for sop_class in self.not_accepted().difference(map(str, _OTHER_CLASSES)))

    def _accepted(self) -> list[PresentationContext]:
        """The accepted contexts, of storage those in which the archive sends."""
        stored = (*WANTED, *_OTHER_CLASSES)
        return [each for each in super()._accepted() if each.as_scp or each.abstract_syntax not in stored]

    def studies(self, *, day: str = "", accession: str = "") -> FoundStudies:
        query = _query("STUDY", StudyInstanceUID="", StudyDate=day)
        if not accession.isascii():
            query.SpecificCharacterSet = "ISO_IR 192"  # other characters would be sent as ?, a wildcard
        query.AccessionNumber = accession
        query.ModalitiesInStudy = MAMMOGRAPHY
        found = self._search(query, "the studies of a day or accession number")
        return found_studies(
            _text(match, "StudyInstanceUID")
            for match in found
            if has_mammography(_modalities(match))
            and agrees(_text(match, "StudyDate"), day)
            and agrees(_text(match, "AccessionNumber"), accession)
        )

    def content(self, study_uid: str) -> StudyContent:
        query = _query("SERIES", StudyInstanceUID=study_uid, SeriesInstanceUID="", Modality="")
        series = {
            _text(match, "SeriesInstanceUID"): _text(match, "Modality") for match in self._search(query, "one study")
        }

        def objects(series_uid: str) -> Iterator[tuple[str, str]]:
            query = _query("IMAGE", StudyInstanceUID=study_uid, SeriesInstanceUID=series_uid)
            query.SOPInstanceUID = query.SOPClassUID = ""
            for match in self._search(query, "one series"):
                yield _text(match, "SOPClassUID"), _text(match, "SOPInstanceUID")

        return study_content(study_uid, series, objects, peer=self.peer, seconds=self._search_s)

    @property
    def _search_s(self) -> float:
        return SEARCH_TIMEOUTS * self.peer.timeout_s

    def _search(self, query: Dataset, what: str) -> list[Dataset]:
        self._require(_FIND, "C-FIND")
        self._watch(float("inf"))
        try:
            return list(self._matches(query, _FIND, seconds=self._search_s, what=what))
        except PeerBroke:
            self._raise_if_given_up("C-FIND")
            raise

    def _watch(self, longest: float) -> "_WaitingMessages":
        """Set the limits of the next request, in seconds from now."""
        messages = self._association.dimse
        assert isinstance(messages, _WaitingMessages)
        messages.watch(self._proceed, longest=longest, stall=self._search_s)
        return messages

    def _raise_if_given_up(self, what: str) -> None:
        messages = self._association.dimse
        assert isinstance(messages, _WaitingMessages)
        if messages.is_stopped:
            raise StoppedError from None
        if messages.is_late:
            raise PeerBroke(f"{self.peer} answers {what}, and does not finish it in time: check its log") from None

    def retrieve(self, image: ImageRef, begin: Begin) -> Receipt | None:
        what = "C-MOVE" if self._destination else "C-GET"
        self._require(self._model, what)
        query = _query("IMAGE", StudyInstanceUID=image.study_uid, SeriesInstanceUID=image.series_uid)
        query.SOPInstanceUID = image.sop_uid
        messages = self._watch(self._longest)
        if self._destination:
            self._association.dimse_timeout = self._longest
            self._finish(self._association.send_c_move(query, self._destination, _MOVE), what)
            return None
        assert isinstance(messages, _ReceivedMessages)
        with messages.receiving(image.sop_uid, begin):
            self._association.dimse_timeout = self.peer.timeout_s
            try:
                self._finish(self._association.send_c_get(query, _GET), what)
            except PeerDeclined:
                if messages.receipt is None or not messages.receipt.status:
                    raise
        return messages.receipt

    def _finish(self, answers: Iterator[tuple[Dataset, Dataset | None]], what: str) -> None:
        """Wait for the final response. Raises PeerDeclined unless it is success."""
        status = delivery.SUCCESS
        try:
            for answer, _ in answers:
                status = self._checked(answer, what)
        except RuntimeError:
            raise PeerBroke(f"{self.peer} ended the association before {what}") from None
        except PeerBroke:
            self._raise_if_given_up(what)
            raise
        if status == _UNKNOWN_DESTINATION:
            raise PeerError(
                f"{self.peer} does not know the destination {self._destination} of C-MOVE: enter this appliance there, "
                "with its AE title, address and port"
            )
        if status != delivery.SUCCESS:
            raise PeerDeclined(
                f"{self.peer} answers {what} with status 0x{status:04X}, so an object was not sent: check its log"
            )

    def _require(self, model: UID, what: str) -> None:
        if not self._takes(model, *PLAIN):
            raise PeerError(
                f"{self.peer} offers no Study Root {what} to {self.peer.calling_ae_title}: allow it there, or set "
                "another `retrieve` in [fetch]"
            )


class _WaitingMessages(ClientMessages):
    """DIMSE provider that waits for a message within limits, and gives up when its caller wants no more.

    The limits: `dimse_timeout` without a byte, those of `watch` for a request and all of its responses.
    """

    def __init__(self, assoc: Any) -> None:
        super().__init__(assoc)
        self._last = time.monotonic()
        self.watch(always, longest=float("inf"), stall=float("inf"))

    def watch(self, proceed: Proceed, *, longest: float, stall: float) -> None:
        """Begin a request that takes up to `longest` seconds, and up to `stall` seconds without `progress`."""
        self.is_stopped = self.is_late = False
        self._proceed, self._stall = proceed, stall
        self.progress = self._asked = time.monotonic()
        self._deadline = self.progress + longest

    def get_msg(self, block: bool = False) -> Any:
        if not block:
            return super().get_msg(block=False)
        self._last, limit = time.monotonic(), self.dimse_timeout or 0
        while self._may_wait():
            try:
                return self.msg_queue.get(timeout=min(POLL_S, limit))
            except queue.Empty:
                if time.monotonic() - self._last > limit:
                    break
        return None, None

    def _may_wait(self) -> bool:
        now = time.monotonic()
        if now - self._asked >= POLL_S:
            self._asked, self.is_stopped = now, not self._proceed()
        self.is_late = now >= min(self._deadline, self.progress + self._stall)
        return not (self.is_stopped or self.is_late)


class _BoundedWaitingMessages(_WaitingMessages, BoundedMessages):
    """That of C-FIND and C-MOVE."""


class _ReceivedMessages(UnusableUids, _WaitingMessages):
    """DIMSE provider that streams the object of C-GET to its upload."""

    def __init__(self, assoc: Any) -> None:
        super().__init__(assoc)
        self._begin: Begin | None = None
        self._sop_uid = ""
        self._uploads = ExitStack()
        self.receipt: Receipt | None = None

    def receiving(self, sop_uid: str, begin: Begin) -> ExitStack:
        """A block in which one object is received, once; what is incomplete at its end is given up."""
        self._sop_uid, self._begin, self.receipt, self._uploads = sop_uid, begin, None, ExitStack()
        return self._uploads

    def receive_primitive(self, primitive: P_DATA) -> None:
        self._last = time.monotonic()
        if self.message is None:
            self.message = DIMSEMessage()
            self.message.data_set = _Sink(self, self.message)
        try:
            super().receive_primitive(primitive)
            message = self.message
            long = message is not None and message.encoded_command_set.tell() > MAX_PART
        except _TooLongError:
            long = True
        if long or self.msg_queue.qsize() > MOST_MATCHES:
            self.break_off()

    def begin_upload(self, message: DIMSEMessage) -> Upload | None:
        """The upload of an object; None for one that was not asked for, or in no accepted context."""
        contexts = {context.context_id: context for context in self.assoc.accepted_contexts}
        context = contexts.get(message.context_id)
        if self._begin is None or context is None:
            return None
        claim = claim_of(message.command_set, context)
        if claim.sop_uid != self._sop_uid:
            return None
        begin, self._begin = self._begin, None
        return self._uploads.enter_context(begin(claim))


POLL_S = 0.5
"""Longest time between two checks whether to go on."""
MAX_PART = 1 << 17
"""Largest command set, and largest data set of a response, in bytes."""


class _TooLongError(Exception):
    """A response is too long."""


class _Sink(BytesIO):
    """Buffer to which pynetdicom writes the fragments of a data set; passes those of an object to its upload."""

    def __init__(self, messages: _ReceivedMessages, message: DIMSEMessage) -> None:
        super().__init__()
        self._messages, self._message, self._begun = messages, message, False
        self.upload: Upload | None = None

    def write(self, fragment: Any) -> int:
        if not isinstance(self._message, C_STORE_RQ):
            if self.tell() + len(fragment) > MAX_PART:
                raise _TooLongError
            return super().write(fragment)
        if not self._begun:
            self._begun, self.upload = True, self._messages.begin_upload(self._message)
        if self.upload:
            self._messages.progress = time.monotonic()
            self.upload.write(fragment)
        return len(fragment)

    def finish(self) -> Receipt | None:
        """The receipt of the object; None if it was not expected."""
        if self.upload:
            self._messages.receipt = self.upload.finish()
            return self._messages.receipt
        return None


def _stored(event: evt.Event) -> Dataset:
    sink = getattr(event.request, "DataSet", None)
    receipt = sink.finish() if isinstance(sink, _Sink) else None
    answer = Dataset()
    answer.Status = NO_DATA_SET if receipt is None else int(receipt.status)
    if answer.Status:
        answer.ErrorComment = (receipt.reason if receipt else "this object was not asked for")[:64]
    return answer


def _syntaxes(sop_class: str) -> Sequence[str | UID]:
    return _IMAGE_SYNTAXES if sop_class != WANTED[-1] else PLAIN


def _query(level: str, **keys: str) -> Dataset:
    query = Dataset()
    query.QueryRetrieveLevel = level
    for keyword, value in keys.items():
        setattr(query, keyword, value)
    return query


def _text(match: Dataset, keyword: str) -> str:
    """The value of an element without padding; "" if it is absent or damaged, several values with backslashes."""
    return "\\".join(Elements(match).texts(keyword))


def _modalities(match: Dataset) -> list[str]:
    return [text for text in Elements(match).texts("ModalitiesInStudy") if text]
