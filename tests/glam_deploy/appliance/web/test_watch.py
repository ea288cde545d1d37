"""Health and metrics."""

import json
import re
import sqlite3
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.web import Appliance, Busy

from glam_deploy.appliance.web import monitoring


def ready(appliance: Appliance) -> tuple[int, list[str]]:
    answer = appliance.visitor().get("/health/ready")
    assert answer.json()["ready"] == (answer.status_code == 200)
    return answer.status_code, answer.json()["reasons"]


def age(appliance: Appliance, name: str, seconds: float) -> None:
    """The component has said nothing for so long."""
    appliance.connection.execute("UPDATE component SET beat = beat - ? WHERE name = ?", (seconds, name))


def test_live_needs_no_token(empty: Appliance) -> None:
    answer = empty.client().get("/health/live")
    assert (answer.status_code, answer.json()) == (200, {"live": True})


def test_ready_says_yes_or_no_to_anybody_and_why_to_visitors(empty: Appliance) -> None:
    assert (empty.client().get("/health/ready").status_code, empty.client().get("/health/ready").json()) == (
        503,
        {"ready": False},
    )
    assert ready(empty) == (503, [f"the {name} has never started" for name in monitoring.PROCESSES])
    empty.beat()
    assert ready(empty) == (200, [])
    assert empty.client().get("/health/ready").json() == {"ready": True}


@pytest.mark.parametrize("name", monitoring.PROCESSES)
def test_a_process_that_is_silent(empty: Appliance, name: str) -> None:
    empty.beat()
    age(empty, name, monitoring.HEARTBEAT_TIMEOUT_S + 5)
    status, reasons = ready(empty)
    assert status == 503
    assert re.fullmatch(f"the {name} has written no heartbeat for 2[0-9] s", *reasons)


@pytest.mark.parametrize("state", ["failing", "starting"])
def test_a_worker_without_an_engine(empty: Appliance, state: str) -> None:
    empty.beat()
    empty.beat("worker", state=state)
    assert ready(empty) == (503, [f"the worker is {state}"])


def test_a_target_that_is_down_takes_nothing_from_readiness(empty: Appliance) -> None:
    empty.beat()
    empty.beat("target:pacs", state="waiting")
    age(empty, "target:pacs", 1000)
    assert ready(empty) == (200, [])


def test_a_disk_under_its_reserve(empty: Appliance, monkeypatch: pytest.MonkeyPatch) -> None:
    empty.beat()
    monkeypatch.setattr(monitoring, "free_bytes", lambda folder: -1)
    assert ready(empty) == (503, ["the disk has -1 bytes free, under the reserve of 0: instances are refused"])
    monkeypatch.setattr(monitoring, "free_bytes", lambda folder: None)
    assert ready(empty) == (503, ["the free space of the data folder's disk is unknown"])


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda path: path.write_bytes(b"no database" * 1000), "the database cannot be read (file is not a database)"),
        (lambda path: path.unlink(), "state.db cannot be read as the appliance's state (unable to open database file)"),
    ],
)
def test_a_database_that_is_lost(
    empty: Appliance, spoil: Callable[..., None], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    empty.beat()
    empty.connection.close()
    empty.context.ingest.close()
    for path in empty.context.data.root.glob("state.db*"):
        spoil(path)
    status, reasons = ready(empty)
    assert (status, len(reasons)) == (503, 1)
    assert told in reasons[0]
    assert empty.visitor().get("/").status_code == 500
    (line,) = (each for each in caplog.messages if "a request failed with" in each)
    assert "UsageError" in line or line.endswith(" (file is not a database)")


def samples(appliance: Appliance) -> dict[tuple[str, str], float]:
    """(name, labels as JSON) -> value, as Prometheus' own parser reads them."""
    families = text_string_to_metric_families(appliance.visitor().get("/metrics").text)
    return {(s.name, json.dumps(s.labels, sort_keys=True)): s.value for family in families for s in family.samples}


def of(found: dict[tuple[str, str], float], name: str, **labels: str) -> float:
    return found[name, json.dumps(labels, sort_keys=True)]


def test_metrics_of_an_empty_appliance(empty: Appliance) -> None:
    found = samples(empty)
    assert of(found, "glam_ready") == 0
    assert of(found, "glam_received_instances_total") == 0
    assert of(found, "glam_queue", stage="waiting") == 0
    assert not [name for name, _ in found if name == "glam_stage_seconds"]


def test_metrics_of_a_busy_one(busy: Busy) -> None:
    found = samples(busy.appliance)
    counts = {"receiving": 1, "waiting": 1, "working": 0, "sending": 1, "failed": 1, "undelivered": 1, "done": 2}
    for stage, count in counts.items():
        assert of(found, "glam_queue", stage=stage) == count
        assert (("glam_queue_oldest_seconds", json.dumps({"stage": stage})) in found) == (count > 0 and stage != "done")
    assert of(found, "glam_received_instances_total") == 7
    assert of(found, "glam_deliveries", target="pacs", state="delivered") == 1
    assert of(found, "glam_deliveries", target="pacs", state="dead") == 1
    assert of(found, "glam_deliveries", target="archive", state="pending") == 1
    assert of(found, "glam_undelivered_objects", target="archive", state="missing") > 0
    assert of(found, "glam_failures", code="view_failed") == 1
    assert of(found, "glam_failures", code="reception_refused") == 2
    assert of(found, "glam_failures", code="instance_quarantined") == 1
    assert of(found, "glam_refused_total", code="association") == 1
    assert of(found, "glam_failures", code="job_dead") == 1
    assert of(found, "glam_skipped", kind="instance") == 1
    assert not [labels for name, labels in found if name == "glam_failures" and "skipped" in labels]
    for stage in ("waiting", "network", "sending"):
        half, most = (of(found, "glam_stage_seconds", stage=stage, quantile=q) for q in ("0.5", "0.99"))
        assert 0 <= half <= most < 600


def test_breakers_of_targets(empty: Appliance) -> None:
    for name, state in (("a", "ready"), ("b", "waiting"), ("c", "failing")):
        empty.beat(f"target:{name}", state=state)
    found = samples(empty)
    assert [of(found, "glam_target_breaker", target=name) for name in "abc"] == [0, 1, 2]


def test_labels_name_nobody(busy: Busy) -> None:
    studies = (busy.delivered, busy.undelivered, busy.failed, busy.waiting, busy.receiving)
    names = [busy.appliance.name(uid) for uid in studies]
    text = busy.appliance.visitor().get("/metrics").text
    assert not any(word in text for word in ("CANARY", "MODALITY", *studies, *names))


def test_counters_outlive_the_retention(empty: Appliance) -> None:
    empty.receive_exam(1)
    with empty.connection as connection:
        connection.execute("DELETE FROM instance")
    assert of(samples(empty), "glam_received_instances_total") == 4
    assert empty.receive(b"no DICOM").status == 0xC000
    assert of(samples(empty), "glam_refused_total", code="C000") == 1
    assert of(samples(empty), "glam_failures", code="reception_refused") == 1
    assert isinstance(empty.connection, sqlite3.Connection)
