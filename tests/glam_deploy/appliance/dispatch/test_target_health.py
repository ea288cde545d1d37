"""The circuit breaker as a state machine, and a delivery worker whose target is up and down at random."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.outbox import Outbox, opened_outbox

from glam_deploy.appliance.config import Dispatch, Target
from glam_deploy.appliance.targets import Backoff, TargetHealth
from glam_deploy.dicom.net.delivery import Answer, Commitment, Item, Outcome
from glam_deploy.errors import PeerBroke, PeerDeclined, PeerError

TARGET = Target(name="pacs", ae_title="PACS", host="127.0.0.1", port=104)


@given(first=st.floats(0.01, 100), longest=st.floats(0.01, 10000), failures=st.integers(1, 10**6))
def test_waits_double_up_to_the_longest(first: float, longest: float, failures: int) -> None:
    backoff = Backoff(first_s=first, longest_s=longest)
    expected = first
    for _ in range(min(failures, 60) - 1):
        expected *= 2
    assert backoff.after(failures) == pytest.approx(min(expected, longest))


@given(st.lists(st.tuples(st.sampled_from(["unreachable", "broke", "served"]), st.integers(1, 4)), max_size=60))
def test_one_delivery_is_never_enough_to_close_a_target(steps: list[tuple[str, int]]) -> None:
    """Against a model of its own: the circuit opens by itself or by two different deliveries since the last service."""
    health: TargetHealth[int] = TargetHealth(backoff=Backoff(first_s=1, longest_s=100))
    now, failures, broken = 0.0, 0, dict[int, int]()
    for what, delivery in steps:
        now += 1000
        assert health.may_try(now)
        if what == "unreachable":
            health.record_unreachable(now, "down")
            failures += 1
        elif what == "broke":
            broken[delivery] = broken.get(delivery, 0) + 1
            assert health.record_interruption(delivery, delivery, now, "hung") == now + min(
                100, 2 ** (broken[delivery] - 1)
            )
            failures += len(broken) >= 2
        else:
            assert sorted(suspect.delivery for suspect in health.record_success(delivery)) == sorted(
                set(broken) - {delivery}
            )
            failures, broken = 0, {}
        opens = what == "unreachable" or (what == "broke" and len(broken) >= 2)
        assert health.may_try(now) is not opens
        assert health.may_try(now + min(100, 2 ** max(failures - 1, 0)))
        assert bool(health.reason) is bool(failures)


@dataclass
class Chance:
    """A target and the way to it: down at times, choking on some objects."""

    outbox: Outbox
    down: list[tuple[float, float]] = field(default_factory=list)
    """From, to."""
    poison: frozenset[str] = frozenset()
    """It lets us in and breaks off at these."""
    declines: bool = False
    got: list[str] = field(default_factory=list)
    knocks: list[float] = field(default_factory=list)
    """When somebody tried to get in, in vain."""

    def session(self, items: Sequence[Item]) -> "Chance":
        return self

    def check_reachable(self) -> None:
        if any(start <= self.outbox.now < end for start, end in self.down):
            raise PeerError("down")

    def __enter__(self) -> "Chance":
        try:
            self.check_reachable()
        except PeerError:
            self.knocks.append(self.outbox.now)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""

    def store(self, item: Item) -> Answer:
        if item.sop_uid in self.poison:
            raise PeerBroke("it broke off")
        self.got.append(item.sop_uid)
        return Answer(sop_uid=item.sop_uid, outcome=Outcome.STORED)

    def holds(self, items: Sequence[Item]) -> frozenset[str]:
        if self.declines:
            raise PeerDeclined("it answers no query")
        return frozenset(item.sop_uid for item in items) & frozenset(self.got)

    def commit(self, items: Sequence[Item], transaction_uid: str, *, wait_s: float) -> Commitment | None:
        raise AssertionError("not asked for")


def post(outbox: Outbox, study: str) -> list[str]:
    """A delivery with one object, whose file is never opened."""
    outbox.connection.execute("PRAGMA synchronous = OFF")
    return outbox.post_items(study, TARGET.name, [Item(sop_uid=f"{study}.1", path=Path(f"{study}.dcm"))])


POLICY = Dispatch(first_retry_s=5, longest_retry_s=300, attempts=4)


@settings(max_examples=10)
@given(
    arrivals=st.lists(st.integers(0, 2000), min_size=1, max_size=8).map(sorted),
    outages=st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 1500)), max_size=3),
)
def test_a_target_that_is_down_at_times_gets_all_in_order(arrivals: list[int], outages: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder, opened_outbox(Path(folder)) as outbox:
        client = Chance(outbox, down=[(start, start + length) for start, length in outages])
        outbox.policy, worker, posted, waiting = POLICY, outbox.worker(TARGET, client), [], list(arrivals)
        for second in range(0, 5000, 5):
            outbox.now = second
            while waiting and waiting[0] <= second:
                posted += post(outbox, f"1.2.{len(waiting)}")
                waiting.pop(0)
            while worker.step():
                pass
        assert client.got == posted
        assert outbox.states() == ["delivered"] * len(posted)
        assert all(outbox.delivery(number + 1)["attempts"] == 0 for number in range(len(posted)))
        gaps = [after - before for before, after in zip(client.knocks, client.knocks[1:], strict=False)]
        assert all(gap >= POLICY.first_retry_s for gap in gaps), "no hammering"


@settings(max_examples=10)
@given(poisoned=st.lists(st.booleans(), min_size=2, max_size=8))
def test_poisoned_deliveries_block_no_others_and_die(poisoned: list[bool]) -> None:
    """Others that succeed, before or later, distinguish a poisoned delivery from a faulty target."""
    with tempfile.TemporaryDirectory() as folder, opened_outbox(Path(folder)) as outbox:
        uids = [post(outbox, f"1.2.{number}")[0] for number in range(len(poisoned))]
        client = Chance(outbox, poison=frozenset(uid for uid, bad in zip(uids, poisoned, strict=True) if bad))
        outbox.policy = POLICY
        worker = outbox.worker(TARGET, client)
        for second in range(0, 1000, 5):
            outbox.now = second
            while worker.step():
                pass
        good = [uid for uid, bad in zip(uids, poisoned, strict=True) if not bad]
        assert client.got == good
        for number in range(2 * POLICY.attempts * len(poisoned)):
            good += post(outbox, f"1.3.{number}")
            outbox.now += 300
            while worker.step():
                pass
        assert client.got == good
        assert outbox.states()[: len(poisoned)] == ["dead" if bad else "delivered" for bad in poisoned]


def test_two_hundred_studies_wait_for_a_target_and_go_out_in_order(tmp_path: Path) -> None:
    with opened_outbox(tmp_path) as outbox:
        client = Chance(outbox, down=[(0, 5000)])
        uids = [uid for number in range(200) for uid in post(outbox, f"1.2.{number}")]
        worker = outbox.worker(TARGET, client)
        for outbox.now in range(0, 6000, 10):
            while worker.step():
                pass
        assert client.got == uids
        assert outbox.states() == ["delivered"] * 200
        assert len(client.knocks) < 20


def test_a_target_that_answers_queries_again_is_well_again(tmp_path: Path) -> None:
    with opened_outbox(tmp_path) as outbox:
        client = Chance(outbox, declines=True)
        uids, worker = post(outbox, "1.2.1"), outbox.worker(TARGET, client)
        assert worker.step()
        assert worker.health.reason == "it answers no query"
        client.declines = False
        outbox.now += 900
        assert worker.step()
        assert (client.got, outbox.states(), worker.health.reason) == (uids, ["delivered"], "")
