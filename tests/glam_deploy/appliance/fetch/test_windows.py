"""Windows of local time, also in the nights in which the clock changes, by the rules of the IANA database."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from glam_deploy.appliance.fetch.windows import Windows, local_now

NIGHT = Windows.parse(["22:00-06:00"])


@pytest.mark.parametrize(
    ("texts", "open_at", "closed_at"),
    [
        ((), ["00:00", "12:00", "23:59"], []),
        (["22:00-06:00"], ["22:00", "23:59", "00:00", "05:59"], ["06:00", "12:00", "21:59"]),
        (["12:00-13:30"], ["12:00", "13:29"], ["11:59", "13:30", "00:00"]),
        (["22:00-06:00", "12:00-13:00"], ["12:30", "03:00"], ["13:00", "06:00", "21:59"]),
        (["22:00-00:00"], ["22:00", "23:59"], ["00:00", "21:59"]),
    ],
)
def test_start_is_part_of_a_window_and_end_is_not(texts: list[str], open_at: list[str], closed_at: list[str]) -> None:
    windows = Windows.parse(texts)
    found = {text: windows.is_open(datetime.fromisoformat(f"2026-05-04 {text}")) for text in (*open_at, *closed_at)}
    assert found == dict.fromkeys(open_at, True) | dict.fromkeys(closed_at, False)


@pytest.mark.parametrize(
    ("zone", "noon", "hours"),
    [
        ("Europe/Vienna", "2026-01-15", 8),
        ("Europe/Vienna", "2026-03-28", 7),
        ("Europe/Vienna", "2026-10-24", 9),
        ("America/New_York", "2026-03-07", 7),
        ("America/New_York", "2026-10-31", 9),
        ("Asia/Kolkata", "2026-03-28", 8),
    ],
)
def test_a_night_in_which_the_clock_changes(zone: str, noon: str, hours: int) -> None:
    """Minute by minute in UTC, from noon to noon."""
    start = datetime.fromisoformat(f"{noon} 12:00").replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    minutes = [start + timedelta(minutes=n) for n in range(23 * 60)]
    opened = [NIGHT.is_open(moment.astimezone(ZoneInfo(zone))) for moment in minutes]
    assert sum(opened) == hours * 60
    changes = [n for n in range(1, len(opened)) if opened[n] != opened[n - 1]]
    assert [f"{minutes[n].astimezone(ZoneInfo(zone)):%H:%M}" for n in changes] == ["22:00", "06:00"], "opened once"


def test_a_window_within_the_hour_that_is_left_out_does_not_open() -> None:
    zone, window = ZoneInfo("Europe/Vienna"), Windows.parse(["02:15-02:45"])
    start = datetime(2026, 3, 28, 12, tzinfo=zone).astimezone(UTC)
    assert not any(window.is_open((start + timedelta(minutes=n)).astimezone(zone)) for n in range(23 * 60))


@pytest.fixture
def vienna(monkeypatch: pytest.MonkeyPatch) -> Iterator[ZoneInfo]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Vienna")
        time.tzset()
        yield ZoneInfo("Europe/Vienna")
    time.tzset()


def test_the_clock_is_local(vienna: ZoneInfo) -> None:
    before = datetime.now(vienna)
    now = local_now()
    assert before <= now <= datetime.now(vienna)
    assert now.utcoffset() == before.utcoffset()
    assert now.replace(tzinfo=None) >= before.replace(tzinfo=None)
