"""An appliance without a network, a sender or a PACS: its configuration, instances that have come, and what works."""

import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from glam_deploy.appliance.audit import open_audit
from glam_deploy.appliance.config import Assemble, Config, parse_config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.ingest import Ingest, Receipt, Status
from glam_deploy.appliance.state import studies
from glam_deploy.appliance.state.database import open_database, transaction
from glam_deploy.appliance.state.studies import Instance
from glam_deploy.appliance.work import worker
from glam_deploy.dicom.mammography import Exam, write_view
from glam_deploy.records import View
from glam_deploy.runtime.pipeline import Pipeline
from support import engines as support_engines
from support.until import until

MINIMAL = """
license_acknowledged = true
data = "data"
"""

PROVENANCE = {"bundle": {"id": "ab" * 32}, "checkpoint": {"sha256": "cd" * 32}, "gate": "reference"}


def config_of(folder: Path, *sections: str) -> Config:
    """A configuration whose data folder lies in `folder`; `sections` are TOML. A missing [worker] is filled in."""
    worker = "" if any("[worker]" in section for section in sections) else '[worker]\nbundle = "bundle"\n'
    receive = "" if any("[receive]" in section for section in sections) else "[receive]\nreserve_bytes = 0\n"
    return parse_config("\n".join((MINIMAL, worker, receive, *sections)), folder=folder)


def made(config: Config) -> DataFolder:
    data = DataFolder(root=config.data)
    data.make()
    return data


def database_of(data: DataFolder) -> sqlite3.Connection:
    """As every process opens it, but for power failures, which no test makes."""
    connection = open_database(data.database)
    connection.execute("PRAGMA synchronous = OFF")
    return connection


def arrive(
    connection: sqlite3.Connection,
    sop_uid: str,
    *,
    study: str = "1.2.3",
    view: View | None = View.L_CC,
    state: str = "candidate",
    is_mammogram: bool = True,
    now: float = 0.0,
) -> None:
    """An instance is received: its row, without a file."""
    instance = Instance(
        sop_uid=sop_uid,
        study_uid=study,
        series_uid="1.2.3.4",
        sop_class="1.2.840.10008.5.1.4.1.1.1.2",
        transfer_syntax="1.2.840.10008.1.2.1",
        sha256=f"digest of {sop_uid}",
        bytes=1,
        sender="MODALITY@127.0.0.1",
        state=state,
        view=view.value if view and state == "candidate" else None,
        reason=None if state == "candidate" else "made up",
        is_mammogram=is_mammogram,
        path=f"spool/studies/{study}/{sop_uid}.dcm",
    )
    with transaction(connection):
        studies.add_instance(connection, instance, pseudonym=f"name of {study}", now=now)


def send(
    config: Config,
    *views: View,
    exam: str = "exam",
    change: Callable[[bytes], bytes] | None = None,
    for_processing: bool = False,
) -> None:
    """Views of one invented exam, really received."""
    data = made(config)
    ingest = Ingest(config, data, open_audit(data))
    for view in views:
        path = config.data.parent / "sent.dcm"
        write_view(path, pixels_of(view), view=view, exam=Exam(seed=exam), for_processing=for_processing)
        with ingest.open(sender="MODALITY@127.0.0.1") as upload:
            upload.write(change(path.read_bytes()) if change else path.read_bytes())
            assert upload.finish().status == Status.SUCCESS
    ingest.close()


def receive(config: Config, content: bytes) -> Receipt:
    """A whole DICOM file."""
    data = made(config)
    with (
        closing(Ingest(config, data, open_audit(data))) as ingest,
        ingest.open(sender="MODALITY@127.0.0.1") as upload,
    ):
        upload.write(content)
        return upload.finish()


def worked(config: Config) -> None:
    """The study is assembled and processed."""
    data = made(config)
    with closing(database_of(data)) as connection:
        studies.assemble_complete(connection, Assemble(quiet_s=0), 1e9)
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(config, stop), kwargs={"loader": stub})
    thread.start()
    try:
        until(lambda: rows(data, "SELECT count(*) FROM job WHERE state IN ('ready', 'running')") == [(0,)])
    finally:
        stop.set()
        thread.join()


def pixels_of(view: View):  # type: ignore[no-untyped-def]
    pixels = support_engines.small_view().pixels
    return pixels[:, ::-1].copy() if view.is_right else pixels


def stub(config: Config) -> Pipeline:
    """Brightness instead of lesions, in a tenth of a second."""
    opened = support_engines.opened_fakes()
    onnx = replace(opened, identity=support_engines.fake_identity("onnx"))
    return Pipeline(onnx, patches=1, provenance=PROVENANCE)


def rows(data: DataFolder, query: str, *values: object) -> list[tuple[object, ...]]:
    with closing(open_database(data.database)) as connection:
        return [tuple(row) for row in connection.execute(query, values)]


def dead_pid() -> int:
    """Of a process that has just ended."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid
