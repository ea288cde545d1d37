"""The fetcher and an archive that fails: nothing is lost, nothing comes twice, and the reason is told."""

from copy import deepcopy
from pathlib import Path

import pytest
from support.fake_archive import AE_TITLE, FakeArchive
from support.fetching import TWO, config_of, fetching, here, items, states, study_of, uids, want
from support.jobs import rows
from support.orthanc import free_port
from support.receive import CANARY, write_exam
from support.until import until

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.fetch import fetcher


def test_a_study_arrives_and_is_told(archive: FakeArchive, config: Config) -> None:
    want(config, "study", study_of(archive))
    with fetching(config) as data:
        until(lambda: states(data) == ["fetched"])
    assert here(config) == uids(archive) == archive.asked
    assert rows(data, "SELECT sender FROM instance") == [(f"{AE_TITLE}@127.0.0.1",)] * 2
    (audit,) = (data.root / "audit").glob("*.jsonl")
    assert [line for line in audit.read_text().splitlines() if '"fetched"' in line and '"objects": 2' in line]


def test_a_failed_object_costs_an_attempt_and_only_it_is_fetched_again(archive: FakeArchive, config: Config) -> None:
    first, second = uids(archive)
    archive.statuses[first] = 0xA702
    want(config, "study", study_of(archive))
    with fetching(config) as data:
        until(lambda: archive.asked.count(first) == 2)
        assert here(config) == [second]
        archive.statuses.clear()
        until(lambda: states(data) == ["fetched"])
    assert here(config) == [second, first]
    assert archive.asked.count(second) == 1, "what is here is not retrieved again"


def test_an_object_that_never_comes_ends_dead_with_the_reason(archive: FakeArchive, config: Config) -> None:
    archive.statuses[uids(archive)[0]] = 0xA702
    want(config, "study", study_of(archive))
    with fetching(config) as data:
        until(lambda: states(data) == ["dead"])
    ((_, _, reason),) = items(data)
    assert "1 of 2 objects did not arrive" in reason
    assert "0xA702" in reason
    assert rows(data, "SELECT attempts FROM fetch") == [(5,)]


def test_a_success_without_an_object_is_not_believed(archive: FakeArchive, config: Config) -> None:
    archive.lies |= set(uids(archive))
    want(config, "study", study_of(archive))
    with fetching(config) as data:
        until(lambda: states(data) == ["dead"])
    ((_, _, reason),) = items(data)
    assert reason == "2 of 2 objects did not arrive, although the archive reports success"


def test_a_truncated_object_is_refused_with_the_reason(archive: FakeArchive, config: Config) -> None:
    archive.held[0].PixelData = archive.held[0].PixelData[: len(archive.held[0].PixelData) // 2]
    want(config, "study", study_of(archive))
    with fetching(config) as data:
        until(lambda: states(data) == ["dead"])
    ((_, _, reason),) = items(data)
    assert "refused here" in reason
    assert "6720 of 13440 bytes" in reason, "96 rows of 70 pixels of two bytes"
    assert here(config) == uids(archive)[1:]


def test_an_archive_that_breaks_off_in_the_middle_costs_attempts(archive: FakeArchive, config: Config) -> None:
    """And answers C-ECHO: the study may be the cause."""
    archive.aborts.add(uids(archive)[1])
    want(config, "study", study_of(archive))
    with fetching(config) as data:
        until(lambda: states(data) == ["dead"])
    ((_, _, reason),) = items(data)
    assert "ended the association" in reason
    assert here(config) == uids(archive)[:1]
    assert archive.asked.count(uids(archive)[0]) == 1


def test_an_archive_that_is_down_costs_no_attempt(archive: FakeArchive, config: Config, tmp_path: Path) -> None:
    down = FakeArchive(held=archive.held, port=free_port())
    config = config_of(tmp_path, down.keys)
    want(config, "study", study_of(archive))
    with fetching(config) as data:
        beat = "SELECT state, detail FROM component WHERE name = 'fetcher'"
        until(lambda: [state for state, _ in rows(data, beat)] == ["waiting"])
        ((_, _, reason),) = items(data)
        assert "cannot be reached" in reason
        with down.running():
            until(lambda: states(data) == ["fetched"])
    assert rows(data, "SELECT attempts FROM fetch") == [(0,)]
    assert here(config) == uids(archive)


def test_a_fault_that_needs_a_person_holds_up_all_without_attempts(archive: FakeArchive, tmp_path: Path) -> None:
    lacking = FakeArchive(held=archive.held, models=("find",))
    with lacking.running():
        config = config_of(tmp_path, lacking.keys)
        want(config, "study", study_of(archive), "1.2.3")
        with fetching(config) as data:
            until(lambda: any(reason for _, _, reason in items(data)))
            until(lambda: rows(data, "SELECT state FROM component WHERE name = 'fetcher'") == [("waiting",)])
    assert rows(data, "SELECT max(attempts) FROM fetch") == [(0,)]
    assert any(reason and "offers no Study Root C-GET to GLAM" in reason for _, _, reason in items(data))


def test_a_study_that_is_not_there_is_dead_at_once(config: Config) -> None:
    want(config, "study", "1.2.3")
    with fetching(config) as data:
        until(lambda: states(data) == ["dead"])
    assert items(data) == [("study", "dead", fetcher.ABSENT)]
    assert rows(data, "SELECT attempts FROM fetch") == [(1,)]


def test_a_search_that_fails_is_tried_again(archive: FakeArchive, config: Config) -> None:
    archive.find_status = 0xA700
    want(config, "day", "20240131")
    with fetching(config) as data:
        until(lambda: rows(data, "SELECT attempts FROM fetch") >= [(2,)])
        archive.find_status = 0
        until(lambda: states(data) == ["fetched"])
    assert rows(data, "SELECT found, reason FROM fetch") == [(0, "no mammography found")]


@pytest.mark.parametrize("silent", [(), ("ModalitiesInStudy",)])
def test_an_archive_that_ignores_keys_does_not_flood_the_appliance(
    silent: tuple[str, ...], archive: FakeArchive, config: Config, tmp_path: Path
) -> None:
    archive.put(*write_exam(tmp_path / "other", "other", views=TWO))
    for held in archive.held:
        held.AccessionNumber, held.StudyDate = ("A1", "20240131") if held in archive.held[:2] else ("B2", "20240201")
    archive.ignores, archive.silent = ("AccessionNumber", "StudyDate", "ModalitiesInStudy"), silent
    want(config, "accession", "A1")
    want(config, "day", "20240131")
    with fetching(config) as data:
        until(lambda: states(data) == ["fetched"] * 3)
    assert here(config) == uids(archive)[:2]


def test_a_study_of_other_modalities_is_not_fetched(archive: FakeArchive, config: Config) -> None:
    for held in archive.held:
        held.Modality, held.AccessionNumber = "US", "A1"
    want(config, "accession", "A1")
    want(config, "study", study_of(archive))
    with fetching(config) as data:
        until(lambda: states(data) == ["dead", "fetched"])
    assert items(data) == [
        ("accession", "dead", fetcher.NOTHING_FOUND),
        ("study", "fetched", fetcher.WITHOUT_MAMMOGRAPHY),
    ]
    assert archive.asked == []


def test_objects_that_were_not_asked_for_are_refused(archive: FakeArchive, config: Config) -> None:
    """Others of the same study, with new UIDs, and the same one a second time with other pixels."""
    other, twin = deepcopy(archive.held[0]), deepcopy(archive.held[1])
    other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.8.498.99"
    twin.PixelData = bytes(reversed(twin.PixelData))
    archive.pushed = lambda: [other]
    archive.held.append(twin)
    want(config, "study", study_of(archive))
    with fetching(config) as data:
        until(lambda: states(data) == ["fetched"])
    assert here(config) == uids(archive)[:2]
    assert rows(data, "SELECT * FROM quarantine") == []


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("uid", ["", "*", "../../x", "1.2.3\\1.2.4", "1.2.ä"])
def test_an_identifier_that_could_be_a_pattern_is_left_out_and_ends_no_search(
    uid: str, archive: FakeArchive, config: Config
) -> None:
    for held in archive.held:
        held.StudyDate = "20240131"
    archive.strange["STUDY"] = uid
    want(config, "day", "20240131")
    with fetching(config) as data:
        until(lambda: states(data) == ["fetched"] * 2)
    day, study = items(data)
    assert "1 study found was left out, because the archive states no valid UIDs" in day[2]
    assert study == ("study", "fetched", None)
    assert here(config) == uids(archive)


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_a_day_of_which_all_studies_were_left_out_is_dead(archive: FakeArchive, config: Config) -> None:
    for held in archive.held:
        held.StudyDate, held.StudyInstanceUID = "20240131", "*"
    want(config, "day", "20240131")
    with fetching(config) as data:
        until(lambda: states(data) in (["dead"], ["fetched"]))
    assert states(data) == ["dead"]
    assert "1 study found was left out" in items(data)[0][2]


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize("level", ["SERIES", "IMAGE"])
def test_a_study_with_an_object_that_cannot_be_asked_for_is_not_complete(
    level: str, archive: FakeArchive, config: Config
) -> None:
    """The other objects arrive."""
    archive.strange[level] = "*"
    want(config, "study", study_of(archive))
    with fetching(config) as data:
        until(lambda: states(data) == ["dead"])
    ((_, _, reason),) = items(data)
    assert "1 series or object was left out" in reason
    assert here(config) == archive.asked == uids(archive)


def test_an_accession_number_in_any_script_is_sent_as_it_is(archive: FakeArchive, config: Config) -> None:
    """Without a character set it would be sent as ??, which is a pattern."""
    for held in archive.held:
        held.SpecificCharacterSet, held.AccessionNumber = "ISO_IR 192", "漢漢"
    want(config, "accession", "漢漢")
    with fetching(config) as data:
        until(lambda: states(data) == ["fetched"] * 2)
    assert here(config) == uids(archive)


def test_no_identifier_is_in_logs(archive: FakeArchive, config: Config, caplog: pytest.LogCaptureFixture) -> None:
    """Names, UIDs and accession numbers: with an object that fails, and with one that arrives."""
    caplog.set_level("DEBUG")
    for held in archive.held:
        held.AccessionNumber = "ACC4711"
    archive.statuses[uids(archive)[0]] = 0xA702
    want(config, "accession", "ACC4711")
    with fetching(config) as data:
        until(lambda: states(data) == ["fetched", "dead"])
    assert caplog.text
    audit = "".join(path.read_text() for path in (data.root / "audit").glob("*.jsonl"))
    reasons = str(items(data))
    for identifier in (CANARY, "ACC4711", study_of(archive), *uids(archive)):
        assert identifier not in caplog.text + audit + reasons
    assert rows(data, "SELECT value FROM fetch WHERE kind = 'accession'") == [(None,)]
