"""Who hangs, as looks tell: against every order of words, starts and looks that chance makes."""

from hypothesis import given
from hypothesis import strategies as st

from glam_deploy.appliance.supervisor import HangDetector

NAMES = ("a", "b", "c")
MISSED_CHECKS = 4
steps = st.lists(st.tuples(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES))), max_size=60)
"""Between two checks: processes that wrote a heartbeat, and processes that were restarted."""


@given(steps)
def test_hung_process_missed_every_check_at_which_another_was_active(steps: list[tuple[set[str], set[str]]]) -> None:
    """The expected value is computed backwards, from the whole past."""
    detector, heartbeats, starts = HangDetector(MISSED_CHECKS), dict[str, float](), dict.fromkeys(NAMES, 1)
    past: list[tuple[set[str], set[str]]] = [(set(), set(NAMES))]
    detector.check(heartbeats, starts)
    for spoke, begun in steps:
        past.append((spoke, begun))
        heartbeats |= {name: len(past) for name in spoke}
        starts |= {name: starts[name] + 1 for name in begun}
        hung = detector.check(heartbeats, starts)
        assert hung == [name for name in NAMES if hangs(name, past)]
        past[-1] = (spoke, begun | set(hung))  # who was named has all looks before it again


def hangs(name: str, past: list[tuple[set[str], set[str]]]) -> bool:
    last = max(n for n, (spoke, begun) in enumerate(past) if name in spoke | begun)
    return sum(bool(spoke) for spoke, _ in past[last + 1 :]) >= MISSED_CHECKS


def check_often(detector: HangDetector, heartbeats: dict[str, float], *, times: int = 10 * MISSED_CHECKS) -> list[str]:
    return [name for _ in range(times) for name in detector.check(heartbeats, dict.fromkeys(NAMES, 1))]


def test_no_process_counts_as_hung_while_the_database_cannot_be_written() -> None:
    detector = HangDetector(MISSED_CHECKS)
    assert check_often(detector, dict.fromkeys(NAMES, 5.0)) == []


def test_words_of_strangers_and_of_an_earlier_life_count_for_nothing() -> None:
    detector = HangDetector(MISSED_CHECKS)
    for beat in range(10 * MISSED_CHECKS):
        assert detector.check({"a": 5.0, "target:pacs": beat}, {"a": 1, "b": 1}) == []
