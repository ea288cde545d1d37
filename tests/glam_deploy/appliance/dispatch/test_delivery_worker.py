"""One target's deliveries against a PACS that misbehaves in every known way; time is set by the test."""

from collections.abc import Sequence
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import SegmentationStorage
from support.orthanc import free_port
from support.outbox import Outbox, write_items
from support.pacs import AE_TITLE, FakePacs

from glam_deploy.appliance.config import Dispatch, Target
from glam_deploy.appliance.dispatcher import DeliveryWorker
from glam_deploy.appliance.state import deliveries, overview
from glam_deploy.dicom.net.delivery import Item, Session
from glam_deploy.dicom.net.files import read_report


def target(pacs: FakePacs, **changes: Any) -> Target:
    settings = {"name": "pacs", "ae_title": AE_TITLE, "host": "127.0.0.1", "port": pacs.port}
    return Target(**settings | changes)


def exhaust(worker: DeliveryWorker) -> None:
    while worker.step():
        pass


def test_a_delivery_is_delivered_in_one_association_and_proven(outbox: Outbox, pacs: FakePacs) -> None:
    uids = outbox.post("1.2.3")
    worker = outbox.worker(target(pacs))
    assert worker.step()
    assert (pacs.arrivals, pacs.associations) == (uids, 1)
    assert outbox.states() == ["delivered"]
    assert set(outbox.objects().values()) == {"proven"}
    assert outbox.events() == ["delivered"]
    assert not worker.step()


def test_the_audit_has_each_object_and_no_uid(outbox: Outbox, pacs: FakePacs) -> None:
    uids = outbox.post("1.2.3", count=2)
    exhaust(outbox.worker(target(pacs)))
    audited = outbox.audited()
    assert [line.split('"event": "')[1].split('"')[0] for line in audited.splitlines()] == ["sent", "sent", "delivered"]
    assert not any(uid in audited for uid in (*uids, "1.2.3"))


def test_what_the_target_loses_is_sent_again(outbox: Outbox, pacs: FakePacs) -> None:
    first, second = outbox.post("1.2.3", count=2)
    pacs.loses = {second}
    worker = outbox.worker(target(pacs))
    exhaust(worker)
    assert outbox.states() == ["pending"]
    reason = "1 of 2 objects delivered, 1 not (1 1.2.3-R-CC): accepted, but the target does not show them"
    assert outbox.delivery(1)["reason"] == reason
    outbox.now += 5
    exhaust(worker)
    assert pacs.arrivals == [first, second, second]
    assert outbox.states() == ["delivered"]


def test_an_archive_that_shows_late_is_asked_again_and_nothing_is_sent_twice(outbox: Outbox, pacs: FakePacs) -> None:
    uids = outbox.post("1.2.3", count=2)
    worker = outbox.worker(target(pacs))
    hidden, pacs.held = pacs.held, {}
    pacs.loses = set(uids)
    exhaust(worker)
    assert set(outbox.objects().values()) == {"sent"}
    pacs.loses.clear()
    pacs.held = hidden | _objects_of(outbox, uids)
    outbox.now += 5
    exhaust(worker)
    assert pacs.arrivals == uids
    assert outbox.states() == ["delivered"]


def _objects_of(outbox: Outbox, uids: list[str]) -> dict[str, Any]:
    from pydicom import dcmread

    read = [dcmread(path) for path in (outbox.root / "results").glob("*.dcm")]
    return {str(dataset.SOPInstanceUID): dataset for dataset in read if dataset.SOPInstanceUID in uids}


def test_a_refused_object_does_not_hold_up_the_others_or_later_deliveries(outbox: Outbox, pacs: FakePacs) -> None:
    outbox.policy = Dispatch(attempts=3)
    bad, good = outbox.post("1.2.3", count=2)
    later = outbox.post("1.2.4", count=1)
    pacs.statuses = {bad: 0xA900}
    worker = outbox.worker(target(pacs))
    exhaust(worker)
    assert outbox.states() == ["pending", "delivered"]
    assert set(pacs.held) == {good, *later}
    for _ in range(2):
        outbox.now += 900
        exhaust(worker)
    assert outbox.states() == ["dead", "delivered"]
    assert outbox.objects()[bad] == "dead"
    assert "status 0xA900" in outbox.delivery(1)["reason"]
    assert pacs.arrivals.count(bad) == 3
    assert pacs.arrivals.count(good) == 1
    assert outbox.events() == ["delivered", "undeliverable"]


@pytest.mark.parametrize("query", [True, False])
def test_a_class_that_the_target_lacks_is_told_and_only_its_objects_are_sent_again(
    outbox: Outbox, pacs: FakePacs, query: bool
) -> None:
    outbox.policy = Dispatch(attempts=1)
    items = write_items(outbox.root / "results", "1.2.3")
    for item in items[:2]:
        dataset = dcmread(item.path)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = SegmentationStorage
        dataset.save_as(item.path)
    outbox.post_items("1.2.3", "pacs", items)
    worker = outbox.worker(target(pacs, query=query))
    exhaust(worker)
    arrived = [item.sop_uid for item in items[2:]]
    assert (outbox.states(), sorted(pacs.arrivals)) == (["dead"], sorted(arrived))
    assert outbox.delivery(1)["reason"].startswith(
        "2 of 4 objects delivered, 2 not (1 1.2.3-L-CC, 1 1.2.3-R-CC): the target accepts no Segmentation Storage"
    )
    assert {uid for uid, state in outbox.objects().items() if state in ("sent", "proven")} == set(arrived)
    assert overview.undelivered_objects(outbox.connection) == {("pacs", "arrived"): 2, ("pacs", "missing"): 2}

    able = FakePacs(classes=[*pacs.classes, SegmentationStorage], held=dict(pacs.held))
    with able.running():
        deliveries.retry(outbox.connection, 1)
        exhaust(outbox.worker(target(able, query=query)))
    assert sorted(able.arrivals) == sorted(item.sop_uid for item in items[:2])
    assert outbox.states() == ["delivered"]


def test_a_dead_delivery_is_sent_again_by_hand(outbox: Outbox, pacs: FakePacs) -> None:
    outbox.policy = Dispatch(attempts=1)
    (uid,) = outbox.post("1.2.3", count=1)
    pacs.statuses = {uid: 0xC000}
    worker = outbox.worker(target(pacs))
    exhaust(worker)
    assert outbox.states() == ["dead"]
    pacs.statuses = {}
    deliveries.retry(outbox.connection, 1)
    exhaust(worker)
    assert outbox.states() == ["delivered"]


def test_a_refusal_because_it_is_there_already_is_proof(outbox: Outbox, pacs: FakePacs) -> None:
    (uid,) = outbox.post("1.2.3", count=1)
    pacs.held = _objects_of(outbox, [uid])
    pacs.statuses = {uid: 0x0111}
    exhaust(outbox.worker(target(pacs)))
    assert outbox.states() == ["delivered"]


def test_a_delivery_that_makes_the_target_abort_does_not_hold_up_later_ones(outbox: Outbox, pacs: FakePacs) -> None:
    outbox.policy = Dispatch(attempts=2)
    (bad,) = outbox.post("1.2.3", count=1)
    pacs.aborts = {bad}
    worker = outbox.worker(target(pacs))
    exhaust(worker)
    assert outbox.delivery(1)["attempts"] == 0, "the cause of the failure is not known yet"
    for study in ("1.2.4", "1.2.5"):
        outbox.post(study, count=1)
        outbox.now += 900
        exhaust(worker)
    assert outbox.states() == ["dead", "delivered", "delivered"]
    assert "ended the association" in outbox.delivery(1)["reason"]


def test_a_target_that_hangs_is_left_after_its_timeout(outbox: Outbox, pacs: FakePacs) -> None:
    outbox.policy = Dispatch(timeout_s=2)  # the second must be done within it, on a busy machine too
    (bad,) = outbox.post("1.2.3", count=1)
    outbox.post("1.2.4", count=1)
    pacs.hangs = {bad}
    exhaust(outbox.worker(target(pacs)))
    assert outbox.states() == ["pending", "delivered"]
    assert outbox.delivery(1)["attempts"] == 1


def test_a_target_without_room_makes_all_wait_and_costs_one_attempt_at_most(outbox: Outbox, pacs: FakePacs) -> None:
    for study in ("1.2.3", "1.2.4", "1.2.5"):
        outbox.post(study, count=1)
    pacs.status = 0xA700
    worker = outbox.worker(target(pacs))
    for _ in range(5):
        exhaust(worker)
        outbox.now += 900
    assert "out of resources" in worker.health.reason
    assert outbox.states() == ["pending"] * 3
    pacs.status = None
    for _ in range(3):
        exhaust(worker)
        outbox.now += 900
    assert outbox.states() == ["delivered"] * 3
    assert max(outbox.delivery(number)["attempts"] for number in (1, 2, 3)) <= 1


def test_a_target_that_is_down_gets_all_in_order_when_it_is_back(outbox: Outbox) -> None:
    pacs = FakePacs(port=free_port())
    uids = [uid for number in range(6) for uid in outbox.post(f"1.2.{number}", count=1)]
    worker = outbox.worker(target(pacs))
    for _ in range(30):
        exhaust(worker)
        outbox.now += 60
    assert all(outbox.delivery(number)["attempts"] == 0 for number in (1, 2, 6))
    assert "Connection refused" in worker.health.reason
    with pacs.running():
        outbox.now += 900
        exhaust(worker)
    assert pacs.arrivals == uids
    assert outbox.states() == ["delivered"] * 6
    assert worker.health.reason == ""


def test_whoever_has_repaired_a_target_need_not_wait(outbox: Outbox) -> None:
    pacs = FakePacs(port=free_port())
    uids = [uid for study in ("1.2.3", "1.2.4", "1.2.5") for uid in outbox.post(study, count=1)]
    worker = outbox.worker(target(pacs))
    for _ in range(12):
        exhaust(worker)
        outbox.now += 900
    exhaust(worker)
    deliveries.retry(outbox.connection, 2)
    assert worker.step(), "it is tried, in vain"
    assert not worker.step(), "and once only"
    assert worker.health.not_before == outbox.now + outbox.policy.first_retry_s
    with pacs.running():
        assert not worker.step()
        deliveries.retry(outbox.connection, 2)
        exhaust(worker)
    assert pacs.arrivals == uids, "in order of arrival all the same"
    assert outbox.states() == ["delivered"] * 3


def test_one_delivery_that_is_retried_brings_all_that_were_put_off(outbox: Outbox) -> None:
    uids = [uid for study in ("1.2.3", "1.2.4") for uid in outbox.post(study, count=1)]
    with FakePacs(finds=False).running() as deaf:
        exhaust(outbox.worker(target(deaf)))
    with FakePacs(held=dict(deaf.held)).running() as pacs:
        worker = outbox.worker(target(pacs))
        assert not worker.step()
        deliveries.retry(outbox.connection, 2)
        exhaust(worker)
    assert (deaf.arrivals, pacs.arrivals) == (uids, [])
    assert outbox.states() == ["delivered"] * 2


def test_without_query_the_status_is_enough(outbox: Outbox) -> None:
    outbox.post("1.2.3")
    with FakePacs(finds=False).running() as pacs:
        exhaust(outbox.worker(target(pacs, query=False)))
    assert outbox.states() == ["delivered"]
    assert set(outbox.objects().values()) == {"sent"}


def test_a_target_that_answers_no_query_keeps_deliveries_alive_until_a_person_decides(outbox: Outbox) -> None:
    outbox.policy = Dispatch(attempts=1)
    uids = [uid for study in ("1.2.3", "1.2.4") for uid in outbox.post(study, count=1)]
    with FakePacs(finds=False).running() as pacs:
        worker = outbox.worker(target(pacs))
        for _ in range(3):
            exhaust(worker)
            outbox.now += 900
        assert outbox.states() == ["pending", "pending"]
        assert "set `query = false`" in worker.health.reason
        assert pacs.arrivals == uids, "sent once, however often it is asked"
        exhaust(outbox.worker(target(pacs, query=False)))
    assert outbox.states() == ["delivered", "delivered"]


def test_commitment_on_the_same_association_is_proof(outbox: Outbox) -> None:
    outbox.post("1.2.3")
    with FakePacs(commits="same", finds=False).running() as pacs:
        exhaust(outbox.worker(target(pacs, commitment=True)))
    assert outbox.states() == ["delivered"]
    assert set(outbox.objects().values()) == {"proven"}


def test_what_a_target_does_not_commit_itself_to_is_sent_again(outbox: Outbox) -> None:
    first, second = outbox.post("1.2.3", count=2)
    with FakePacs(commits="same", loses={second}).running() as pacs:
        worker = outbox.worker(target(pacs, commitment=True))
        exhaust(worker)
        assert outbox.objects() == {first: "proven", second: "pending"}
        assert "does not keep it (storage commitment)" in outbox.delivery(1)["reason"]
        outbox.now += 5
        exhaust(worker)
    assert outbox.states() == ["delivered"]
    assert pacs.arrivals == [first, second, second]


def test_commitment_that_is_reported_later_closes_the_delivery(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glam_deploy.appliance.dispatcher.COMMITMENT_S", 0.05)
    uids = outbox.post("1.2.3", count=2)
    with FakePacs(commits="later").running() as pacs:
        exhaust(outbox.worker(target(pacs, commitment=True)))
        assert outbox.states() == ["pending"]
        report = read_report(pacs.report)
    assert report.transaction_uid == outbox.delivery(1)["commitment"]
    assert deliveries.apply_commitment_report(
        outbox.connection, report.transaction_uid, committed=report.committed, failed=report.failed
    )
    assert (outbox.states(), pacs.arrivals) == (["delivered"], uids)


def test_a_fault_of_ours_is_that_deliverys_and_names_no_patient(outbox: Outbox, pacs: FakePacs) -> None:
    outbox.post("1.2.3", count=1)
    outbox.post("1.2.4", count=1)
    worker = outbox.worker(target(pacs))

    class Faulty:
        def session(self, items: Sequence[Item]) -> Session:
            if "1.2.3" in items[0].path.name:
                raise KeyError("CANARY^NAME")
            return client.session(items)

        def check_reachable(self) -> None:
            client.check_reachable()

    client, worker.client = worker.client, Faulty()
    exhaust(worker)
    assert outbox.states() == ["pending", "delivered"]
    assert "KeyError" in outbox.delivery(1)["reason"]
    assert "CANARY" not in outbox.delivery(1)["reason"]


def test_a_file_that_has_gone_is_that_deliverys_fault(outbox: Outbox, pacs: FakePacs) -> None:
    outbox.post("1.2.3", count=1)
    outbox.post("1.2.4", count=1)
    next((outbox.root / "results").glob("1.2.3-*.dcm")).unlink()
    exhaust(outbox.worker(target(pacs)))
    assert outbox.states() == ["pending", "delivered"]
    assert "cannot be read" in outbox.delivery(1)["reason"]


def test_after_a_restoration_a_target_is_asked_before_anything_is_sent(outbox: Outbox, pacs: FakePacs) -> None:
    """It may hold what was sent after the backup was made."""
    uids = outbox.post("held"), outbox.post("lacks")
    pacs.held = {uid: each for uid, each in _objects_of(outbox, uids[0] + uids[1]).items() if uid in uids[0]}
    deliveries.ask_before_sending(outbox.connection, ["pacs"])
    exhaust(outbox.worker(target(pacs)))
    assert outbox.states() == ["delivered", "delivered"]
    assert sorted(pacs.arrivals) == sorted(uids[1])


def test_a_hold_is_a_reason_of_the_target_and_ends(outbox: Outbox, pacs: FakePacs) -> None:
    """Nothing is sent after it has begun, not even the rest of a delivery."""
    outbox.post("first")
    worker = outbox.worker(target(pacs))
    pacs.at_store = {2: lambda: setattr(worker, "hold", lambda: "another node has taken over")}
    exhaust(worker)
    assert len(pacs.arrivals) == 2
    assert (outbox.states(), worker.health.reason) == (["pending"], "another node has taken over")
    worker.hold = lambda: ""
    exhaust(worker)
    assert (outbox.states(), worker.health.reason, len(pacs.arrivals)) == (["delivered"], "", 4)
