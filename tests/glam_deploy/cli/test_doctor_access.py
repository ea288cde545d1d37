"""`doctor` on the reverse proxy and the login provider: what is wrong in [web], and what to register."""

import re
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest
from support.providers import FalseProvider, false_provider, oidc_table
from support.web import appliance, configuration, serving

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.state import overview
from glam_deploy.appliance.state.database import monotonic_clock, record_heartbeat
from glam_deploy.cli import doctor_access
from glam_deploy.cli.doctor_findings import FAILS, Finding

PUBLIC = "https://pacs.example/glam"


def found(config: Config, **detail: object) -> list[Finding]:
    """The findings while the web process runs, whose heartbeat has this detail."""
    with appliance(config) as made:
        record_heartbeat(made.connection, made.monotonic, "web", "ready", detail)
        with overview.open_read_only(made.context.data.database) as connection:
            processes = overview.components(connection, made.monotonic())
    findings = list(doctor_access.access(config, processes))
    assert all(finding.remedy for finding in findings if finding.state != "ok")
    return findings


def states(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.what, finding.state) for finding in findings]


def test_a_proxy_that_is_trusted(tmp_path: Path) -> None:
    config = configuration(tmp_path, public_url=PUBLIC, trusted_proxies=["10.0.0.7"])
    assert [finding.found for finding in found(config, forwarded_by=[])] == [f"{PUBLIC}, by 10.0.0.7/32"]


def test_forwarded_headers_without_trusted_proxies(tmp_path: Path) -> None:
    one, other = found(configuration(tmp_path, public_url=PUBLIC), forwarded_by=["10.0.0.7"])
    assert (one.state, other.state) == ("note", "note")
    assert "forwarded headers of 10.0.0.7 are ignored" in one.found
    assert 'trusted_proxies = ["10.0.0.7"]' in one.remedy
    assert "web.trusted_proxies is empty" in other.found
    assert found(configuration(tmp_path)) == []


def test_a_token_that_was_replaced(tmp_path: Path) -> None:
    """The running pages take the earlier one, which may have leaked, and refuse the new one."""
    config = configuration(tmp_path, port=0)
    token = config.web.token_file
    assert token
    with appliance(config) as made, serving(made) as address:
        assert running(config) == []
        token.write_text("n" * 32)
        assert httpx.get(address, headers={"Authorization": f"Bearer {'n' * 32}"}).status_code == 401
        (finding,) = running(config)
    assert (finding.what, finding.state) == ("web", FAILS)
    assert "web.token_file was changed after the start of the pages" in finding.found
    with appliance(config) as made, serving(made):
        assert running(config) == []


def running(config: Config) -> list[Finding]:
    """The findings by the heartbeats of processes that run."""
    with overview.open_read_only(config.data / "state.db") as connection:
        processes = overview.components(connection, monotonic_clock(connection)())
    return list(doctor_access.access(config, processes))


def test_a_public_url_without_encryption(tmp_path: Path) -> None:
    web = configuration(tmp_path).web.model_copy(update={"public_url": "http://pacs.example"})
    config = configuration(tmp_path).model_copy(update={"web": web})
    (finding, _) = list(doctor_access.access(config, {}))
    assert (finding.what, finding.state) == ("web", FAILS)
    assert "web.public_url is http://pacs.example" in finding.found


def with_provider(folder: Path, provider: FalseProvider) -> Config:
    keys = {"public_url": "http://localhost/glam", "trusted_proxies": ["127.0.0.1"]}
    return configuration(folder, **keys, oidc=oidc_table(provider.issuer))


def test_a_login_provider_and_what_to_register(tmp_path: Path) -> None:
    with false_provider() as provider:
        provider.metadata = {"end_session_endpoint": f"{provider.issuer}/end"}
        _, finding = found(with_provider(tmp_path, provider))
    assert finding.state == "ok"
    uris = re.findall(r"http://localhost/\S+", finding.found)
    assert uris == ["http://localhost/glam/login/callback", "http://localhost/glam/login"]


def test_a_login_provider_that_is_down(tmp_path: Path) -> None:
    with false_provider() as provider:
        config = with_provider(tmp_path, provider)
    _, finding = found(config)
    assert finding.state == FAILS
    assert "127.0.0.1 cannot be used: no connection" in finding.found


@pytest.mark.parametrize(
    ("metadata", "state", "told"),
    [
        ({"issuer": "https://evil.example/"}, FAILS, "is the issuer https://evil.example/, expected that of"),
        ({"code_challenge_methods_supported": ["plain"]}, "note", "does not support PKCE with S256"),
        ({}, "note", "no end_session_endpoint"),
    ],
)
def test_a_login_provider_that_lacks_something(
    tmp_path: Path, metadata: dict[str, object], state: str, told: str
) -> None:
    with false_provider() as provider:
        provider.metadata = metadata
        findings = found(with_provider(tmp_path, provider))
    (finding,) = [finding for finding in findings if told in finding.found]
    assert (finding.what, finding.state) == ("login provider", state)


@pytest.mark.parametrize(("ahead", "told"), [(600, "600 s ahead of"), (-600, "600 s behind"), (30, "")])
def test_clocks_that_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: int, told: str) -> None:
    moment = datetime(2026, 11, 1, 12, tzinfo=UTC)
    monkeypatch.setattr(doctor_access.time, "time", moment.timestamp)
    with false_provider() as provider:
        oidc = with_provider(tmp_path, provider).web.oidc
        assert oidc
    date = format_datetime(moment + timedelta(seconds=ahead), usegmt=True)
    findings = list(doctor_access._clock("login provider", oidc, date))
    assert [told in finding.found for finding in findings] == [True] * bool(told)
