"""`doctor` beside an appliance that cannot write, as on a full disk: it is known by its locks, not by heartbeats."""

import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.receive import close_sockets, config_of, running_receiver

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder, sole_process
from glam_deploy.appliance.state.database import monotonic_clock
from glam_deploy.appliance.state.overview import components, open_read_only
from glam_deploy.cli import doctor
from glam_deploy.cli.doctor_findings import FAILS, Finding, Processes
from glam_deploy.cli.doctor_network import listeners, web


@pytest.fixture(autouse=True)
def sockets_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    close_sockets(monkeypatch)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """With ports that were free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        made, port = config_of(tmp_path, port=one.getsockname()[1]), other.getsockname()[1]
    return made.model_copy(update={"web": made.web.model_copy(update={"port": port})})


def found(config: Config) -> Iterator[Finding]:
    """The findings on processes and ports when no heartbeat is recent."""
    data = DataFolder(root=config.data)
    known: Processes = {}
    if data.database.exists():
        with open_read_only(data.database) as connection:
            known = components(connection, monotonic_clock(connection)())
    running = doctor._running_roles(config, data)
    yield from doctor._processes(config, known, {}, running)
    yield from listeners(config, {}, running)
    yield from web(config, {}, running)


def told(config: Config) -> list[tuple[str, str, str]]:
    return [(each.state, each.what, each.found) for each in found(config)]


def test_processes_that_run_but_cannot_write(config: Config) -> None:
    with ExitStack() as running:
        running.enter_context(running_receiver(config))
        running.enter_context(socket.create_server(("127.0.0.1", config.web.port)))
        for role in ("receiver", "web"):
            running.enter_context(sole_process(DataFolder(root=config.data), role))
        assert told(config) == [
            (FAILS, "processes", "receiver runs, but has written no heartbeat for 0 s"),
            (FAILS, "processes", "web runs, but has written no heartbeat yet"),
            *((FAILS, "processes", f"{role} never ran") for role in ("keeper", "worker", "dispatcher")),
            ("ok", f"dicom port {config.receive.port}", "GLAM at 127.0.0.1 answers a C-ECHO from STORESCU"),
            ("ok", f"web port {config.web.port}", "127.0.0.1: answers"),
        ]


def test_ports_of_another_program(config: Config) -> None:
    """The locks are those of processes that have ended."""
    DataFolder(root=config.data).make()
    with sole_process(DataFolder(root=config.data), "receiver"):
        pass
    with socket.create_server(("127.0.0.1", config.receive.port or 0)):
        assert told(config) == [
            ("note", "processes", "none runs"),
            (FAILS, f"dicom port {config.receive.port}", "127.0.0.1: another program uses it"),
            ("ok", f"web port {config.web.port}", "127.0.0.1: free"),
        ]


def test_a_data_folder_that_does_not_exist_is_not_made(config: Config) -> None:
    assert told(config)[0] == ("note", "processes", "none runs")
    assert not config.data.exists()


@pytest.mark.parametrize(("free", "state"), [(0, FAILS), (50 << 20, FAILS), (100 << 20, "note"), (1 << 40, "ok")])
def test_a_disk_without_a_reserve(config: Config, monkeypatch: pytest.MonkeyPatch, free: int, state: str) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((1, 1, free, free, free, 0, 0, 0, 0, 255)))
    assert next(doctor._disk(config, DataFolder(root=config.data))).state == state
