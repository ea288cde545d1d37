"""The dispatcher as a whole, and what an administrator sees of notifications: page, metrics, queue, doctor."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.notify import Site, entry, exhaust
from support.receivers import Hl7Receiver, Request, WebReceiver
from support.until import until
from support.web import DEATH

from glam_deploy.appliance import dispatcher
from glam_deploy.appliance.config import Config, Dispatch
from glam_deploy.appliance.state import notifications, overview, study_detail
from glam_deploy.cli import check_config, doctor, queue
from glam_deploy.cli.doctor_notify import notify_findings
from glam_deploy.cli.main import exit_code
from glam_deploy.records import View


def configured(site: Site, *entries: object, **changes: object) -> Config:
    """The appliance's configuration with entries of [[notify]], now also that of its page."""
    config = site.made.context.config
    made = config.model_copy(update={"notify": entries, "dispatch": Dispatch(attempts=1, timeout_s=5), **changes})
    object.__setattr__(site.made.context, "config", made)
    return made


def dead_notification(site: Site) -> str:
    """A study whose dead job a receiver refuses to hear of."""
    study = site.made.receive_exam(1, (View.L_CC,))
    site.made.assemble()
    site.made.kill_job(DEATH)
    site.queue()
    with Hl7Receiver(code="AE").running() as server:
        exhaust(site.worker(entry(kind="hl7", host="127.0.0.1", port=server.port), attempts=1))
    assert site.states() == [("failed", "dead")]
    return site.made.name(study)


def test_the_role_tells_of_events_and_one_receiver_holds_up_no_other(site: Site) -> None:
    site.made.receive_exam(1, (View.L_CC,))
    site.made.assemble()
    site.made.kill_job(DEATH)
    with Hl7Receiver().running() as up, WebReceiver(answer=lambda request: (503, b"")).running() as down:
        config = configured(
            site,
            entry(kind="hl7", host="127.0.0.1", port=up.port),
            entry(kind="fhir", url=down.url).model_copy(update={"name": "down"}),
            targets=(),
        )
        stop = threading.Event()
        thread = threading.Thread(target=dispatcher.run, args=(config, stop))
        thread.start()
        try:
            until(lambda: len(up.messages) == 1 and len(down.posts) > 0)
            until(lambda: sorted(site.states()) == [("failed", "delivered"), ("failed", "pending")])
            until(lambda: _state(site, "target:down") == "waiting")
        finally:
            stop.set()
            thread.join()
    assert _state(site, "target:ris") == "ready"


def test_a_dispatcher_killed_before_it_records_a_confirmation_sends_the_same_message_again(
    site: Site, tmp_path: Path
) -> None:
    site.made.receive_exam(1, (View.L_CC,))
    site.made.assemble()
    site.made.kill_job(DEATH)
    child: subprocess.Popen[bytes] | None = None
    kills = iter([True, False])

    def answer(request: Request) -> tuple[int, bytes]:
        if next(kills):
            assert child
            child.kill()
            child.wait()
        return 204, b""

    (tmp_path / "secret").write_text(f"whsec_{'A' * 40}")
    with WebReceiver(answer=answer).running() as server:
        (tmp_path / "glam.toml").write_text(
            f'license_acknowledged = true\ndata = "{site.made.context.data.root}"\n[worker]\nbundle = "b"\n'
            f'[[notify]]\nname = "ris"\nkind = "webhook"\nurl = "{server.url}"\nsecret_file = "secret"\n'
        )
        command = [sys.executable, "-m", "glam_deploy", "serve", "--config", tmp_path / "glam.toml"]
        for _ in range(2):
            before = len(server.requests)
            child = subprocess.Popen([*command, "--role", "dispatcher"], stderr=subprocess.DEVNULL)
            until(lambda before=before: len(server.requests) > before)  # type: ignore[misc]
            if len(server.requests) == 2:
                until(lambda: site.states() == [("failed", "delivered")])
                child.terminate()
            child.wait(60)
    first, second = server.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body


def _state(site: Site, name: str) -> str:
    row = site.made.connection.execute("SELECT state FROM component WHERE name = ?", (name,)).fetchone()
    return row["state"] if row else ""


def test_the_page_and_the_metrics_show_a_dead_notification_and_its_retry(site: Site) -> None:
    name = dead_notification(site)
    configured(site, entry(kind="hl7", host="127.0.0.1", port=1))
    site.made.beat()
    visitor = site.made.visitor()
    for path in (f"/study/{name}", "/failures"):
        assert "acknowledges with AE" in visitor.get(path).text
        assert 'action="/notifications/1/retry"' in visitor.get(path).text
    assert "notifications: HL7 v2" in visitor.get("/").text
    metrics = visitor.get("/metrics").text
    for line in (
        'glam_deliveries{state="dead",target="ris"} 1.0',
        'glam_failures{code="notification_dead"} 1.0',
        'glam_queue{stage="undelivered"} 1.0',
    ):
        assert line in metrics
    page = visitor.get(f"/study/{name}").text
    form = {"study": name, "form_token": page.partition('name="form_token" value="')[2].partition('"')[0]}
    assert visitor.post("/notifications/1/retry", data=form).status_code == 303
    assert site.states() == [("failed", "pending")]


def test_the_page_shows_the_triage_flag_only_with_a_threshold(site: Site) -> None:
    study = site.made.receive_exam(1)
    site.made.assemble()
    site.made.work()
    page = f"/study/{site.made.name(study)}"
    assert "Triage flag" not in site.made.visitor().get(page).text
    config = site.made.context.config
    results = config.results.model_copy(update={"triage_threshold": 0.001})
    configured(site, results=results)
    text = site.made.visitor().get(page).text
    assert "Triage flag of this site: set" in text
    assert "not a diagnosis" in text


def test_a_study_with_an_open_notification_is_unfinished(site: Site) -> None:
    study = site.made.receive_exam(1, (View.L_CC,))
    site.made.assemble()
    site.made.work()
    site.deliver_all()
    connection = site.made.connection
    assert [line.stage for line in study_detail.find_studies(connection, study)] == ["delivered"]
    site.queue()
    assert [line.stage for line in study_detail.studies(connection, "sending")] == ["sending"]
    notifications.count_failed_attempt(connection, 1, "refused", 0.0, attempts=1)
    (line,) = study_detail.studies(connection, "undelivered")
    assert (line.stage, line.reason) == ("undelivered", "ris: refused")
    assert {each.target: each.dead for each in overview.targets(connection)}["ris"] == 1


@pytest.fixture
def run(site: Site, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """A command of `queue` with the appliance's configuration."""
    for module in (queue, doctor, check_config):
        monkeypatch.setattr(module, "read_config", lambda path: site.made.context.config)

    def command(*words: str) -> int:
        return exit_code(["queue", *words])

    return command


def test_queue_shows_retries_and_discards_notifications(
    site: Site, run: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    name = dead_notification(site)
    assert run("show", name) == 0
    assert "notification 1 to ris, failed  dead, 1 attempts" in capsys.readouterr().out
    assert run("retry", "--target", "ris") == 0
    shown = capsys.readouterr()
    assert f"{name}  notification 1 retried" in shown.out
    assert "until [[notify]] has it" in shown.err
    assert site.states() == [("failed", "pending")]
    assert run("discard", "--target", "ris", "--yes") == 0
    assert site.states() == [("failed", "discarded")]
    assert [line for line in site.made.audited() if "notification_discarded" in line]


def test_doctor_connects_to_each_receiver_and_names_faults(site: Site, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("no secret")
    secret.chmod(0o604)
    with Hl7Receiver().running() as server, WebReceiver().running() as web:
        config = configured(
            site,
            entry(kind="hl7", host="127.0.0.1", port=server.port),
            entry(kind="webhook", url=web.url, secret_file=secret).model_copy(update={"name": "hook"}),
        )
        found = [(each.state, each.what, each.found) for each in notify_findings(config, {})]
    assert [each[:2] for each in found] == [("ok", "notify ris"), ("FAILS", "notify hook"), ("note", "notify hook")]
    assert "accepts connections, without TLS" in found[0][2]
    assert "openssl rand" in found[1][2]
    assert server.messages == []
