"""The fetcher is stopped: by a window of time, by a person, by an archive that makes no progress, by its own end."""

import threading
from contextlib import closing
from datetime import datetime
from pathlib import Path

from support.fake_archive import FakeArchive
from support.fetching import TWO, config_of, fetching, here, items, states, study_of, uids, want
from support.jobs import made, rows
from support.receive import write_exam
from support.until import until

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.fetch import role
from glam_deploy.appliance.state import fetches
from glam_deploy.appliance.state.database import open_database


def test_an_archive_that_falls_silent_in_the_middle_is_given_up_in_time(archive: FakeArchive, config: Config) -> None:
    archive.hangs.add(uids(archive)[1])
    assert config.fetch
    hasty = config.model_copy(update={"fetch": config.fetch.model_copy(update={"timeout_s": 0.3, "attempts": 1})})
    want(hasty, "study", study_of(archive))
    with fetching(hasty) as data:
        until(lambda: states(data) == ["dead"])
        archive.wake.set()


def test_a_cancelled_study_is_fetched_no_further(archive: FakeArchive, config: Config) -> None:
    def cancel(uid: str) -> None:
        with closing(open_database(made(config).database)) as connection:
            fetches.cancel(connection, 1)

    archive.at_get = cancel
    want(config, "study", study_of(archive))
    with fetching(config) as data:
        until(lambda: len(here(config)) == 1)
        want(config, "study", "1.2.3")
        until(lambda: states(data)[1:] == ["dead"])
    assert states(data) == ["cancelled", "dead"]
    assert len(archive.asked) == 1


def test_a_running_retrieval_without_end_can_be_cancelled(archive: FakeArchive, config: Config) -> None:
    """The archive answers all the time, so that no time limit of a message is reached."""
    archive.stalls |= set(uids(archive))
    want(config, "study", study_of(archive))
    with fetching(config) as data:
        until(lambda: len(archive.asked) == 1)
        with closing(open_database(data.database)) as connection:
            fetches.cancel(connection, 1)
        want(config, "study", "1.2.3")
        until(lambda: states(data) == ["cancelled", "dead"])
    assert here(config) == []


def test_a_retrieval_without_progress_is_given_up(archive: FakeArchive, config: Config) -> None:
    archive.stalls.add(uids(archive)[0])
    assert config.fetch
    hasty = config.model_copy(update={"fetch": config.fetch.model_copy(update={"timeout_s": 1, "attempts": 1})})
    want(hasty, "study", study_of(archive))
    with fetching(hasty) as data:
        until(lambda: states(data) == ["dead"])
    assert "answers C-GET, and does not finish it in time" in items(data)[0][2]


def test_the_end_of_a_window_stops_a_retrieval_and_the_next_window_continues(
    archive: FakeArchive, tmp_path: Path
) -> None:
    """After the time in which a study that is under way is finished. No attempt is counted."""
    config = config_of(tmp_path, archive.keys | {"windows": ["22:00-06:00"]})
    now = [datetime(2026, 1, 1, 5, 59)]
    archive.stalls.add(uids(archive)[1])
    want(config, "study", study_of(archive))
    with fetching(config, clock=lambda: now[0]) as data:
        until(lambda: len(archive.asked) == 2)
        now[0] = datetime(2026, 1, 1, 6, 11)
        until(lambda: states(data) == ["wanted"])
        assert here(config) == uids(archive)[:1]
        archive.stalls.clear()
        now[0] = datetime(2026, 1, 1, 22, 0)
        until(lambda: states(data) == ["fetched"])
    assert rows(data, "SELECT attempts FROM fetch") == [(0,)]
    assert here(config) == uids(archive)


def test_a_study_under_way_is_finished_after_the_end_of_a_window(archive: FakeArchive, tmp_path: Path) -> None:
    config = config_of(tmp_path, archive.keys | {"windows": ["22:00-06:00"]})
    now = [datetime(2026, 1, 1, 5, 59)]

    def end_window(uid: str) -> None:
        now[0] = datetime(2026, 1, 1, 6, 9)

    archive.at_get = end_window
    want(config, "study", study_of(archive))
    with fetching(config, clock=lambda: now[0]) as data:
        until(lambda: states(data) == ["fetched"])
    assert here(config) == uids(archive)


def test_stopping_gives_the_study_back_and_the_next_fetcher_continues(archive: FakeArchive, config: Config) -> None:
    arrived, go = threading.Event(), threading.Event()

    def pause(uid: str) -> None:
        arrived.set()
        go.wait(60)

    archive.at_get = pause
    want(config, "study", study_of(archive))
    data, stop = made(config), threading.Event()
    thread = threading.Thread(target=role.run, args=(config, stop))
    thread.start()
    assert arrived.wait(60)
    stop.set()
    go.set()
    thread.join()
    assert states(data) == ["wanted"]
    assert len(here(config)) == 1
    with fetching(config):
        until(lambda: states(data) == ["fetched"])
    assert here(config) == archive.asked == uids(archive)


def test_nothing_is_fetched_outside_of_the_windows(archive: FakeArchive, tmp_path: Path) -> None:
    config = config_of(tmp_path, archive.keys | {"windows": ["22:00-06:00"]})
    now = [datetime(2026, 1, 1, 21, 59)]
    want(config, "study", study_of(archive))
    detail = "SELECT detail FROM component WHERE name = 'fetcher'"
    with fetching(config, clock=lambda: now[0]) as data:
        until(lambda: "22:00-06:00" in str(rows(data, detail)))
        assert states(data) == ["wanted"]
        now[0] = datetime(2026, 1, 1, 22, 0)
        until(lambda: states(data) == ["fetched"])


def test_several_studies_at_once(archive: FakeArchive, tmp_path: Path) -> None:
    for seed in ("b", "c", "d"):
        archive.put(*write_exam(tmp_path / seed, seed, views=TWO))
    together = threading.Barrier(2)
    archive.at_get = lambda uid: together.wait(60) and None
    config = config_of(tmp_path, archive.keys | {"at_once": 2})
    want(config, "study", *dict.fromkeys(str(held.StudyInstanceUID) for held in archive.held))
    with fetching(config) as data:
        until(lambda: states(data) == ["fetched"] * 4)
    assert sorted(here(config)) == sorted(archive.asked) == sorted(uids(archive))
