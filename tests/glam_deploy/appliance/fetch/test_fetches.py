"""Items to fetch in `state.db`: their transitions, and studies that wait for the rest of their images."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.jobs import arrive, config_of, database_of, made

from glam_deploy.appliance.config import Assemble
from glam_deploy.appliance.state import fetches, studies
from glam_deploy.appliance.state.fetches import Added
from glam_deploy.appliance.state.priority import Priority
from glam_deploy.errors import UsageError
from glam_deploy.records import View

STUDY = "1.2.3"
RULES = Assemble(quiet_s=60, cap_s=1800)


def name_of(value: str) -> str:
    """As `support.jobs.arrive` names studies."""
    return f"name of {value}"


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(database_of(made(config_of(tmp_path)))) as connection:
        yield connection


def states(connection: sqlite3.Connection) -> dict[str, str]:
    return {row["name"]: row["state"] for row in fetches.items(connection)}


def test_what_is_asked_for_twice_is_one_item(connection: sqlite3.Connection) -> None:
    assert fetches.add(connection, "study", [STUDY, STUDY, "1.2.4"], name_of) == Added(new=2, again=0, known=0)
    assert fetches.add(connection, "study", [STUDY], name_of) == Added(new=0, again=0, known=1)
    assert fetches.counts(connection)["wanted"] == 2


def test_a_search_adds_only_studies_that_are_not_known(connection: sqlite3.Connection) -> None:
    fetches.add(connection, "study", [STUDY], name_of)
    done = fetches.claim(connection, 0.0)
    assert done
    assert fetches.finish_study(connection, done, 4)
    fetches.add(connection, "day", ["20240131"], name_of)
    search = fetches.claim(connection, 0.0)
    assert search
    assert search.value == "20240131"
    assert fetches.finish_search(connection, search, [STUDY, "1.2.4", "1.2.4"], name_of) == 1
    assert states(connection) == {name_of(STUDY): "fetched", "20240131": "fetched", name_of("1.2.4"): "wanted"}
    found = fetches.claim(connection, 0.0)
    assert found
    assert (found.kind, found.value) == ("study", "1.2.4")


@pytest.mark.parametrize("how", ["add", "finish_search"])
def test_other_processes_write_while_many_items_are_added(
    how: str, connection: sqlite3.Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second connection that waits for nobody writes at each pause, and at the name of each study."""
    uids = [f"1.2.{number}" for number in range(1, 1201)]
    seen: list[int] = []
    with closing(sqlite3.connect(made(config_of(tmp_path)).database, timeout=0)) as other:

        def write(value: str) -> str:
            with other:
                other.execute("UPDATE steady SET base = base")
            return value

        def pause(seconds: float) -> None:
            assert seconds > 0
            write("")
            seen.append(other.execute("SELECT count(*) FROM fetch WHERE kind = 'study'").fetchone()[0])

        monkeypatch.setattr(fetches.time, "sleep", pause)
        if how == "add":
            assert fetches.add(connection, "study", [*uids, *uids], write) == Added(new=1200, again=0, known=0)
        else:
            fetches.add(connection, "day", ["20240131"], name_of)
            search = fetches.claim(connection, 0.0)
            assert search
            assert fetches.finish_search(connection, search, uids, write) == 1200
    assert seen == [500, 1000]
    assert fetches.counts(connection)["wanted"] == 1200


def test_a_search_that_is_cancelled_while_its_studies_are_added_adds_no_more(
    connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetches.add(connection, "day", ["20240131"], name_of)
    search = fetches.claim(connection, 0.0)
    assert search
    monkeypatch.setattr(fetches.time, "sleep", lambda _: fetches.cancel(connection, search.id))
    fetches.finish_search(connection, search, [f"1.2.{number}" for number in range(1, 1201)], name_of)
    assert fetches.counts(connection) == {"wanted": 500, "fetching": 0, "fetched": 0, "dead": 0, "cancelled": 1}


def test_a_day_is_searched_again_and_a_fetched_study_only_on_demand(connection: sqlite3.Connection) -> None:
    for kind, value in (("study", STUDY), ("day", "20240131")):
        fetches.add(connection, kind, [value], name_of)  # type: ignore[arg-type]
        item = fetches.claim(connection, 0.0)
        assert item
        assert fetches.finish_study(connection, item, 0)
    assert fetches.add(connection, "day", ["20240131"], name_of).again == 1
    assert fetches.add(connection, "study", [STUDY], name_of).known == 1
    assert fetches.add(connection, "study", [STUDY], name_of, again=True).again == 1
    item = fetches.claim(connection, 0.0)
    assert item
    assert item.value == STUDY


@pytest.mark.parametrize(
    ("end", "again", "outcome"),
    [("cancelled", False, "again"), ("cancelled", True, "again"), ("dead", False, "known"), ("dead", True, "again")],
)
@pytest.mark.parametrize("kind", ["study", "day"])
def test_what_was_given_up_is_wanted_again_from_its_beginning(
    kind: fetches.Kind, end: str, again: bool, outcome: str, connection: sqlite3.Connection
) -> None:
    fetches.add(connection, kind, ["20240131"], name_of)
    item = fetches.claim(connection, 0.0)
    assert item
    fetches.fail(connection, item, "made up", next_try=50.0, attempts=1)
    if end == "cancelled":
        fetches.cancel(connection, item.id)
    added = fetches.add(connection, kind, ["20240131"], name_of, again=again)
    assert added == Added(**{"new": 0, "again": 0, "known": 0, outcome: 1})
    row = connection.execute("SELECT state, attempts, next_try, reason FROM fetch").fetchone()
    assert tuple(row) == (("wanted", 0, 0.0, None) if outcome == "again" else ("dead", 1, 50.0, "made up"))


def test_an_item_that_is_given_back_keeps_its_attempts_and_its_reason(connection: sqlite3.Connection) -> None:
    fetches.add(connection, "study", [STUDY], name_of)
    for reason, next_try, told in (("no answer", 40.0, "no answer"), (None, 60.0, "no answer")):
        item = fetches.claim(connection, next_try - 1)
        assert item
        fetches.release(connection, item, reason=reason, next_try=next_try)
        assert fetches.claim(connection, next_try - 1) is None
        (row,) = fetches.items(connection)
        assert (row["state"], row["attempts"], row["reason"]) == ("wanted", 0, told)
    item = fetches.claim(connection, 60.0)
    assert item
    fetches.release(connection, item)
    assert fetches.claim(connection, 0.0) == item


def test_what_a_search_and_a_study_have_found(connection: sqlite3.Connection) -> None:
    def finished() -> list[tuple[object, ...]]:
        return [
            (row["found"], row["reason"], row["finished_at"] is not None)
            for row in fetches.items(connection, ["fetched"])
        ]

    fetches.add(connection, "day", ["20240131", "20240201", "20240202"], name_of)
    for studies_found, reason in ((["1.2.1", "1.2.2", "1.2.1"], None), ([], None), ([], "made up")):
        item = fetches.claim(connection, 0.0)
        assert item
        fetches.finish_search(connection, item, studies_found, name_of, reason=reason)
    for reason in (None, "1 of 5 is elsewhere"):
        item = fetches.claim(connection, 0.0)
        assert item
        assert fetches.finish_study(connection, item, 4, *([reason] if reason else []))
    assert finished() == [
        (2, None, True), (0, "no mammography found", True), (0, "made up", True),
        (4, None, True), (4, "1 of 5 is elsewhere", True),
    ]  # fmt: skip


def test_a_study_is_being_fetched_from_its_beginning_to_its_end(connection: sqlite3.Connection) -> None:
    fetches.add(connection, "study", [STUDY, "1.2.4"], name_of)
    assert not fetches.is_fetching(connection, name_of(STUDY))
    item = fetches.claim(connection, 0.0)
    assert item
    assert fetches.is_fetching(connection, name_of(STUDY))
    assert not fetches.is_fetching(connection, name_of("1.2.4"))
    assert fetches.finish_study(connection, item, 4)
    assert not fetches.is_fetching(connection, name_of(STUDY))


def test_identifiers_leave_the_database_when_they_are_not_needed(connection: sqlite3.Connection) -> None:
    fetches.add(connection, "accession", ["A1"], name_of)
    item = fetches.claim(connection, 0.0)
    assert item
    fetches.finish_search(connection, item, [STUDY], name_of)
    (row,) = connection.execute("SELECT name, value FROM fetch WHERE kind = 'accession'").fetchall()
    assert tuple(row) == (name_of("A1"), None)


def test_attempts_backoff_death_and_retry(connection: sqlite3.Connection) -> None:
    fetches.add(connection, "study", [STUDY], name_of)
    item = fetches.claim(connection, 0.0)
    assert item
    assert fetches.fail(connection, item, "made up", next_try=10.0, attempts=2) == "wanted"
    assert fetches.claim(connection, 9.0) is None
    item = fetches.claim(connection, 10.0)
    assert item
    assert item.attempts == 1
    assert fetches.fail(connection, item, "made up", next_try=20.0, attempts=2) == "dead"
    assert fetches.claim(connection, 99.0) is None
    assert not fetches.take_retry_request(connection)
    fetches.retry(connection, item.id)
    assert fetches.take_retry_request(connection)
    assert not fetches.take_retry_request(connection)
    again = fetches.claim(connection, 0.0)
    assert again
    assert again.attempts == 0


def test_a_killed_fetcher_loses_nothing(connection: sqlite3.Connection) -> None:
    fetches.add(connection, "study", [STUDY, "1.2.4"], name_of)
    assert fetches.claim(connection, 0.0)
    assert fetches.release_all(connection) == 1
    assert [fetches.claim(connection, 0.0), fetches.claim(connection, 0.0)] != [None, None]


@pytest.mark.parametrize("transition", ["finish_study", "fail", "release", "finish_search"])
def test_what_a_person_cancelled_stays_cancelled(transition: str, connection: sqlite3.Connection) -> None:
    fetches.add(connection, "study", [STUDY], name_of)
    item = fetches.claim(connection, 0.0)
    assert item
    fetches.cancel(connection, item.id)
    late: dict[str, Callable[[], object]] = {
        "finish_study": lambda: fetches.finish_study(connection, item, 4),
        "fail": lambda: fetches.fail(connection, item, "late", next_try=0, attempts=1),
        "release": lambda: fetches.release(connection, item),
        "finish_search": lambda: fetches.finish_search(connection, item, ["1.2.9"], name_of),
    }
    late[transition]()
    assert states(connection) == {name_of(STUDY): "cancelled"}
    fetches.retry(connection, item.id)
    assert states(connection) == {name_of(STUDY): "wanted"}


def test_what_cannot_be_decided(connection: sqlite3.Connection) -> None:
    fetches.add(connection, "study", [STUDY], name_of)
    item = fetches.claim(connection, 0.0)
    assert item
    with pytest.raises(UsageError, match="is fetching: only wanted or dead or cancelled items can be retried"):
        fetches.retry(connection, item.id)
    fetches.finish_study(connection, item, 4)
    with pytest.raises(UsageError, match="item 1 is fetched"):
        fetches.cancel(connection, item.id)
    with pytest.raises(UsageError, match="item 9 does not exist"):
        fetches.cancel(connection, 9)


def test_items_are_found_by_number_day_name_and_identifier(connection: sqlite3.Connection) -> None:
    fetches.add(connection, "day", ["20240131"], name_of)
    fetches.add(connection, "accession", ["A1"], lambda value: "0123456789abcdef")
    for text in ("20240131",):
        assert fetches.matching(connection, text, name_of) == [1]
    for text in ("2", "0123", "0123456789abcdef"):
        assert fetches.matching(connection, text, name_of) == [2]
    assert fetches.matching(connection, "A1", lambda value: "0123456789abcdef") == [2]
    assert fetches.matching(connection, "012", name_of) == fetches.matching(connection, "%%%%", name_of) == []


def test_seven_digits_are_a_number_and_eight_a_day(connection: sqlite3.Connection) -> None:
    fetches.add(connection, "day", ["20240131"], name_of)
    for number, name in ((1234567, "a"), (20240131, "b")):
        connection.execute(
            "INSERT INTO fetch (id, kind, name, value, state, created_at) VALUES (?, 'study', ?, ?, 'wanted', 0)",
            (number, name, name),
        )
    assert fetches.matching(connection, "1234567", name_of) == [1234567]
    assert fetches.matching(connection, "20240131", name_of) == [1]
    assert fetches.matching(connection, "\u00b2", name_of) == [], "a digit that is no number"


# assembly


def jobs_at(connection: sqlite3.Connection, now: float) -> list[str]:
    studies.assemble_complete(connection, RULES, now)
    return [row["reason"] for row in connection.execute("SELECT reason FROM study WHERE state = 'assembled'")]


def begun(connection: sqlite3.Connection) -> fetches.FetchItem:
    """A study of which all four views are here, of five that are wanted."""
    fetches.add(connection, "study", [STUDY], name_of)
    item = fetches.claim(connection, 0.0)
    assert item
    for view in View:
        arrive(connection, f"{STUDY}.{view.value}", view=view)
    connection.execute("UPDATE study SET priority = ?", (Priority.FETCHED,))
    return item


@pytest.mark.parametrize("interrupted", [False, True])
def test_a_study_waits_until_all_of_it_is_fetched(interrupted: bool, connection: sqlite3.Connection) -> None:
    """Also while its fetcher is killed, or the archive is down."""
    item = begun(connection)
    assert jobs_at(connection, 100.0) == []
    if interrupted:
        fetches.release_all(connection)
        assert jobs_at(connection, 200.0) == []
        assert fetches.claim(connection, 0.0)
    fetches.finish_study(connection, item, 5)
    assert jobs_at(connection, 201.0) == ["fetched from the archive"]


def test_it_does_not_wait_for_ever(connection: sqlite3.Connection) -> None:
    begun(connection)
    assert jobs_at(connection, 1799.0) == []
    assert jobs_at(connection, 1800.0) == ["open for 1800 s"]


def test_of_a_study_that_is_given_up_the_images_that_came_are_processed(connection: sqlite3.Connection) -> None:
    item = begun(connection)
    fetches.fail(connection, item, "made up", next_try=0, attempts=1)
    assert jobs_at(connection, 1.0) == ["all four views"]


def test_an_exam_that_is_sent_does_not_wait_for_the_fetcher(connection: sqlite3.Connection) -> None:
    begun(connection)
    connection.execute("UPDATE study SET priority = ?", (Priority.LIVE,))
    assert jobs_at(connection, 1.0) == ["all four views"]
