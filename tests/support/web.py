"""An appliance without processes: studies go through it by the real transitions, a step at a time."""

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import numpy as np
from anyio.from_thread import BlockingPortal, start_blocking_portal
from pydicom import dcmread

from glam_deploy.appliance.config import Assemble, Config
from glam_deploy.appliance.data import FINDING, REPORT, DataFolder
from glam_deploy.appliance.ingest import Receipt, Status
from glam_deploy.appliance.state import deliveries, jobs, overview
from glam_deploy.appliance.state.database import MonotonicClock, monotonic_clock, open_database, record_heartbeat
from glam_deploy.appliance.state.jobs import Job, JobViewOutcome
from glam_deploy.appliance.state.studies import assemble_complete
from glam_deploy.appliance.web import monitoring, server
from glam_deploy.appliance.web.app import make_app
from glam_deploy.appliance.web.context import WebContext
from glam_deploy.appliance.work.result_objects import Publisher
from glam_deploy.dicom.mammography import Exam, write_view
from glam_deploy.dicom.read import read_view
from glam_deploy.dicom.results.provenance import ResultProvenance
from glam_deploy.dicom.results.records import Algorithm
from glam_deploy.engines.base import OpenedEngines
from glam_deploy.networks import GLAM
from glam_deploy.records import Pixels, View
from glam_deploy.runtime.pipeline import Pipeline
from support.engines import fake_engines, fake_identity

TOKEN = "test-token-of-the-status-page-0123456789"
BASE = "http://127.0.0.1:8042"
PAGE = {"Accept": "text/html"}
"""What browsers say that they want."""
CANARY = Exam(patient_name="CANARY^NAME", patient_id="CANARY-ID")
REASON = "the pixels cannot be decoded: send it again"
REFUSAL = "the target answered 0xA900"
DEATH = "3 workers ended while processing it"
"""Why a view failed, a parcel was given up, and a job."""
ENGINE = {"engine": "onnx", "precision": "fp32", "gate": "2026-11-01 passed", "bundle": "sha256:5f2c", "patches": 1}


def configuration(root: Path, **web: Any) -> Config:
    """Two targets, a token, no reserve of disk."""
    token = root / "web.token"
    if not token.exists():
        token.touch(mode=0o600)
        token.write_text(TOKEN + "\n")
    targets = [
        {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 104},
        {"name": "archive", "stow_url": "https://archive.example/dicom-web"},
    ]
    values = {
        "license_acknowledged": True,
        "data": root / "data",
        "worker": {"bundle": root / "bundle"},
        "receive": {"reserve_bytes": 0, "max_object_bytes": 4 << 20},
        "results": {"cad_sr": False, "sr": False, "sc": False},  # their writers have tests of their own
        "web": {"token_file": token, **web},
        "targets": targets,
    }
    return Config.model_validate(values)


def exam(number: int) -> Exam:
    return Exam(seed=f"exam {number}", patient_name=CANARY.patient_name, patient_id=CANARY.patient_id)


def breast(view: View, rows: int = 600, columns: int = 400) -> Pixels:
    """uint16: an even half disc at the chest wall with a bright spot, brighter with every view."""
    y, x = np.ogrid[:rows, :columns]
    pixels = np.where((y - rows / 2) ** 2 + x**2 < (0.45 * rows) ** 2, 1000 + 2 * x, 0).astype(np.uint16)
    pixels[rows // 3 : rows // 3 + 40, 80:120] = 3000 + 100 * list(View).index(view)
    return pixels[:, ::-1].copy() if view.is_right else pixels


def dicom_file(view: View, of: Exam, pixels: Pixels | None = None) -> bytes:
    """A whole DICOM file."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "view.dcm"
        write_view(path, breast(view) if pixels is None else pixels, view=view, exam=of)
        return path.read_bytes()


class Client:
    """An httpx client of the application itself, without a socket; keeps cookies, follows no redirect."""

    def __init__(self, context: WebContext, portal: BlockingPortal, headers: Mapping[str, str]) -> None:
        self._portal = portal
        self.raw = httpx.AsyncClient(
            transport=httpx.ASGITransport(make_app(context)), base_url=BASE, headers={**PAGE, **headers}
        )

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.request("POST", path, **more)

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        return self._portal.call(partial(self.raw.request, method, path, **more))

    @property
    def cookies(self) -> httpx.Cookies:
        return self.raw.cookies


@dataclass
class Appliance:
    """What the processes would do, on demand."""

    context: WebContext
    connection: sqlite3.Connection
    monotonic: MonotonicClock
    portal: BlockingPortal
    pipeline: Pipeline = field(
        default_factory=lambda: Pipeline(
            OpenedEngines(engines=fake_engines(), identity=fake_identity()), patches=2, provenance={}
        )
    )

    def receive(self, content: bytes, sender: str = "MODALITY@10.0.0.7") -> Receipt:
        with self.context.ingest.open(sender=sender) as upload:
            upload.write(content)
            return upload.finish()

    def receive_exam(self, number: int, views: tuple[View, ...] = tuple(View)) -> str:
        """Its Study Instance UID."""
        for view in views:
            assert self.receive(dicom_file(view, exam(number))).reason == ""
        return str(exam(number).uid("study"))

    def name(self, study_uid: str) -> str:
        """Its pseudonym."""
        return self.context.audit.pseudonym(study_uid)

    def assemble(self) -> None:
        assemble_complete(self.connection, Assemble(quiet_s=0), self.monotonic())

    def claim(self) -> Job:
        job = jobs.claim(self.connection, worker="host 1 2", now=self.monotonic(), lease_s=30, attempts=3)
        assert job is not None
        return job

    def work(self, *, failed: str | None = None) -> Job:
        """The next job to its end, with real results; the first view of its study fails for the reason `failed`."""
        job = self.claim()
        views = jobs.job_views(self.connection, job)
        publisher = self.publisher()
        settled = [self.settled(job, view, publisher) for view in views]
        if failed:
            settled[0] = JobViewOutcome(sop_uid=views[0].sop_uid, outcome="failed", reason=failed)
        assert jobs.record_outcomes(self.connection, job, settled)
        objects = publisher.reports.publish(job, jobs.job_views(self.connection, job))
        results = {target.name: objects for target in self.context.config.targets}
        assert jobs.finish(self.connection, job, results)
        return job

    def kill_job(self, reason: str) -> Job:
        """The next job fails for good."""
        job = self.claim()
        jobs.fail(self.connection, job, now=self.monotonic(), attempts=1, reason=reason)
        return job

    def deliver(self, target: str) -> None:
        """The target's next parcel."""
        delivery = deliveries.next_delivery(self.connection, target, self.monotonic())
        assert delivery is not None
        for each in deliveries.unproven(self.connection, delivery.id):
            deliveries.mark_sent(self.connection, delivery.id, each.sop_uid)
            deliveries.mark_proven(self.connection, delivery.id, [each.sop_uid])
        assert deliveries.complete(self.connection, delivery.id, proof=True)

    def kill_delivery(self, target: str, reason: str) -> int:
        """The target's next parcel fails for good; its number."""
        delivery = deliveries.next_delivery(self.connection, target, self.monotonic())
        assert delivery is not None
        deliveries.count_failed_attempt(self.connection, delivery.id, reason, 0.0, attempts=1)
        return delivery.id

    def beat(self, *names: str, state: str = "ready") -> None:
        """All processes, or these, say that they live."""
        for name in names or monitoring.PROCESSES:
            record_heartbeat(self.connection, self.monotonic, name, state, ENGINE if name == "worker" else {})

    def client(self, **headers: str) -> Client:
        """Without a token unless `headers` bring one."""
        return Client(self.context, self.portal, headers)

    def visitor(self) -> Client:
        return self.client(Authorization=f"Bearer {TOKEN}")

    def audited(self) -> list[str]:
        """Every line of the audit."""
        return [line for path in self.context.audit.folder.iterdir() for line in path.read_text().splitlines()]

    def settled(self, job: Job, view: jobs.JobView, publisher: Publisher) -> JobViewOutcome:
        """One view, its results written."""
        if view.state != "candidate":
            return JobViewOutcome(sop_uid=view.sop_uid, outcome="skipped", reason=view.state_reason)
        mammogram = read_view(self.context.data.root / view.path)
        folder = publisher.publish_view(job.study_uid, view, mammogram, self.pipeline(mammogram))
        return JobViewOutcome(
            sop_uid=view.sop_uid, outcome="done", folder=self.context.data.relative(folder), seconds=0.5
        )

    def publisher(self) -> Publisher:
        algorithm = Algorithm(
            network=GLAM, version="1",
            checkpoint_sha256="0" * 64, bundle_id="b", engine="fake fp32", engine_digest="0" * 64,
            gate="not gated", preprocessing="1", thresholds={"benign": 0.5, "malignant": 0.5}, device_uid="2.25.1",
        )  # fmt: skip
        return Publisher(
            data=self.context.data,
            config=self.context.config,
            provenance=ResultProvenance(algorithm=algorithm, settings="test"),
        )


def set_notices(results: Path, notices: list[dict[str, str]]) -> None:
    """Replace the notices in a view's folder of results."""
    report, finding = (json.loads((results / name).read_text()) for name in (REPORT, FINDING))
    report["warnings"] = finding["summary"]["notices"] = notices
    (results / REPORT).write_text(json.dumps(report))
    (results / FINDING).write_text(json.dumps(finding))


@contextmanager
def appliance(config: Config) -> Iterator[Appliance]:
    """An appliance with an empty data folder, or the one that is there."""
    data = DataFolder(root=config.data)
    data.make()
    connection = open_database(data.database)
    monotonic = monotonic_clock(connection)
    context = server.make_context(config, data, monotonic)
    with closing(connection), closing(context.ingest), closing(context.pictures), start_blocking_portal() as portal:
        yield Appliance(context=context, connection=connection, monotonic=monotonic, portal=portal)


@dataclass(frozen=True)
class Busy:
    """Study Instance UIDs by what has become of the study."""

    appliance: Appliance
    delivered: str
    """Its L-CC was found in, its R-CC failed; proven at both targets."""
    undelivered: str
    """Given up for the target "pacs", waits for the target "archive"."""
    failed: str
    """Its job is dead."""
    waiting: str
    receiving: str
    ignored: str


def fill(made: Appliance) -> Busy:
    """One of everything."""
    made.beat()
    delivered = made.receive_exam(1, (View.R_CC, View.L_CC))
    made.assemble()
    made.work(failed=REASON)
    for target in ("pacs", "archive"):
        made.deliver(target)
    undelivered = made.receive_exam(2, (View.L_MLO,))
    made.assemble()
    made.work()
    made.kill_delivery("pacs", REFUSAL)
    failed = made.receive_exam(3, (View.L_CC,))
    made.assemble()
    made.kill_job(DEATH)
    ignored = str(exam(6).uid("study"))
    made.receive(secondary_capture(6))
    made.assemble()
    waiting = made.receive_exam(4, (View.L_CC,))
    made.assemble()
    receiving = made.receive_exam(5, (View.L_CC,))
    other = bytearray(dicom_file(View.L_MLO, exam(2)))
    other[-10] ^= 1
    assert made.receive(bytes(other)).status == Status.UID_COLLISION
    made.context.ingest.spool.record_refusal("ROGUE@10.20.30.40", "association", "no sender has this AE title")
    return Busy(made, delivered, undelivered, failed, waiting, receiving, ignored)


def corrected_study(made: Appliance, number: int) -> str:
    """A study that is done, and a version of its image with another Patient ID in quarantine; its UID."""
    study = made.receive_exam(number, (View.L_CC,))
    made.assemble()
    made.work()
    dataset = dcmread(BytesIO(dicom_file(View.L_CC, exam(number))))
    dataset.PatientID = "MERGED"
    out = BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    assert made.receive(out.getvalue()).status == Status.UID_COLLISION
    return study


def edited_view(view: View, number: int, **values: Any) -> bytes:
    """A mammogram of exam `number` with other elements."""
    dataset = dcmread(BytesIO(dicom_file(view, exam(number))))
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    out = BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def raw_view(view: View, number: int) -> bytes:
    """The For Processing image of a view of exam `number`."""
    return edited_view(
        view,
        number,
        SOPClassUID="1.2.840.10008.5.1.4.1.1.1.2.1",
        SOPInstanceUID=f"1.2.3.{number}.{[*View].index(view)}",
        PresentationIntentType="FOR PROCESSING",
    )


def secondary_capture(number: int) -> bytes:
    """An object of the study that is no mammogram, though it looks like one in all else."""
    dataset = dcmread(BytesIO(dicom_file(View.L_CC, exam(number))))
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    out = BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


@contextmanager
def serving(made: Appliance) -> Iterator[str]:
    """The role `web` of this appliance in a thread, on a free port; gives its address."""
    stop = threading.Event()
    fall: list[BaseException] = []

    def run() -> None:
        try:
            server.run(made.context.config, stop)
        except BaseException as error:
            fall.append(error)

    made.connection.execute("DELETE FROM component WHERE name = 'web'")
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield _address(made, thread)
    finally:
        stop.set()
        thread.join()
    assert not fall, fall


def _address(made: Appliance, thread: threading.Thread) -> str:
    """As the server's own beat tells it."""
    while thread.is_alive():
        with overview.open_read_only(made.context.data.database) as connection:
            beats = overview.components(connection, 0.0)
        if "web" in beats:
            detail = beats["web"].detail
            return f"{'https' if detail['tls'] else 'http'}://{detail['host']}:{detail['port']}"
        thread.join(0.01)
    raise AssertionError("the server has ended")
