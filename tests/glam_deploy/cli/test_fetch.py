"""`fetch`: what is asked for, listed, retried and cancelled, and the messages when that is not possible."""

import json
import sqlite3
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path

import pytest
from support.commands import Cli
from support.jobs import rows

from glam_deploy.appliance.audit import open_audit
from glam_deploy.appliance.config import parse_config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.state import fetches
from glam_deploy.appliance.state.database import open_database
from glam_deploy.cli import fetch

HEAD = 'license_acknowledged = true\ndata = "data"\n[web]\ntoken_file = "t"\n[worker]\nbundle = "bundle"\n'
ARCHIVE = '[fetch]\nae_title = "PACS"\nhost = "10.0.0.1"\nport = 104\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "glam.toml"
    path.write_text(HEAD + ARCHIVE)
    data = DataFolder(root=tmp_path / "data")
    data.make()
    open_database(data.database).close()
    return path


@pytest.fixture
def data(config: Path) -> DataFolder:
    return DataFolder(root=config.parent / "data")


def items(data: DataFolder) -> list[tuple[object, ...]]:
    return rows(data, "SELECT kind, value, state FROM fetch ORDER BY id")


def test_a_range_of_days(cli: Cli, config: Path, data: DataFolder) -> None:
    ended = cli("fetch", "add", "--config", config, "--from", "2024-02-28", "--to", "2024-03-01")
    assert (ended.code, ended.out) == (0, "3 new days\n")
    assert items(data) == [("day", day, "wanted") for day in ("20240228", "20240229", "20240301")]


def test_days_until_today(cli: Cli, config: Path, data: DataFolder) -> None:
    yesterday = date.today() - timedelta(1)
    assert cli("fetch", "add", "--config", config, "--from", f"{yesterday}").code == 0
    assert items(data)[0] == ("day", f"{yesterday:%Y%m%d}", "wanted")
    assert len(items(data)) >= 2


def test_a_list_is_added_once(cli: Cli, config: Path, data: DataFolder, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("﻿StudyInstanceUID;AccessionNumber\n1.2.3;A1\n;A2\n", "utf-8")
    said = [cli("fetch", "add", "--config", config, "--list", tmp_path / "list.csv").out for _ in range(2)]
    assert said == [
        "1 new study UID\n1 new accession number\n",
        "0 new study UIDs, 1 known before\n0 new accession numbers, 1 known before\n",
    ]
    assert items(data) == [("study", "1.2.3", "wanted"), ("accession", "A2", "wanted")]
    audit = "".join(path.read_text() for path in data.audit.glob("*.jsonl"))
    assert '"fetch_added"' in audit
    assert "1.2.3" not in audit
    assert "A2" not in audit


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "expected either --from and --to, or --list"),
        (("--to", "2024-01-01"), "expected either --from and --to, or --list"),
        (("--from", "2024-01-02", "--to", "2024-01-01"), "exchange --from and --to"),
        (("--list", "absent.csv"), "absent.csv cannot be read (No such file or directory)"),
        (("--from", "1.2.2024"), "does not match the format '%Y-%m-%d'"),
    ],
)
def test_wrong_use(words: tuple[str, ...], message: str, cli: Cli, config: Path) -> None:
    ended = cli("fetch", "add", "--config", config, *words)
    assert ended.code == 2
    assert message in " ".join(ended.err.split())


def test_a_list_with_a_wrong_row_adds_nothing(cli: Cli, config: Path, data: DataFolder, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("AccessionNumber\nA1\nA*\n")
    ended = cli("fetch", "add", "--config", config, "--list", tmp_path / "list.csv")
    assert ended.code == 2
    assert "line 3" in ended.err
    assert items(data) == []


@pytest.mark.parametrize("break_", ["\f", "\v", "\x85", "\u2028"])
def test_only_line_ends_start_a_row(break_: str, cli: Cli, config: Path, data: DataFolder, tmp_path: Path) -> None:
    """RFC 4180: other characters at which Python splits text are part of a cell."""
    (tmp_path / "list.csv").write_text(f"AccessionNumber;Note\r\nA1;x{break_}B2;y\r\n", "utf-8", newline="")
    assert cli("fetch", "add", "--config", config, "--list", tmp_path / "list.csv").code == 0
    assert items(data) == [("accession", "A1", "wanted")]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_another_encoding_is_refused_with_the_remedy(
    encoding: str, cli: Cli, config: Path, data: DataFolder, tmp_path: Path
) -> None:
    (tmp_path / "list.csv").write_text("AccessionNumber;Name\nA1;Müller\n", encoding)
    ended = cli("fetch", "add", "--config", config, "--list", tmp_path / "list.csv")
    assert ended.code == 2
    assert "CSV UTF-8" in " ".join(ended.err.split())
    assert items(data) == []


def test_a_list_of_too_many_bytes(cli: Cli, config: Path, tmp_path: Path) -> None:
    with (tmp_path / "list.csv").open("wb") as file:
        file.truncate((64 << 20) + 1)
    ended = cli("fetch", "add", "--config", config, "--list", tmp_path / "list.csv")
    assert ended.code == 2
    assert "has 67108865 bytes, expected up to 67108864: split it" in " ".join(ended.err.split())


def test_without_the_table_nothing_can_be_added(cli: Cli, config: Path) -> None:
    config.write_text(HEAD)
    ended = cli("fetch", "add", "--config", config, "--from", "2024-01-01")
    assert ended.code == 2
    assert "add the table [fetch]" in ended.err


def add(data: DataFolder, *values: str) -> sqlite3.Connection:
    connection = open_database(data.database)
    fetches.add(connection, "study", values, open_audit(data).pseudonym)
    return connection


def test_list_shows_state_reason_and_fetcher(cli: Cli, config: Path, data: DataFolder) -> None:
    name = open_audit(data).pseudonym("1.2.3")
    with closing(add(data, "1.2.3", "1.2.4")) as connection:
        item = fetches.claim(connection, 0)
        assert item
        fetches.fail(connection, item, "made up", next_try=0, attempts=1)
    out = cli("fetch", "list", "--config", config).out
    assert "1 wanted, 0 fetching, 0 fetched, 1 dead, 0 cancelled" in out
    assert "the fetcher has never run" in out
    assert f"1  study {name}  dead, 1 attempt" in out
    assert "    made up" in out
    assert "1.2.3" not in out
    found = json.loads(cli("fetch", "list", "--config", config, "--json").out)
    assert found["states"]["dead"] == 1
    assert [(each["id"], each["state"]) for each in found["items"]] == [(1, "dead"), (2, "wanted")]
    assert "2  study" in cli("fetch", "list", "--config", config, "--state", "wanted").out


def test_a_long_list_is_cut(cli: Cli, config: Path, data: DataFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "SHOWN", 2)
    add(data, "1.2.3", "1.2.4", "1.2.5").close()
    out = cli("fetch", "list", "--config", config).out
    assert out.count("study") == 2
    assert "and 1 more" in out
    assert cli("fetch", "list", "--config", config, "--all").out.count("study") == 3


def test_retry_and_cancel(cli: Cli, config: Path, data: DataFolder) -> None:
    name = open_audit(data).pseudonym("1.2.4")
    add(data, "1.2.3", "1.2.4", "1.2.5").close()
    assert cli("fetch", "cancel", "--config", config, "1.2.3", name[:6], "--yes").out == "2 items cancelled\n"
    assert [state for *_, state in items(data)] == ["cancelled", "cancelled", "wanted"]
    assert cli("fetch", "retry", "--config", config, "1").out == "1 item retried\n"
    assert [state for *_, state in items(data)] == ["wanted", "cancelled", "wanted"]
    assert cli("fetch", "cancel", "--config", config, "--all", "--yes").out == "2 items cancelled\n"
    ended = cli("fetch", "cancel", "--config", config, "1", "--yes")
    assert ended.code == 1
    assert "item 1 is cancelled" in ended.err


def test_retry_of_all_dead_ones(cli: Cli, config: Path, data: DataFolder) -> None:
    with closing(add(data, "1.2.3", "1.2.4")) as connection:
        item = fetches.claim(connection, 0)
        assert item
        fetches.fail(connection, item, "made up", next_try=0, attempts=1)
    assert cli("fetch", "retry", "--config", config, "--dead").out == "1 item retried\n"


@pytest.mark.parametrize(
    ("words", "message"), [((), "no item is given"), (("nothing",), "there is no item 'nothing'"), (("99",), "no item")]
)
def test_items_that_are_not_there(words: tuple[str, ...], message: str, cli: Cli, config: Path) -> None:
    for command in ("retry", "cancel"):
        ended = cli("fetch", command, "--config", config, *words)
        assert ended.code == 2
        assert message in " ".join(ended.err.split())


# configuration


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('ae_title = "PACS"', "fetch: give either ae_title, host and port, or url"),
        ('url = "https://pacs/d"\nhost = "pacs"', "fetch: give either ae_title, host and port, or url"),
        ('url = "ftp://pacs/d"', "url is not a DICOMweb root"),
        ('url = "http://pacs/d"\ntoken_file = "t"', "url is http, which sends the token or password unencrypted"),
        ('url = "https://pacs/d"\nuser = "u"', "give user and password_file, or token_file, or none"),
        (f'{ARCHIVE[8:]}user = "u"', "go with url only"),
        (f'{ARCHIVE[8:]}windows = ["22-6"]', "expected a time of the day as in 22:00-06:00"),
        (f'{ARCHIVE[8:]}windows = ["24:00-06:00"]', "expected a time of the day as in 22:00-06:00"),
        (f'{ARCHIVE[8:]}windows = ["06:00-06:00"]', "ends when it starts"),
        (f'{ARCHIVE[8:]}retrieve = "move"', "PACS may not send to this appliance"),
        (f'{ARCHIVE[8:]}targets = ["x"]', "fetch.targets names the unknown target x"),
        (f"{ARCHIVE[8:]}at_once = 0", "fetch.at_once"),
    ],
)
def test_a_wrong_table_is_named(table: str, message: str, cli: Cli, config: Path) -> None:
    config.write_text(f"{HEAD}[fetch]\n{table}\n")
    ended = cli("check-config", "--config", config)
    assert ended.code == 2
    assert message in " ".join(ended.err.split())


def test_check_config_says_what_it_means(cli: Cli, config: Path) -> None:
    config.write_text(f'{HEAD}{ARCHIVE}windows = ["22:00-06:00"]\ntargets = []\n[priority]\nstat_senders = ["ER"]\n')
    out = cli("check-config", "--config", config).out
    assert "fetch      from PACS at 10.0.0.1 port 104 by C-GET, 22:00-06:00, results to no target" in out
    assert "urgent     exams of ER" in out


def test_it_is_off_by_default(tmp_path: Path) -> None:
    from glam_deploy.appliance.supervisor import configured_roles

    off, on = (parse_config(HEAD + table, folder=tmp_path) for table in ("", ARCHIVE))
    assert "fetcher" not in configured_roles(off)
    assert "fetcher" in configured_roles(on)
