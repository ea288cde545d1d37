"""Modalities that send exams for as long as a phase lasts, and remember what was acknowledged."""

import math
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pacs.appliance import Appliance
from pydicom.uid import ExplicitVRLittleEndian, RLELossless
from pynetdicom import AE
from soak.exams import CLASSES, SPOILT, TAKEN, Exams, Kind, SentView

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
AGAIN_S = 60.0
"""An exam that is sent once more comes so much later, when it may have been removed by retention."""


@dataclass
class Ledger:
    """What the appliance has answered; several threads write it."""

    acknowledged: dict[str, tuple[str, Kind]] = field(default_factory=dict)
    """SOP Instance UID -> its study, and what it was."""
    statuses: Counter[str] = field(default_factory=Counter)
    """Kind and status of every answer."""
    wrong: list[str] = field(default_factory=list)
    """Answers other than expected."""

    def note(self, view: SentView, status: int) -> None:
        self.statuses[f"{view.kind.value} 0x{status:04X}"] += 1
        if status == SUCCESS and view.kind in TAKEN:
            self.acknowledged[view.sop_uid] = (str(view.dataset.StudyInstanceUID), view.kind)
        elif status == SUCCESS or (view.kind in TAKEN and status != OUT_OF_RESOURCES):
            self.wrong.append(f"{view.kind.value}: status 0x{status:04X}")


@dataclass
class Modality:
    """Sends exams one after another, and again what was not acknowledged."""

    appliance: Appliance
    exams: Exams
    ledger: Ledger
    name: str
    rate: float | None
    """Views a second that it sends at most; None: as fast as the appliance processes them."""
    most_waiting: int
    """Studies that may wait for the network before it pauses."""

    def run(self, stop: threading.Event) -> None:
        again: deque[tuple[float, str]] = deque()
        number, due = 0, time.monotonic()
        while not stop.is_set():
            if self._is_full():
                stop.wait(0.5)
                continue
            number += 1
            name = f"{self.name}-{number}"
            due = max(due, time.monotonic() - 1)  # a modality does not catch up on more
            due += self._send_all(name, stop) / (self.rate or math.inf)
            if random.Random(f"{name} again").random() < SPOILT:
                again.append((time.monotonic() + AGAIN_S, name))
            if again and again[0][0] < time.monotonic():
                self._send_all(again.popleft()[1], stop)
            stop.wait(max(0.0, due - time.monotonic()))

    def _is_full(self) -> bool:
        waiting = (
            "SELECT (SELECT count(*) FROM job WHERE state = 'ready')"
            " + (SELECT count(*) FROM study WHERE state = 'receiving')"
        )
        return self.appliance.count(waiting) >= self.most_waiting

    def _send_all(self, name: str, stop: threading.Event) -> int:
        """Until each view was answered for good; the number of views. Ends early at `stop`."""
        exam = waiting = self.exams.exam(name)
        while waiting:
            answered = set(self._send(waiting))
            waiting = [view for n, view in enumerate(waiting) if n not in answered and view.kind in TAKEN]
            if waiting and stop.wait(0.3):
                break
        return len(exam)

    def _send(self, views: Sequence[SentView]) -> Iterator[int]:
        """Places of those that were answered, by any status but "send it again later"."""
        ae = AE(ae_title="MODALITY")
        for sop_class in CLASSES:
            for syntax in (ExplicitVRLittleEndian, RLELossless):
                ae.add_requested_context(sop_class, syntax)
        ae.connection_timeout, ae.acse_timeout, ae.dimse_timeout, ae.network_timeout = 5, 10, 60, 60
        association = ae.associate("127.0.0.1", self.appliance.dicom_port, ae_title="GLAM")
        for place, view in enumerate(views):
            if not association.is_established:
                break
            try:
                answer = association.send_c_store(view.dataset)
            except RuntimeError:  # it was cut off meanwhile
                break
            if "Status" in answer:
                self.ledger.note(view, answer.Status)
                if answer.Status != OUT_OF_RESOURCES:
                    yield place
        if association.is_established:
            association.release()
