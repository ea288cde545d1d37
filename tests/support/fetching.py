"""The role `fetcher` in this process, and what it has fetched."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from glam_deploy.appliance.audit import open_audit
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.fetch import role
from glam_deploy.appliance.fetch.windows import local_now
from glam_deploy.appliance.state import fetches
from glam_deploy.appliance.state.database import open_database
from glam_deploy.appliance.state.fetches import Kind
from glam_deploy.records import View
from support.fake_archive import FakeArchive
from support.jobs import made, rows

TWO = (View.L_CC, View.R_CC)
"""Of an exam."""
QUICK = {"first_retry_s": 0.05, "longest_retry_s": 0.2, "timeout_s": 5}


def config_of(folder: Path, fetch: Mapping[str, object], *, port: int = 0, sender: str = "MODALITY") -> Config:
    """An appliance that fetches, and receives from `sender` at `port`."""
    return Config(
        license_acknowledged=True,
        data=folder / "data",
        worker={"bundle": folder},
        receive={"port": port, "senders": [{"ae_title": sender, "hosts": ["127.0.0.1"]}], "reserve_bytes": 0},
        fetch=QUICK | dict(fetch),
    )


def want(config: Config, kind: Kind, *values: str, again: bool = False) -> fetches.Added:
    data = made(config)
    with closing(open_database(data.database)) as connection:
        return fetches.add(connection, kind, values, open_audit(data).pseudonym, again=again)


@contextmanager
def fetching(config: Config, clock: Callable[[], datetime] = local_now) -> Iterator[DataFolder]:
    stop = threading.Event()
    thread = threading.Thread(target=role.run, args=(config, stop), kwargs={"clock": clock})
    thread.start()
    try:
        yield made(config)
    finally:
        stop.set()
        thread.join()


def items(data: DataFolder) -> list[tuple[Any, ...]]:
    """Kind, state and reason of each item, in order."""
    return rows(data, "SELECT kind, state, reason FROM fetch ORDER BY id")


def states(data: DataFolder) -> list[object]:
    return [state for _, state, _ in items(data)]


def study_of(archive: FakeArchive) -> str:
    return str(archive.held[0].StudyInstanceUID)


def uids(archive: FakeArchive) -> list[str]:
    return [str(held.SOPInstanceUID) for held in archive.held]


def here(config: Config) -> list[str]:
    return [str(uid) for (uid,) in rows(made(config), "SELECT sop_uid FROM instance ORDER BY arrival")]
