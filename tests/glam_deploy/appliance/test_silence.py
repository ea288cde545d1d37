"""Who hangs, as looks tell: against every order of words, starts and looks that chance makes."""

from hypothesis import given
from hypothesis import strategies as st

from glam_deploy.appliance.silence import Silence

NAMES = ("a", "b", "c")
LOOKS = 4
steps = st.lists(st.tuples(st.sets(st.sampled_from(NAMES)), st.sets(st.sampled_from(NAMES))), max_size=60)
"""Between two looks: who spoke, and who was started anew."""


@given(steps)
def test_who_hangs_has_been_silent_for_all_looks_at_which_another_spoke(steps: list[tuple[set[str], set[str]]]) -> None:
    """The truth is told backwards, from the whole past."""
    silence, beats, lives = Silence(LOOKS), dict[str, float](), dict.fromkeys(NAMES, 1)
    past: list[tuple[set[str], set[str]]] = [(set(), set(NAMES))]
    silence.look(beats, lives)
    for spoke, begun in steps:
        past.append((spoke, begun))
        beats |= {name: len(past) for name in spoke}
        lives |= {name: lives[name] + 1 for name in begun}
        hung = silence.look(beats, lives)
        assert hung == [name for name in NAMES if hangs(name, past)]
        past[-1] = (spoke, begun | set(hung))  # who was named has all looks before it again


def hangs(name: str, past: list[tuple[set[str], set[str]]]) -> bool:
    last = max(n for n, (spoke, begun) in enumerate(past) if name in spoke | begun)
    return sum(bool(spoke) for spoke, _ in past[last + 1 :]) >= LOOKS


def look_often(silence: Silence, beats: dict[str, float], *, times: int = 10 * LOOKS) -> list[str]:
    return [name for _ in range(times) for name in silence.look(beats, dict.fromkeys(NAMES, 1))]


def test_nobody_hangs_where_the_database_takes_no_word() -> None:
    silence = Silence(LOOKS)
    assert look_often(silence, dict.fromkeys(NAMES, 5.0)) == []


def test_words_of_strangers_and_of_an_earlier_life_count_for_nothing() -> None:
    silence = Silence(LOOKS)
    for beat in range(10 * LOOKS):
        assert silence.look({"a": 5.0, "target:pacs": beat}, {"a": 1, "b": 1}) == []
