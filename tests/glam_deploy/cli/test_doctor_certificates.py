"""What `doctor` says of certificates: each fault that an administrator can make, and a TLS listener that runs."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from support.certificates import DAY, Authority
from support.receive import close_sockets, config_of, running_receiver

from glam_deploy.appliance.config import Config, Receive, Target, Tls
from glam_deploy.cli.doctor import findings
from glam_deploy.cli.doctor_certificates import certificates
from glam_deploy.cli.doctor_findings import Finding, ok

YEAR = timedelta(days=365)

Files = tuple[Path, Path, Path]
"""Certificate, key, authority."""


@pytest.fixture(autouse=True)
def sockets_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    close_sockets(monkeypatch)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "tls", until=YEAR)


def files(authority: Authority, **options: object) -> Files:
    return *authority.sign("glam", **{"until": YEAR} | options), authority.authority  # type: ignore[arg-type]


def listening(folder: Path, made: Files) -> Config:
    certificate, key, authority = made
    tls = {"certificate": certificate, "key": key, "authority": authority, "port": 0}
    return config_of(folder, port=False, tls=tls)


def told(config: Config) -> list[tuple[str, str, str]]:
    return [(each.state, each.what, each.found) for each in certificates(config)]


def test_good_certificates(tmp_path: Path, authority: Authority) -> None:
    (state, what, found), (_, _, root) = told(listening(tmp_path, files(authority)))
    assert (state, what) == ("ok", "certificate of receive.tls")
    assert "valid until" in found
    assert "glam.key is its key" in found
    assert "authority.crt, valid until" in root


def wrong_key(made: Files, folder: Path) -> None:
    made[1].write_bytes(Authority(folder / "other").sign("other")[1].read_bytes())


FAULTS: dict[str, tuple[dict[str, object], Callable[[Files, Path], object], str, str]] = {
    "ended": ({"since": -3 * DAY, "until": -DAY}, lambda made, _: None, "FAILS", "expired on"),
    "ends soon": ({"until": 29.5 * DAY}, lambda made, _: None, "note", ", in 29 days"),
    "not yet": ({"since": DAY, "until": 90 * DAY}, lambda made, _: None, "FAILS", "is not valid before"),
    "password": ({"password": b"secret"}, lambda made, _: None, "FAILS", "has a password"),
    "not for servers": (
        {"usages": [ExtendedKeyUsageOID.CLIENT_AUTH]},
        lambda made, _: None,
        "note",
        "not made for ser",
    ),
    "another key": ({}, wrong_key, "FAILS", "glam.key is not the key of the certificate"),
    "key for all": ({}, lambda made, _: made[1].chmod(0o644), "note", "other users may read the key"),
    "no key": ({}, lambda made, _: made[1].write_text("?"), "FAILS", "glam.key holds no key"),
    "no certificate": ({}, lambda made, _: made[0].write_text("?"), "FAILS", "glam.crt holds no certificate"),
    "missing": ({}, lambda made, _: made[0].unlink(), "FAILS", "glam.crt cannot be read (No such file"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_our_own_files(tmp_path: Path, authority: Authority, fault: str) -> None:
    options, spoil, state, words = FAULTS[fault]
    made = files(authority, **options)
    spoil(made, tmp_path)
    (finding,) = (each for each in certificates(listening(tmp_path, made)) if each.what.startswith("certificate"))
    assert (finding.state, words in finding.found) == (state, True), finding
    assert finding.remedy


def test_an_authority_that_has_ended_counts_only_while_no_later_one_is_in_the_file(tmp_path: Path) -> None:
    old, new = Authority(tmp_path / "old", until=timedelta(minutes=-1)), Authority(tmp_path / "new", until=YEAR)
    config = listening(tmp_path, (*new.sign("glam", until=YEAR), old.authority))
    assert told(config)[1][0] == "FAILS"
    old.authority.write_bytes(old.authority.read_bytes() + new.authority.read_bytes())
    assert told(config)[1][0] == "ok"


def test_targets_have_theirs(tmp_path: Path, authority: Authority) -> None:
    certificate, key, root = files(authority, usages=[ExtendedKeyUsageOID.SERVER_AUTH])
    tls = Tls(certificate=certificate, key=key, authority=root)
    dimse = Target(name="pacs", ae_title="PACS", host="127.0.0.1", port=1, tls=tls)
    stow = Target(name="web", stow_url="https://pacs/dicom-web", stow_authority=tmp_path / "none")
    config = listening(tmp_path, (certificate, key, root)).model_copy(
        update={"targets": (dimse, stow), "receive": Receive()}
    )
    assert [(state, what) for state, what, _ in told(config)] == [
        ("note", "certificate of target pacs"), ("ok", "authority of target pacs"), ("FAILS", "authority of target web")
    ]  # fmt: skip


# a listener that runs


def looked(config: Config, port: int) -> Finding:
    (finding,) = (each for each in findings(config) if each.what == f"dicom-tls port {port}")
    return finding


def test_a_tls_listener_answers_a_c_echo(tmp_path: Path, authority: Authority) -> None:
    config = listening(tmp_path, files(authority))
    with running_receiver(config) as (port,):
        assert looked(config, port) == ok(
            f"dicom-tls port {port}", "GLAM at 127.0.0.1 answers a C-ECHO over TLS from STORESCU"
        )


def test_its_own_check_is_no_rejected_association(tmp_path: Path, authority: Authority) -> None:
    config = listening(tmp_path, files(authority))
    with running_receiver(config) as (port,):
        assert looked(config, port).state == "ok"
    with closing(sqlite3.connect(config.data / "state.db")) as connection:
        assert connection.execute("SELECT * FROM refusal").fetchall() == []
    log = "".join(path.read_text() for path in (config.data / "audit").iterdir())
    assert ("the peer aborted before it requested" in log, "association_rejected" in log) == (True, False)


def test_a_certificate_that_is_not_for_callers_is_enough_for_a_listener(tmp_path: Path, authority: Authority) -> None:
    config = listening(tmp_path, (*authority.sign("glam"), Authority(tmp_path / "theirs", until=YEAR).authority))
    with running_receiver(config) as (port,):
        finding = looked(config, port)
    assert finding.state == "ok"
    assert "answers with the certificate in" in finding.found
    assert "no C-ECHO sent" in finding.found


def test_a_renewed_certificate_counts_after_a_restart(tmp_path: Path, authority: Authority) -> None:
    config = listening(tmp_path, files(authority))
    with running_receiver(config) as (port,):
        files(authority)
        finding = looked(config, port)
    assert finding.state == "FAILS"
    assert "it presents another certificate than the one in" in finding.found
