"""Transitions of deliveries and their objects that a delivery worker alone does not show."""

import pytest
from support.outbox import MG, Outbox

from glam_deploy.appliance.state import deliveries
from glam_deploy.appliance.state.database import transaction
from glam_deploy.appliance.state.deliveries import ResultObject
from glam_deploy.errors import UsageError


def result(uid: str) -> ResultObject:
    return ResultObject(kind="seg", sop_uid=uid, sop_class=MG, path=f"results/{uid}.dcm")


def job(outbox: Outbox, key: str, study: str = "1.2") -> int:
    with transaction(outbox.connection):
        outbox.connection.execute(
            "INSERT OR IGNORE INTO study (study_uid, pseudonym, state, opened, touched, opened_at, touched_at)"
            " VALUES (?, ?, 'assembled', 0, 0, 0, 0)",
            (study, f"p-{study}"),
        )
        made = outbox.connection.execute(
            "INSERT INTO job (study_uid, key, state, created_at) VALUES (?, ?, 'done', 0)", (study, key)
        )
    assert made.lastrowid
    return made.lastrowid


def enqueue(outbox: Outbox, job_id: int, targets: list[str], *uids: str) -> None:
    with transaction(outbox.connection):
        deliveries.enqueue(outbox.connection, job_id, {target: [result(uid) for uid in uids] for target in targets})


def belongs(outbox: Outbox) -> dict[tuple[str, str], tuple[int, str]]:
    rows = outbox.connection.execute("SELECT target, sop_uid, parcel_id, state FROM parcel_object")
    return {(row["target"], row["sop_uid"]): (row["parcel_id"], row["state"]) for row in rows}


def objects(outbox: Outbox, target: str = "x") -> dict[str, tuple[str, str | None]]:
    """SOP Instance UID -> state and reason."""
    rows = outbox.connection.execute("SELECT * FROM parcel_object WHERE target = ?", (target,))
    return {row["sop_uid"]: (row["state"], row["reason"]) for row in rows}


def timeline(outbox: Outbox) -> list[tuple[str, str, str]]:
    return [tuple(row) for row in outbox.connection.execute("SELECT study_uid, what, detail FROM event ORDER BY id")]


def notified(outbox: Outbox) -> list[tuple[int, str, str]]:
    rows = outbox.connection.execute("SELECT job_id, event, reason FROM notify_event ORDER BY id")
    return [tuple(row) for row in rows]


def test_reports_go_last(outbox: Outbox) -> None:
    number = job(outbox, "a")
    cad = ResultObject(kind="seg", sop_uid="1.1", sop_class="1.2.840.10008.5.1.4.1.1.88.50", path="results/a.dcm")
    with transaction(outbox.connection):
        deliveries.enqueue(outbox.connection, number, {"x": [cad, result("1.3"), result("1.2")]})
    assert [each.sop_uid for each in deliveries.unproven(outbox.connection, 1)] == ["1.2", "1.3", "1.1"]


def test_an_object_goes_to_a_target_once(outbox: Outbox) -> None:
    enqueue(outbox, job(outbox, "a"), ["x", "y"], "1.1", "1.2")
    enqueue(outbox, job(outbox, "b"), ["x", "y"], "1.2", "1.3")
    assert belongs(outbox) == {
        ("x", "1.1"): (1, "pending"), ("x", "1.2"): (1, "pending"), ("x", "1.3"): (3, "pending"),
        ("y", "1.1"): (2, "pending"), ("y", "1.2"): (2, "pending"), ("y", "1.3"): (4, "pending"),
    }  # fmt: skip


def test_a_job_that_is_finished_twice_has_its_deliveries_once(outbox: Outbox) -> None:
    number = job(outbox, "a")
    for _ in range(2):
        enqueue(outbox, number, ["x"], "1.1")
    assert outbox.states() == ["pending"]


@pytest.mark.parametrize("end", ["dead", "discarded"])
def test_what_died_with_an_earlier_delivery_goes_with_the_next_that_needs_it(outbox: Outbox, end: str) -> None:
    enqueue(outbox, job(outbox, "a"), ["x"], "1.1", "1.2")
    deliveries.mark_sent(outbox.connection, 1, "1.1")
    deliveries.mark_proven(outbox.connection, 1, ["1.1"])
    if end == "dead":
        assert deliveries.count_failed_attempt(outbox.connection, 1, "no", 0, attempts=1) == "dead"
    else:
        deliveries.discard(outbox.connection, 1)
    enqueue(outbox, job(outbox, "b"), ["x"], "1.1", "1.2", "1.3")
    assert belongs(outbox) == {("x", "1.1"): (1, "proven"), ("x", "1.2"): (2, "pending"), ("x", "1.3"): (2, "pending")}


def test_a_delivery_with_nothing_of_its_own_is_delivered(outbox: Outbox) -> None:
    enqueue(outbox, job(outbox, "a"), ["x"], "1.1")
    enqueue(outbox, job(outbox, "b"), ["x"], "1.1")
    assert deliveries.complete(outbox.connection, 2, proof=True)
    assert not deliveries.complete(outbox.connection, 1, proof=True)


def test_sent_is_enough_where_no_proof_is_asked_for(outbox: Outbox) -> None:
    enqueue(outbox, job(outbox, "a"), ["x"], "1.1")
    deliveries.mark_sent(outbox.connection, 1, "1.1")
    assert not deliveries.complete(outbox.connection, 1, proof=True)
    assert deliveries.complete(outbox.connection, 1, proof=False)
    assert outbox.events() == ["delivered"]


def test_what_a_person_discards_stays_discarded(outbox: Outbox) -> None:
    """Though the dispatcher was at it."""
    enqueue(outbox, job(outbox, "a"), ["x"], "1.1")
    deliveries.discard(outbox.connection, 1)
    deliveries.mark_sent(outbox.connection, 1, "1.1")
    deliveries.postpone(outbox.connection, 1, "late", 5)
    assert deliveries.count_failed_attempt(outbox.connection, 1, "late", 5, attempts=1) == "discarded"
    assert not deliveries.complete(outbox.connection, 1, proof=False)
    assert (outbox.states(), belongs(outbox)) == (["discarded"], {("x", "1.1"): (1, "dead")})


@pytest.mark.parametrize("act", [deliveries.retry, deliveries.discard])
def test_only_what_waits_or_is_dead_is_taken_up_by_hand(outbox: Outbox, act: object) -> None:
    assert callable(act)
    enqueue(outbox, job(outbox, "a"), ["x"])
    assert deliveries.complete(outbox.connection, 1, proof=True)
    for number, told in ((1, "is delivered"), (7, "does not exist")):
        with pytest.raises(UsageError, match=f"delivery {number} {told}"):
            act(outbox.connection, number)


def test_retry_starts_from_the_beginning(outbox: Outbox) -> None:
    enqueue(outbox, job(outbox, "a"), ["x"], "1.1")
    assert deliveries.count_failed_attempt(outbox.connection, 1, "refused", 99, attempts=1) == "dead"
    assert deliveries.next_delivery(outbox.connection, "x", 1000) is None
    deliveries.retry(outbox.connection, 1)
    delivery = deliveries.next_delivery(outbox.connection, "x", 0)
    assert delivery
    assert (delivery.id, delivery.attempts, delivery.pseudonym) == (1, 0, "p-1.2")
    assert belongs(outbox) == {("x", "1.1"): (1, "pending")}


def test_a_wish_to_retry_is_taken_once_and_is_no_other_targets(outbox: Outbox) -> None:
    enqueue(outbox, job(outbox, "a"), ["x", "y"], "1.1")
    deliveries.retry(outbox.connection, 1)
    assert [deliveries.take_retry_request(outbox.connection, name) for name in "yxx"] == [False, True, False]


def test_a_wish_that_comes_during_a_try_in_vain_stands(outbox: Outbox) -> None:
    enqueue(outbox, job(outbox, "a"), ["x"], "1.1")
    for in_vain in (
        lambda: deliveries.postpone(outbox.connection, 1, "late", 99),
        lambda: deliveries.count_failed_attempt(outbox.connection, 1, "refused", 99, attempts=9),
    ):
        deliveries.retry(outbox.connection, 1)
        in_vain()
        assert deliveries.take_retry_request(outbox.connection, "x")
        assert deliveries.next_delivery(outbox.connection, "x", 1)


def test_what_is_undelivered_to_a_target(outbox: Outbox) -> None:
    for key in "abc":
        enqueue(outbox, job(outbox, key), ["x", "y"], f"1.{ord(key)}")
    deliveries.count_failed_attempt(outbox.connection, 1, "refused", 0, attempts=1)
    deliveries.discard(outbox.connection, 3)
    assert [tuple(row) for row in deliveries.undelivered(outbox.connection, "x")] == [
        (1, "x", "1.2", "p-1.2"), (5, "x", "1.2", "p-1.2")]  # fmt: skip


def test_whose_turn_it_is(outbox: Outbox) -> None:
    for key in "abc":
        enqueue(outbox, job(outbox, key), ["x"], f"1.{ord(key)}")
    deliveries.postpone(outbox.connection, 1, "later", 50)

    def turn(now: float, *last: int) -> int:
        delivery = deliveries.next_delivery(outbox.connection, "x", now, last=last)
        assert delivery
        return delivery.id

    assert (turn(49), turn(50), turn(49, 2), turn(50, 1, 2, 3)) == (2, 1, 3, 1)


def test_deliveries_for_a_target_that_the_configuration_lacks(outbox: Outbox) -> None:
    for key in "ab":
        enqueue(outbox, job(outbox, key), ["x", "old"], f"1.{ord(key)}")
    assert deliveries.unconfigured_targets(outbox.connection, ["x"]) == {"old": 2}


def test_a_report_closes_the_delivery_that_waits_for_it(outbox: Outbox) -> None:
    enqueue(outbox, job(outbox, "a"), ["x"], "1.1", "1.2")
    for uid in ("1.1", "1.2"):
        deliveries.mark_sent(outbox.connection, 1, uid)
    deliveries.record_commitment_request(outbox.connection, 1, "2.25.1")
    assert not deliveries.apply_commitment_report(outbox.connection, "2.25.9", committed=["1.1", "1.2"], failed=[])
    assert deliveries.apply_commitment_report(outbox.connection, "2.25.1", committed=["1.1", "1.7"], failed=["1.2"])
    assert belongs(outbox) == {("x", "1.1"): (1, "proven"), ("x", "1.2"): (1, "pending")}
    deliveries.mark_sent(outbox.connection, 1, "1.2")
    assert deliveries.apply_commitment_report(outbox.connection, "2.25.1", committed=["1.2"], failed=[])
    assert outbox.states() == ["delivered"]
    assert deliveries.apply_commitment_report(outbox.connection, "2.25.1", committed=[], failed=["1.1"]), (
        "a late word changes nothing"
    )
    assert belongs(outbox)["x", "1.1"] == (1, "proven")


def test_a_report_on_some_objects_leaves_the_others_sent(outbox: Outbox) -> None:
    enqueue(outbox, job(outbox, "a"), ["x"], "1.1", "1.2", "1.3")
    for uid in ("1.1", "1.2"):
        deliveries.mark_sent(outbox.connection, 1, uid, "coerced")
    deliveries.mark_proven(outbox.connection, 1, ["1.3"])
    deliveries.record_commitment_request(outbox.connection, 1, "2.25.1")
    assert deliveries.apply_commitment_report(outbox.connection, "2.25.1", committed=["1.1"], failed=[])
    assert objects(outbox) == {"1.1": ("proven", None), "1.2": ("sent", "coerced"), "1.3": ("proven", None)}
    assert outbox.states() == ["pending"]


def test_what_the_target_answers_about_an_object(outbox: Outbox) -> None:
    enqueue(outbox, job(outbox, "a"), ["x"], "1.1", "1.2", "1.3", "1.4")
    deliveries.mark_sent(outbox.connection, 1, "1.1")
    deliveries.mark_sent(outbox.connection, 1, "1.2", "coerced")
    deliveries.mark_refused(outbox.connection, 1, "1.3", "no room")
    assert objects(outbox) == {
        "1.1": ("sent", None), "1.2": ("sent", "coerced"), "1.3": ("pending", "no room"), "1.4": ("pending", None),
    }  # fmt: skip
    assert [each.sent for each in deliveries.unproven(outbox.connection, 1)] == [True, True, False, False]
    deliveries.mark_proven(outbox.connection, 1, ["1.1", "1.2"])
    deliveries.mark_sent(outbox.connection, 1, "1.3")
    deliveries.mark_lost(outbox.connection, 1, ["1.1", "1.3"])
    assert objects(outbox) == {
        "1.1": ("proven", None), "1.2": ("proven", None),
        "1.3": ("pending", "the target accepted it but does not show it"), "1.4": ("pending", None),
    }  # fmt: skip


@pytest.mark.parametrize(("options", "accepted"), [({}, "dead"), ({"proof": True}, "dead"), ({"proof": False}, "sent")])
def test_a_delivery_dies_with_what_did_not_arrive(outbox: Outbox, options: dict[str, bool], accepted: str) -> None:
    """After two attempts, of the second job: its number is not that of the delivery."""
    job(outbox, "a")
    enqueue(outbox, job(outbox, "b"), ["x"], "1.1", "1.2", "1.3")
    deliveries.mark_sent(outbox.connection, 1, "1.1")
    deliveries.mark_proven(outbox.connection, 1, ["1.2"])
    told = []
    for attempt in (1, 2):
        told.append(deliveries.count_failed_attempt(outbox.connection, 1, f"no {attempt}", 7, attempts=2, **options))
        row = outbox.delivery(1)
        assert (row["attempts"], row["reason"], row["next_try"]) == (attempt, f"no {attempt}", 7)
        assert len(notified(outbox)) == attempt - 1
    assert told == ["pending", "dead"]
    assert {uid: state for uid, (state, _) in objects(outbox).items()} == {
        "1.1": accepted, "1.2": "proven", "1.3": "dead"}  # fmt: skip
    assert timeline(outbox) == [("1.2", "undeliverable", "x")]
    assert notified(outbox) == [(2, "failed", "not delivered to x: no 2")]


def test_receivers_are_told_when_the_last_delivery_of_a_job_has_ended(outbox: Outbox) -> None:
    for key in "ab":
        enqueue(outbox, job(outbox, key), ["x", "y"])
    assert deliveries.complete(outbox.connection, 1, proof=True)
    assert (timeline(outbox), notified(outbox)) == ([("1.2", "delivered", "x")], [])
    deliveries.discard(outbox.connection, 2)
    assert timeline(outbox)[1:] == [("1.2", "discarded by hand", "y")]
    assert notified(outbox) == [(1, "delivered", "")]
    for number in (3, 4):
        assert deliveries.complete(outbox.connection, number, proof=True)
    assert notified(outbox)[1:] == [(2, "delivered", "")]


def test_a_postponed_delivery_has_its_reason_and_its_attempts(outbox: Outbox) -> None:
    enqueue(outbox, job(outbox, "a"), ["x"], "1.1")
    deliveries.postpone(outbox.connection, 1, "no answer", 50)
    row = outbox.delivery(1)
    assert (row["state"], row["attempts"], row["next_try"], row["reason"]) == ("pending", 0, 50, "no answer")


def test_results_that_are_out_of_date_are_withdrawn_unless_they_are_delivered(outbox: Outbox) -> None:
    enqueue(outbox, job(outbox, "a"), ["x", "y", "z"], "1.1")
    enqueue(outbox, job(outbox, "b", "1.3"), ["x"], "1.4")
    assert deliveries.count_failed_attempt(outbox.connection, 1, "no", 0, attempts=1) == "dead"
    deliveries.mark_proven(outbox.connection, 2, ["1.1"])
    assert deliveries.complete(outbox.connection, 2, proof=True)
    with transaction(outbox.connection):
        deliveries.withdraw(outbox.connection, "1.2", "rejected")
    assert outbox.states() == ["discarded", "delivered", "discarded", "pending"]
    assert [outbox.delivery(number)["reason"] for number in (1, 2, 3, 4)] == ["rejected", None, "rejected", None]
    assert {key: state for key, (_, state) in belongs(outbox).items()} == {
        ("x", "1.1"): "dead", ("y", "1.1"): "proven", ("z", "1.1"): "dead", ("x", "1.4"): "pending",
    }  # fmt: skip
    assert timeline(outbox)[2:] == [("1.2", "withdrawn", "x"), ("1.2", "withdrawn", "z")]


def test_a_restored_state_asks_the_targets_for_what_it_would_send(outbox: Outbox) -> None:
    """Those that can answer, and what still is to be sent to them."""
    enqueue(outbox, job(outbox, "a"), ["x", "y", "z"], "1.1", "1.2")
    deliveries.mark_proven(outbox.connection, 1, ["1.1"])
    deliveries.discard(outbox.connection, 3)
    deliveries.ask_before_sending(outbox.connection, ["x", "z"])
    assert {key: state for key, (_, state) in belongs(outbox).items()} == {
        ("x", "1.1"): "proven", ("x", "1.2"): "sent", ("y", "1.1"): "pending", ("y", "1.2"): "pending",
        ("z", "1.1"): "dead", ("z", "1.2"): "dead",
    }  # fmt: skip
