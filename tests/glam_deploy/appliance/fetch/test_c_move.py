"""The fetcher asks an archive to send to the own receiver."""

from contextlib import closing
from pathlib import Path

import pytest
from support.fake_archive import AE_TITLE, FakeArchive
from support.fetching import config_of, fetching, here, items, states, study_of, uids, want
from support.jobs import rows
from support.orthanc import free_port
from support.receive import box, running_receiver
from support.until import until

from glam_deploy.appliance.state import fetches
from glam_deploy.appliance.state.database import open_database
from glam_deploy.dicom.net import retrieve


def test_a_running_c_move_without_end_can_be_cancelled_and_has_a_limit(
    archive: FakeArchive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    moving = FakeArchive(held=archive.held, destination=("127.0.0.1", port), stalls=set(uids(archive)))
    with moving.running():
        config = config_of(tmp_path, moving.keys | {"retrieve": "move", "attempts": 1}, port=port, sender=AE_TITLE)
        want(config, "study", study_of(archive))
        with running_receiver(config), fetching(config) as data:
            until(lambda: len(moving.asked) == 1)
            with closing(open_database(data.database)) as connection:
                fetches.cancel(connection, 1)
                want(config, "study", "1.2.3")
                until(lambda: states(data) == ["cancelled", "dead"])
                monkeypatch.setattr(retrieve, "SLOWEST", 1 << 40)
                monkeypatch.setattr(retrieve, "SEARCH_TIMEOUTS", 0.1)
                fetches.retry(connection, 1)
            until(lambda: states(data) == ["dead", "dead"])
    assert "answers C-MOVE, and does not finish it in time" in items(data)[0][2]
    assert here(config) == []


def test_c_move_to_the_own_receiver(archive: FakeArchive, tmp_path: Path) -> None:
    port = free_port()
    moving = FakeArchive(held=archive.held, destination=("127.0.0.1", port))
    with moving.running():
        config = config_of(tmp_path, moving.keys | {"retrieve": "move"}, port=port, sender=AE_TITLE)
        want(config, "study", study_of(archive))
        with running_receiver(config), fetching(config) as data:
            until(lambda: states(data) == ["fetched"])
    assert sorted(here(config)) == sorted(uids(archive))
    assert rows(data, "SELECT priority FROM study") == [(2,)]


def test_c_move_to_an_unknown_destination_needs_a_person(archive: FakeArchive, tmp_path: Path) -> None:
    config = config_of(tmp_path, archive.keys | {"retrieve": "move"}, port=free_port(), sender=AE_TITLE)
    want(config, "study", study_of(archive))
    with running_receiver(config), fetching(config) as data:
        until(lambda: any(reason for _, _, reason in items(data)))
    ((_, state, reason),) = items(data)
    assert state == "wanted"
    assert "does not know the destination GLAM of C-MOVE" in reason
    assert rows(data, "SELECT attempts FROM fetch") == [(0,)]


def test_c_move_waits_for_the_own_receiver(archive: FakeArchive, tmp_path: Path) -> None:
    port = free_port()
    moving = FakeArchive(held=archive.held, destination=("127.0.0.1", port))
    with moving.running():
        config = config_of(tmp_path, moving.keys | {"retrieve": "move"}, port=port, sender=AE_TITLE)
        want(config, "study", study_of(archive))
        with fetching(config) as data:
            until(lambda: "does not run" in str(rows(data, "SELECT detail FROM component WHERE name = 'fetcher'")))
            assert moving.asked == []
            with running_receiver(config):
                until(lambda: states(data) == ["fetched"])


def test_images_of_a_modality_are_not_taken_for_fetched_ones(archive: FakeArchive, tmp_path: Path) -> None:
    """The archive may route live exams to the appliance under the AE title by which it answers C-MOVE."""
    config = config_of(tmp_path, archive.keys | {"retrieve": "move"}, sender=AE_TITLE)
    with box(config) as received:
        (file, _) = sorted((tmp_path / "exam").iterdir())
        assert received.take(file.read_bytes(), sender=f"{AE_TITLE}@127.0.0.1").status == 0
        assert received.rows("SELECT priority FROM study") == [(1,)]
