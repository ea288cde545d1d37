"""A data folder with parcels that wait to be sent, and a lane that sends them by a clock that tests turn."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.uid import UID, ExplicitVRLittleEndian

from glam_deploy.appliance.audit import Audit
from glam_deploy.appliance.config import Dispatch, Target
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.dispatcher import DeliveryWorker
from glam_deploy.appliance.state import deliveries
from glam_deploy.appliance.state.database import open_database, transaction
from glam_deploy.appliance.state.deliveries import ResultObject
from glam_deploy.appliance.targets import TargetClient, target_client
from glam_deploy.dicom import mammography
from glam_deploy.dicom.mammography import Exam
from glam_deploy.dicom.net.delivery import Item
from glam_deploy.records import View

PIXELS = np.arange(64 * 32, dtype=np.uint16).reshape(64, 32)
MG = "1.2.840.10008.5.1.4.1.1.1.2"


def write_items(folder: Path, study: str, count: int = 4, syntax: str = ExplicitVRLittleEndian) -> list[Item]:
    """Up to four small objects of one series; the same `study` gives the same UIDs."""
    items = []
    for view in list(View)[:count]:
        dataset = mammography.build_view(PIXELS, view=view, exam=Exam(seed=study))
        path = folder / f"{study}-{view.value}.dcm"
        mammography.save(dataset, path, transfer_syntax=UID(syntax))
        items.append(Item(sop_uid=str(dataset.SOPInstanceUID), path=path))
    return items


@dataclass
class Outbox:
    """State and files of an appliance, as the worker leaves them."""

    root: Path
    connection: Any
    now: float = 1000.0
    policy: Dispatch = field(default_factory=lambda: Dispatch(timeout_s=5))

    def post(self, study: str, target: str = "pacs", count: int = 4, syntax: str = ExplicitVRLittleEndian) -> list[str]:
        """A done job whose results wait for `target`; their UIDs in the order in which they are sent."""
        return self.post_items(study, target, write_items(self.root / "results", study, count, syntax))

    def post_items(self, study: str, target: str, items: Sequence[Item]) -> list[str]:
        objects = [
            ResultObject(kind="seg", sop_uid=i.sop_uid, sop_class=MG, path=f"results/{i.path.name}") for i in items
        ]
        with transaction(self.connection):
            self.connection.execute(
                "INSERT OR IGNORE INTO study (study_uid, pseudonym, state, opened, touched, opened_at, touched_at)"
                " VALUES (?, ?, 'assembled', 0, 0, 0, 0)",
                (study, f"p-{study}"),
            )
            job = self.connection.execute(
                "INSERT INTO job (study_uid, key, state, created_at) VALUES (?, ?, 'done', 0)", (study, f"key {study}")
            ).lastrowid
            deliveries.enqueue(self.connection, job, {target: objects})
        return [i.sop_uid for i in sorted(items, key=lambda item: item.path)]

    def worker(self, target: Target, client: TargetClient | None = None) -> DeliveryWorker:
        return DeliveryWorker(
            target=target,
            policy=self.policy,
            client=client or target_client(target, self.policy.timeout_s),
            connection=self.connection,
            monotonic=lambda: self.now,
            root=self.root,
            audit=Audit(folder=self.root / "audit", key=bytes(32)),
        )

    def states(self) -> list[str]:
        """Of the parcels, in order of arrival."""
        return [row["state"] for row in self.connection.execute("SELECT state FROM parcel ORDER BY id")]

    def delivery(self, number: int) -> dict[str, Any]:
        return dict(self.connection.execute("SELECT * FROM parcel WHERE id = ?", (number,)).fetchone())

    def objects(self) -> dict[str, str]:
        """SOP Instance UID -> state."""
        return {row["sop_uid"]: row["state"] for row in self.connection.execute("SELECT * FROM parcel_object")}

    def events(self) -> list[str]:
        return [row["what"] for row in self.connection.execute("SELECT what FROM event ORDER BY id")]

    def audited(self) -> str:
        return "".join(path.read_text() for path in sorted((self.root / "audit").glob("*.jsonl")))


@contextmanager
def opened_outbox(root: Path) -> Iterator[Outbox]:
    data = DataFolder(root=root)
    data.make()
    with closing(open_database(data.database)) as connection:
        yield Outbox(root=root, connection=connection)
