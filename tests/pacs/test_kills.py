"""kill -9 at random moments under load: what was acknowledged has one result set in each target, and nothing is twice.

GLAM_KILLS says how many kills (a dozen by default, `make kill-test` makes 100), GLAM_SEED which moments and victims.
"""

import gc
import logging
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pacs.appliance import Appliance
from pacs.conftest import cad_target, dimse_target
from pacs.exams import ALL_VIEWS, exam_of, write_exam
from pacs.results import OF_A_VIEW, REPORTS, counts, current, evidence, sources
from pydicom import dcmread
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation as FOR_PRESENTATION
from pydicom.uid import MammographyCADSRStorage
from pynetdicom import AE
from support.orthanc import Orthanc, wait_for

from glam_deploy.records import View

VICTIMS = ("receiver", "worker", "dispatcher")
KILLS = int(os.environ.get("GLAM_KILLS", "12"))
SENDERS = 3
MOST_WAITING = 12
"""Studies: the senders wait while there are as many, or the queue would outlast the test."""
SEED = int(os.environ.get("GLAM_SEED", "1"))

logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # a page for each refused connection

pytestmark = [
    pytest.mark.timeout(120 + 20 * KILLS),
    # pynetdicom does not close a socket whose connection was refused
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@dataclass
class Load:
    """Sends exams one after another until it is told to stop; a modality that tries again what was not acknowledged."""

    appliance: Appliance
    folder: Path
    name: str
    """Of its exams, together with a number."""
    rng: random.Random
    acknowledged: dict[str, set[str]] = field(default_factory=dict)
    """Study -> instances that were answered with Success."""
    enough: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        number = 0
        while not self.enough.is_set():
            if self.appliance.count("SELECT count(*) FROM job WHERE state = 'ready'") >= MOST_WAITING:
                self.enough.wait(0.2)
                continue
            number += 1
            views = self.rng.sample(ALL_VIEWS, self.rng.randint(1, 4))
            self.send_all(write_exam(self.folder / str(number), f"{self.name}-{number}", views))

    def send_all(self, files: Sequence[Path]) -> None:
        """Some are sent again although they were taken, as a sender does that never heard the answer."""
        waiting = list(files)
        while waiting:
            taken = list(self._send(waiting))
            waiting = [file for file in waiting if file not in taken or self.rng.random() < 0.1]

    def _send(self, files: Sequence[Path]) -> Iterator[Path]:
        """Those that were acknowledged; the association may end at any moment."""
        ae = AE(ae_title="MODALITY")
        ae.add_requested_context(FOR_PRESENTATION)
        ae.connection_timeout, ae.acse_timeout, ae.dimse_timeout = 2, 5, 10
        association = ae.associate("127.0.0.1", self.appliance.dicom_port, ae_title="GLAM")
        for file in files:
            if not association.is_established:
                break
            dataset = dcmread(file)
            try:
                status = association.send_c_store(dataset)
            except RuntimeError:  # it was cut off meanwhile
                break
            if status and status.Status == 0x0000:
                self.acknowledged.setdefault(dataset.StudyInstanceUID, set()).add(dataset.SOPInstanceUID)
                yield file
        if association.is_established:
            association.release()
        else:
            self.enough.wait(0.1)


@pytest.fixture
def appliance(pacs: Orthanc, workstation: Orthanc, bundle: Path, tmp_path: Path) -> Iterator[Appliance]:
    """Whose jobs may cost any number of workers, for a kill is no fault of theirs."""
    served = Appliance(
        folder=tmp_path,
        bundle=bundle,
        targets=[dimse_target(pacs), cad_target(workstation)],
        dicom_port=pacs.glam_port,
        settings={"worker": {"attempts": 10 * KILLS, "lease_s": 3}, "dispatch": {"attempts": 10 * KILLS}},
    )
    served.start()
    yield served
    assert served.stop() in (0, 143)


def test_kills_lose_nothing_and_double_nothing(
    appliance: Appliance, pacs: Orthanc, workstation: Orthanc, tmp_path: Path
) -> None:
    rng = random.Random(SEED)
    loads = [
        Load(appliance=appliance, folder=tmp_path / str(n), name=f"kill{SEED}-{n}", rng=random.Random(f"{SEED}-{n}"))
        for n in range(SENDERS)
    ]
    senders = [threading.Thread(target=load.run) for load in loads]
    for sender in senders:
        sender.start()
    killed: Counter[str] = Counter()
    turns = [VICTIMS[n % len(VICTIMS)] for n in range(KILLS)]
    rng.shuffle(turns)
    try:
        while killed.total() < KILLS:
            victim = turns[killed.total()]
            wait_for(lambda: victim in appliance.pids(), f"the {victim} to live again")  # noqa: B023
            loads[0].enough.wait(rng.uniform(0, 4))  # it may be starting, which takes a second or two, or at work
            killed[victim] += appliance.kill(victim)
        wait_for(lambda: count(loads) >= KILLS, "as many views as kills", patience_s=600)
    finally:
        for load in loads:
            load.enough.set()
        for sender in senders:
            sender.join()
        gc.collect()  # the sockets of refused connections, while nobody minds
    appliance.wait_idle(patience_s=600)
    acknowledged = {study: instances for load in loads for study, instances in load.acknowledged.items()}
    begun = appliance.count("SELECT count(*) FROM event WHERE what = 'started'")
    print(
        f"kills {dict(killed)}; {len(acknowledged)} studies, {count(loads)} instances acknowledged; "
        f"work begun {begun} times"
    )
    for study, instances in acknowledged.items():
        check_study(pacs, study, instances)
        objects = workstation.retrieve(study)
        assert evidence(current(objects, MammographyCADSRStorage)) >= instances
        assert set(counts(objects)) == {MammographyCADSRStorage}


def count(loads: Sequence[Load]) -> int:
    """Instances that were acknowledged until now."""
    return sum(len(instances) for load in loads for instances in list(load.acknowledged.values()))


def check_study(pacs: Orthanc, study: str, acknowledged: set[str]) -> None:
    """Each instance has one set of objects of its own, and one report of each kind that is not replaced has it."""
    objects = pacs.retrieve(study)
    for sop_class in OF_A_VIEW:
        assert sources(objects, sop_class) == sorted(acknowledged)
    for sop_class in REPORTS:
        assert evidence(current(objects, sop_class)) >= acknowledged


def test_a_supervisor_that_is_killed_leaves_no_orphan(appliance: Appliance, pacs: Orthanc, tmp_path: Path) -> None:
    children = list(appliance.pids().values())
    assert children
    appliance.kill_all()
    wait_for(lambda: not any(map(alive, children)), "the children to end with their parent")
    appliance.start()
    files = write_exam(tmp_path / "after", f"after{SEED}", [View.L_CC])
    load = Load(appliance=appliance, folder=tmp_path, name="after", rng=random.Random(0))
    load.send_all(files)
    wait_for(lambda: len(pacs.instances(exam_of(f"after{SEED}").uid("study"))) >= 4, "results after a restart")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
