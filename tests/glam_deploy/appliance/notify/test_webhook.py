"""Webhooks, verified by the reference implementation of Standard Webhooks."""

import base64
import secrets
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from support.certificates import Authority
from support.notify import Site, entry, exhaust
from support.receivers import WebReceiver
from support.web import CANARY, exam

from glam_deploy.appliance.config import Notify
from glam_deploy.appliance.state import notifications
from glam_deploy.errors import PeerError
from glam_deploy.records import View


@pytest.fixture
def secret(tmp_path: Path) -> str:
    text = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
    (tmp_path / "webhook.secret").write_text(text + "\n")
    return text


def webhook(receiver: WebReceiver, tmp_path: Path, **more: object) -> Notify:
    return entry(
        kind="webhook",
        url=f"{receiver.url}/glam",
        secret_file=tmp_path / "webhook.secret",
        authority=receiver.authority,
        **more,
    )


def test_a_delivered_study_is_told_over_tls_and_its_signature_verifies(
    site: Site, certificates: Authority, tmp_path: Path, secret: str
) -> None:
    study = site.made.receive_exam(1)
    site.made.assemble()
    site.made.work()
    site.deliver_all()
    assert site.queue() == 1
    with WebReceiver().running(certificates) as receiver:
        exhaust(site.worker(webhook(receiver, tmp_path)))
    (request,) = receiver.requests
    data = Webhook(secret).verify(request.body, dict(request.headers))
    assert (request.path, data["type"]) == ("/glam", "study.delivered")
    assert data["data"]["study"] == {"pseudonym": site.made.name(study)}
    assert [view["view"] for view in data["data"]["views"]] == [str(view) for view in View]
    assert data["data"]["deliveries"] == {"pacs": "delivered", "archive": "delivered"}
    assert site.states() == [("delivered", "delivered")]
    assert not any(text in request.body.decode() for text in (CANARY.patient_id, CANARY.patient_name, study))
    with pytest.raises(WebhookVerificationError):
        Webhook(secret).verify(request.body.replace(b"delivered", b"DELIVERED"), dict(request.headers))
    assert exam(1).patient_id not in "".join(site.made.audited())


def test_a_repeat_has_the_same_id_and_content(site: Site, certificates: Authority, tmp_path: Path, secret: str) -> None:
    site.made.receive_exam(1, (View.L_CC,))
    site.made.assemble()
    site.made.work()
    site.deliver_all()
    site.queue()
    codes = iter([500, 503, 204])
    with WebReceiver(
        answer=lambda request: (next(codes) if request.method == "POST" else 404, b"")
    ).running() as server:
        worker = site.worker(webhook(server, tmp_path))
        for _ in range(3):
            exhaust(worker)
            site.now += 900
    assert len({request.headers["webhook-id"] for request in server.posts}) == 1
    assert len({request.body for request in server.posts}) == 1
    assert [request.method for request in server.requests] == ["POST", "OPTIONS", "POST", "OPTIONS", "POST"]
    assert site.states() == [("delivered", "delivered")]


def test_a_refused_message_is_dead_after_its_attempts_and_can_be_retried(
    site: Site, tmp_path: Path, secret: str
) -> None:
    site.made.receive_exam(1, (View.L_CC,))
    site.made.assemble()
    site.made.kill_job("3 workers ended while processing it")
    site.queue()
    status = 422
    with WebReceiver(answer=lambda request: (status, b"patient CANARY")).running() as server:
        worker = site.worker(webhook(server, tmp_path))
        for _ in range(4):
            exhaust(worker)
            site.now += 900
        assert (site.states(), len(server.posts)) == ([("failed", "dead")], 3)
        (row,) = site.made.connection.execute("SELECT * FROM notification").fetchall()
        assert row["reason"] == f"{server.url}/glam answers 422 Unprocessable Entity"
        notifications.retry(site.made.connection, row["id"])
        (row,) = site.made.connection.execute("SELECT * FROM notification").fetchall()
        assert row["reason"] is None, "a state that is over"
        status = 401
        exhaust(worker)
        (row,) = site.made.connection.execute("SELECT * FROM notification").fetchall()
        assert "answers 401 Unauthorized" in row["reason"]
        site.now += 900
        status = 200
        exhaust(worker)
    assert site.states() == [("failed", "delivered")]
    assert '"not_notified"' in "".join(site.made.audited())


@pytest.mark.parametrize("status", [401, 403, 302])
def test_a_receiver_that_denies_access_gets_no_second_message_before_its_time(
    site: Site, tmp_path: Path, secret: str, status: int
) -> None:
    for number in (1, 2):
        site.made.receive_exam(number, (View.L_CC,))
    site.made.assemble()
    for _ in (1, 2):
        site.made.kill_job("3 workers ended while processing it")
    site.queue()
    with WebReceiver(answer=lambda request: (status, b"")).running() as server:
        worker = site.worker(webhook(server, tmp_path))
        exhaust(worker)
        assert len(server.posts) == 1
        assert str(status) in worker.health.reason
    assert site.states() == [("failed", "pending")] * 2


def test_identifiers_are_sent_only_if_the_entry_says_so(site: Site, tmp_path: Path, secret: str) -> None:
    study = site.made.receive_exam(1, (View.L_CC,))
    site.made.assemble()
    site.made.work()
    site.deliver_all()
    site.queue()
    with WebReceiver().running() as server:
        exhaust(site.worker(webhook(server, tmp_path, identifiers=True)))
    told = server.posts[0].json()["data"]["study"]
    assert (told["study_instance_uid"], told["patient_id"]) == (study, CANARY.patient_id)


@pytest.mark.parametrize(
    "text", ["", "whsec_", "whsec_c2hvcnQ=", "c2VjcmV0LXdpdGhvdXQtcHJlZml4LTAxMjM0NTY3ODk=", "whsec_%"]
)
def test_a_secret_that_is_none_is_named(site: Site, tmp_path: Path, text: str) -> None:
    (tmp_path / "webhook.secret").write_text(text)
    with WebReceiver().running() as server, pytest.raises(PeerError, match=r"webhook\.secret"):
        site.worker(webhook(server, tmp_path)).client.check()
    assert not server.requests


def test_another_authority_is_not_trusted(site: Site, certificates: Authority, tmp_path: Path, secret: str) -> None:
    with WebReceiver().running(certificates) as server:
        server.authority = Authority(tmp_path / "other").authority
        with pytest.raises(PeerError, match="no TLS connection"):
            site.worker(webhook(server, tmp_path)).client.check()
