"""A listener for tests, with callers of every kind."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from expected import need
from pydicom.uid import (
    ExplicitVRLittleEndian,
)
from pynetdicom import AE, build_context

from glam_deploy.dicom.net.listener import AuditEvent, Listener, Rules, Sender
from glam_deploy.dicom.part10 import Claim

MG = "1.2.840.10008.5.1.4.1.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
RULES = Rules(
    ae_title="GLAM",
    senders=(Sender(ae_title="STORESCU", networks=(ip_network("127.0.0.0/8"),)),),
    max_associations=3,
    idle_s=20,
)


@dataclass(frozen=True)
class Verdict:
    status: int = 0x0000
    reason: str = ""


@dataclass
class Upload:
    """Keeps what comes, and what became of it."""

    sender: str
    claim: Claim
    verdict: Verdict
    data: bytearray = field(default_factory=bytearray)
    writes: list[int] = field(default_factory=list)
    finished: bool = False
    left: bool = False

    def __enter__(self) -> "Upload":
        return self

    def __exit__(self, *_: object) -> None:
        self.left = True

    def write(self, chunk: bytes) -> None:
        self.data += chunk
        self.writes.append(len(chunk))

    def finish(self) -> Verdict:
        self.finished = True
        return self.verdict


class Post:
    """A listener, all that it was given, and all that it told."""

    def __init__(self, rules: Rules = RULES, verdict: Verdict = Verdict()) -> None:
        self.uploads: list[Upload] = []
        self.told: list[AuditEvent] = []
        self.verdict = verdict
        self.listener = Listener(rules, begin=self._begin, audit=self.told.append)
        self.port = self.listener.listen("127.0.0.1", 0)

    def _begin(self, sender: str, claim: Claim) -> Upload:
        self.uploads.append(Upload(sender, claim, self.verdict))
        return self.uploads[-1]

    def said(self, event: str) -> list[str]:
        return [told.reason for told in self.told if told.event == event]


@contextmanager
def post(rules: Rules = RULES, verdict: Verdict = Verdict()) -> Iterator[Post]:
    made = Post(rules, verdict)
    try:
        yield made
    finally:
        made.listener.stop()


def caller(title: str = "STORESCU", *contexts: Any) -> AE:
    made = AE(title)
    made.requested_contexts = list(contexts) or [build_context(MG, ExplicitVRLittleEndian), build_context(VERIFICATION)]
    made.acse_timeout = made.dimse_timeout = made.network_timeout = 20
    return made


def associated(port: int, *, called: str = "GLAM", calling: str = "STORESCU", **options: Any) -> Any:
    return caller(calling).associate("127.0.0.1", port, ae_title=called, **options)


def rejection(association: Any) -> tuple[int, int, int]:
    """Result, source and reason (PS3.8 section 9.3.4)."""
    assert association.is_rejected
    answer = association.acceptor.primitive
    return answer.result, answer.result_source, answer.diagnostic


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """A program of dcmtk, to its end."""
    need("dcmtk", "" if shutil.which(str(arguments[0])) else arguments[0])
    command = [str(argument) for argument in arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
