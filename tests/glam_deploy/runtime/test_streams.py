"""Which number of streams is chosen, by a clock that is made up."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from glam_deploy.runtime.streams import StreamsChoice, choose_streams


class Machine:
    """Pipelines on a made-up machine: `rates` has its views per second by number of streams."""

    def __init__(self, rates: dict[int, float]) -> None:
        self.rates, self.now = rates, 100.0
        self.opened: list[int] = []
        self.seen: list[str] = []
        self.is_open = False

    @contextmanager
    def open(self, streams: int) -> Iterator["Machine"]:
        assert not self.is_open, "two engines at once would share the cores"
        self.opened.append(streams)
        self.is_open, self.first = True, True
        yield self
        self.is_open = False

    def map(self, images: Sequence[str], *, errors: str) -> Iterator[str]:
        self.now += (50 if self.first else 0) + len(images) / self.rates[self.opened[-1]]  # a slow first run
        self.first = False
        self.seen += images
        yield from images


def choice(rates: dict[int, float], *, cores: int, images: Sequence[str] = ("a", "b")) -> tuple[StreamsChoice, Machine]:
    machine = Machine(rates)
    return choose_streams(machine.open, images, cores=cores, clock=lambda: machine.now), machine


@pytest.mark.parametrize(
    ("rates", "cores", "chosen", "opened"),
    [
        ({1: 2.0, 2: 3.0, 4: 4.0, 8: 5.0}, 8, 8, [1, 2, 4, 8]),
        ({1: 2.0, 2: 3.0, 4: 4.0, 8: 5.0}, 7, 4, [1, 2, 4]),
        ({1: 2.0, 2: 3.0, 4: 2.9, 8: 50.0}, 8, 2, [1, 2, 4]),
        ({1: 2.0, 2: 2.05}, 2, 1, [1, 2]),
        ({1: 2.0, 2: 2.07}, 2, 2, [1, 2]),
        ({1: 2.0}, 1, 1, [1]),
    ],
    ids=["all cores", "no more than cores", "until it is slower", "hardly faster", "faster", "one core"],
)
def test_the_fastest_is_chosen(rates: dict[int, float], cores: int, chosen: int, opened: list[int]) -> None:
    found, machine = choice(rates, cores=cores)
    assert found.chosen == chosen
    assert machine.opened == opened
    assert found.views_per_s == pytest.approx({n: rates[n] for n in opened})


def test_views_are_repeated_and_each_stream_gets_two() -> None:
    _, machine = choice({1: 1.0, 2: 2.0, 4: 4.0}, cores=4, images=["a", "b", "c"])
    assert len(machine.seen) == (1 + 4) + (2 + 4) + (4 + 8)
    assert machine.seen[:5] == ["a", "b", "c", "a", "b"]


def test_nothing_is_measured_without_images() -> None:
    found, machine = choice({}, cores=8, images=[])
    assert (found.chosen, machine.opened) == (1, [])
    assert str(found) == "streams auto: 1, because there are too few inputs for a measurement"


def test_what_is_said_and_kept() -> None:
    found, _ = choice({1: 2.0, 2: 3.0}, cores=2)
    assert str(found) == "streams auto: 2 (2.00 views/s with 1, 3.00 views/s with 2)"
    assert found.facts == {"chosen": 2, "views_per_s": {"1": 2.0, "2": 3.0}}
