"""Words, scales, labels, markup."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glam_bench.report import words
from glam_bench.report.markup import Markup, raw, tag
from glam_bench.report.scales import Linear, Log, spread

NUMBERS = st.floats(min_value=-1e9, max_value=1e9)


@pytest.mark.parametrize(
    ("ms", "said"),
    [
        (None, "\u2013"), (0.0, "0 ms"), (0.0001, "0.100 µs"), (0.042, "42.0 µs"), (42.04, "42.0 ms"),
        (999.4, "999 ms"), (999.6, "1.00 s"), (5182.649, "5.18 s"), (71_234.0, "71.2 s"), (1_234_567.0, "1235 s"),
    ],
)  # fmt: skip
def test_durations(ms: float | None, said: str) -> None:
    assert words.duration(ms).replace("\u00a0", " ") == said


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "\u2013"), (1.0, "1.000"), (0.999999, "0.99999"), (0.99951, "0.99951"), (0.9994, "0.999"),
        (0.94999, "0.949"), (0.95, "0.950"), (0.0, "0.000"),
    ],
)  # fmt: skip
def test_dice_is_never_told_better_than_it_is(value: float | None, said: str) -> None:
    assert words.dice(value) == said


@given(st.floats(min_value=0, max_value=1))
def test_dice_is_told_to_three_places_at_least(value: float) -> None:
    said = float(words.dice(value))
    assert 0 <= value - said < 1e-3 + 1e-9 or value == pytest.approx(said, abs=1e-12)
    assert (said == 1) == (value == 1)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "\u2013"), ([], "\u2013"), ({}, "\u2013"), (True, "yes"), (1, "1"), (0.25, "0.250"), ("x", "x"),
        ([1, None], "1, \u2013"), ({"a": 1, "b": {"c": "d"}}, "a 1, b c d"),
    ],
)  # fmt: skip
def test_any_json_on_one_line(value: object, said: str) -> None:
    assert words.plain(value) == said


def test_memory_and_rates() -> None:
    assert words.memory("24689212 kB") == "23.5\u00a0GiB"
    assert words.memory("plenty") == "plenty"
    assert words.rate(1.6e11, "OP/s") == "160\u00a0GOP/s"
    assert words.rate(2.5e12, "OP/s") == "2.50\u00a0TOP/s"
    assert words.rate(None, "B/s") == "\u2013"


@given(st.text(), st.floats(min_value=10, max_value=500))
def test_fitted_words_fit(text: str, room: float) -> None:
    shown = words.fit(text, room, 13)
    assert words.width(shown, 13) <= room or shown == "…"
    assert shown == text or shown.endswith("…")


@given(NUMBERS, st.floats(min_value=1e-6, max_value=1e9), st.integers(2, 8))
def test_ticks_are_few_even_and_inside(low: float, span: float, most: int) -> None:
    if low + span == low or span < 1e-9 * abs(low):
        return
    ticks = Linear(low=low, high=low + span, start=0, end=100).ticks(most)
    assert len(ticks) <= most
    assert all(low - 1e-6 * span <= tick <= low + span * (1 + 1e-6) for tick in ticks)


def test_ticks_are_round() -> None:
    assert Linear(low=0.85, high=1, start=0, end=1).ticks(5) == pytest.approx([0.85, 0.9, 0.95, 1.0])
    assert Linear(low=0, high=7, start=0, end=1).ticks(4) == pytest.approx([0, 2, 4, 6])
    assert Log(low=30, high=600, start=0, end=100).ticks(10) == pytest.approx([50, 100, 200, 500])
    assert Log(low=30, high=600, start=100, end=0).ticks(35) == pytest.approx([30, 100, 300])
    assert Log(low=30, high=2500, start=0, end=100).ticks(50) == pytest.approx([100, 1000])
    assert Log(low=0.5, high=2e6, start=0, end=100).ticks(40) == pytest.approx([1, 1e3, 1e6])


@given(st.lists(st.floats(min_value=0, max_value=300), min_size=1, max_size=15))
def test_labels_keep_apart_and_inside(places: list[float]) -> None:
    moved = spread(places, 20, 0, 300)
    assert all(b - a >= 20 - 1e-9 for a, b in pairwise(moved))
    assert moved[0] >= -1e-9
    assert moved[-1] <= 300 + 1e-9


def test_labels_that_are_apart_stay() -> None:
    assert spread([200.0, 50.0, 100.0], 20, 0, 300) == [50.0, 100.0, 200.0]


def test_only_markup_is_taken_as_it_is() -> None:
    assert tag("p", "<b>", tag("i", "x"), None, raw("&amp;")) == "<p>&lt;b&gt;<i>x</i>&amp;</p>"
    assert tag("a", class_="x y", aria_label='"<', x=1.005, y=None, tabindex="0") == (
        '<a class="x y" aria-label="&quot;&lt;" x="1" tabindex="0"></a>'
    )
    assert type("a" + tag("b")) is not Markup, "joined to a string, markup is data again"


def test_no_coordinate_is_infinite() -> None:
    with pytest.raises(ValueError, match="inf is not a coordinate"):
        tag("rect", x=float("inf"))
