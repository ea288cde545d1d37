"""The role as a whole: threads in this process, and processes that are killed at the worst moment."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from expected import need
from support.orthanc import Orthanc, free_port, missing, running, wait_for
from support.outbox import Outbox
from support.pacs import AE_TITLE, FakePacs

from glam_deploy.appliance import dispatcher, receiver
from glam_deploy.appliance.config import Target, parse_config
from glam_deploy.appliance.state import deliveries


def text(outbox: Outbox, *targets: str, listen: str = "") -> str:
    """A configuration with the targets, each a table in TOML."""
    return "\n".join(
        [
            "license_acknowledged = true",
            f'data = "{outbox.root}"',
            '[worker]\nbundle = "bundle"',
            "[dispatch]\nfirst_retry_s = 0.1\nlongest_retry_s = 0.2\ntimeout_s = 5",
            listen,
            *(f"[[targets]]\n{target}" for target in targets),
        ]
    )


def dimse(name: str, port: int, ae_title: str = AE_TITLE) -> str:
    return f'name = "{name}"\nae_title = "{ae_title}"\nhost = "127.0.0.1"\nport = {port}'


@contextmanager
def dispatching(outbox: Outbox, *targets: str) -> Iterator[None]:
    stop, falls = threading.Event(), []

    def run() -> None:
        try:
            dispatcher.run(parse_config(text(outbox, *targets), folder=Path("/")), stop)
        except Exception as error:
            falls.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
    assert falls == []


def components(outbox: Outbox) -> dict[str, Any]:
    return {row["name"]: row for row in outbox.connection.execute("SELECT * FROM component")}


def states_of(outbox: Outbox, target: str) -> list[str]:
    rows = outbox.connection.execute("SELECT state FROM parcel WHERE target = ? ORDER BY id", (target,))
    return [row["state"] for row in rows]


def test_a_target_that_is_down_holds_up_no_other_and_says_so(outbox: Outbox, pacs: FakePacs) -> None:
    for number in range(3):
        outbox.post(f"1.2.{number}", "down", 1)
        outbox.post(f"1.3.{number}", "up", 1)
    down = FakePacs(port=free_port())
    with dispatching(outbox, dimse("down", down.port), dimse("up", pacs.port)):
        wait_for(lambda: states_of(outbox, "up") == ["delivered"] * 3, "delivery")
        wait_for(lambda: _is(outbox, "target:down", "waiting"), "the word about what is down")
        assert _is(outbox, "target:up", "ready")
        assert _is(outbox, "dispatcher", "ready")
        assert states_of(outbox, "down") == ["pending"] * 3
        with down.running():
            wait_for(lambda: states_of(outbox, "down") == ["delivered"] * 3, "delivery after it came back")
            wait_for(lambda: _is(outbox, "target:down", "ready"), "the word about what is back")


def _is(outbox: Outbox, name: str, state: str) -> bool:
    row = components(outbox).get(name)
    return row is not None and row["state"] == state


def test_results_never_go_to_ourselves(outbox: Outbox) -> None:
    outbox.post("1.2.3", "self", 1)
    ours = FakePacs()
    with ours.running():
        receive = f"[receive]\nport = {ours.port}\n"
        with dispatching(outbox, dimse("self", ours.port) + "\n" + receive):
            wait_for(lambda: _is(outbox, "target:self", "failing"), "the word about the loop")
    assert ours.associations == 0
    assert outbox.states() == ["pending"]


def test_deliveries_without_a_configured_target_are_logged(outbox: Outbox, caplog: pytest.LogCaptureFixture) -> None:
    outbox.post("1.2.3", "gone", 1)
    with dispatching(outbox):
        wait_for(lambda: "1 deliveries wait for target gone" in caplog.text, "the remark")


def process(outbox: Outbox, folder: Path, *targets: str) -> "subprocess.Popen[bytes]":
    path = folder / "glam.toml"
    path.write_text(text(outbox, *targets))
    command = [sys.executable, "-m", "glam_deploy", "serve", "--config", path, "--role", "dispatcher"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def until(outbox: Outbox, child: "subprocess.Popen[bytes]", done: Callable[[], bool]) -> None:
    try:
        wait_for(lambda: done() or child.poll() is not None, "delivery")
        assert done(), f"the dispatcher ended with {child.returncode}"
    finally:
        child.terminate()
        child.wait(20)


def test_a_dispatcher_killed_between_send_and_commit_sends_the_same_objects(outbox: Outbox, tmp_path: Path) -> None:
    """Killed when the target has the second object and has not answered yet, and again when it is asked for proof."""
    uids = [uid for number in range(2) for uid in outbox.post(f"1.2.{number}", count=3)]
    child: subprocess.Popen[bytes] | None = None

    def kill() -> None:
        assert child
        os.kill(child.pid, signal.SIGKILL)

    pacs = FakePacs(at_store={2: kill}, at_find={1: kill})
    with pacs.running():
        for _ in range(2):
            child = process(outbox, tmp_path, dimse("pacs", pacs.port))
            assert child.wait(30) == -signal.SIGKILL
            assert outbox.states() == ["pending", "pending"]
        child = process(outbox, tmp_path, dimse("pacs", pacs.port))
        until(outbox, child, lambda: outbox.states() == ["delivered"] * 2)
    assert sorted(pacs.held) == sorted(uids)
    assert pacs.arrivals[:2] == uids[:2]
    assert pacs.arrivals.count(uids[0]) == 1, "its answer was kept"
    assert pacs.arrivals.count(uids[1]) == 2
    assert child.returncode == 0


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    need("orthanc", missing())
    with running(Orthanc(tmp_path_factory.mktemp("orthanc"), free_port())) as orthanc:
        yield orthanc


def test_orthanc_over_dimse_and_stow(outbox: Outbox, orthanc: Orthanc, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("test\n")
    stow = f'name = "web"\nstow_url = "{orthanc.dicomweb}"\nstow_user = "test"\nstow_password_file = "{password}"'
    before = orthanc.get("/statistics")["CountInstances"]
    for number in range(2):
        outbox.post(f"1.2.{number}", "dimse")
        outbox.post(f"1.3.{number}", "web")
    with dispatching(outbox, dimse("dimse", orthanc.dicom_port, "TESTPACS"), stow):
        wait_for(lambda: outbox.states() == ["delivered"] * 4, "delivery to Orthanc")
    assert orthanc.get("/statistics")["CountInstances"] - before == 16


def test_orthanc_reports_commitment_to_the_receiver(outbox: Outbox, orthanc: Orthanc) -> None:
    """Orthanc opens an association of its own, to the address that it knows of our AE title."""
    senders = '[[receive.senders]]\nae_title = "TESTPACS"\nhosts = ["127.0.0.1"]'
    config = parse_config(text(outbox, listen=f"[receive]\nport = {orthanc.glam_port}\n{senders}"), folder=Path("/"))
    outbox.post("1.4.3")
    stop = threading.Event()
    receiving = threading.Thread(target=receiver.run, args=(config, stop))
    receiving.start()
    try:
        wait_for(lambda: _is(outbox, "receiver", "ready"), "the receiver")
        target = dimse("pacs", orthanc.dicom_port, "TESTPACS") + "\ncommitment = true\nquery = false"
        with dispatching(outbox, target):
            wait_for(lambda: outbox.states() == ["delivered"], "the report on storage commitment")
    finally:
        stop.set()
        receiving.join(20)
    assert set(outbox.objects().values()) == {"proven"}
    assert '"event": "association_commitment"' in outbox.audited()


def test_a_target_without_progress_is_reported_as_failing(outbox: Outbox) -> None:
    """It accepts connections and sends nothing: each attempt ends, and the state has the reason."""
    outbox.post("1.2.3", "silent", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with dispatching(outbox, f'name = "silent"\nstow_url = "http://127.0.0.1:{port}/dicom-web"'):
            told = ("waiting", "failing")
            wait_for(lambda: any(_is(outbox, "target:silent", each) for each in told), "the word about what is silent")
            wait_for(
                # the time limits of the next byte and of the whole request differ by milliseconds
                lambda: re.search(
                    "no response in time|no complete response", components(outbox)["target:silent"]["detail"]
                ),
                "its reason",
            )


def test_state_of_a_delivery_worker_without_progress(outbox: Outbox) -> None:
    target = Target(name="pacs", ae_title="PACS", host="127.0.0.1", port=104)
    worker = outbox.worker(target)
    assert dispatcher._state_of(worker, 1000.0) == ("ready", {})
    worker.progress = 1000.0
    assert dispatcher._state_of(worker, 1009.0)[0] == "ready"
    assert dispatcher._state_of(worker, 1011.0)[0] == "failing"
    worker.progress = None
    outbox.post("1.2.3", "pacs", 1)
    delivery = deliveries.next_delivery(outbox.connection, "pacs", 1000.0)
    for times, state in ((1, "ready"), (2, "failing")):
        worker.health.record_interruption(delivery.id, delivery, 1000.0, "it fell silent")
        assert dispatcher._state_of(worker, 1000.0)[0] == state, times
    assert "it fell silent (2 times" in str(dispatcher._state_of(worker, 1000.0)[1]["reason"])
    worker.health.record_success(delivery.id)
    assert dispatcher._state_of(worker, 1000.0) == ("ready", {})
