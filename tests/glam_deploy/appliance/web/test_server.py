"""The role `web` on real sockets: where it listens, whom TLS lets in, and how it ends."""

import json
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from support.certificates import Authority
from support.web import PAGE, TOKEN, appliance, configuration, serving

from glam_deploy.appliance.config import Config, Tls
from glam_deploy.appliance.web import server
from glam_deploy.appliance.web.access import check_web
from glam_deploy.errors import UsageError


def test_it_serves_beats_and_stops(tmp_path: Path) -> None:
    with (
        appliance(configuration(tmp_path, port=0)) as made,
        serving(made) as address,
        httpx.Client(base_url=address) as client,
    ):
        assert client.get("/health/live").json() == {"live": True}
        answer = client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"})
        assert 'glam_component_beat_age_seconds{component="web"}' in answer.text
        assert "server" not in answer.headers
        assert client.get("/metrics").status_code == 401
    with pytest.raises(httpx.ConnectError):
        httpx.get(address)


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        config = configuration(tmp_path, port=other.getsockname()[1])
        with pytest.raises(UsageError, match=r"web cannot listen at 127\.0\.0\.1 port"):
            server.run(config, threading.Event())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def with_tls(tmp_path: Path, authority: Authority, **web: object) -> Config:
    certificate, key = authority.sign("appliance")
    tls = Tls(certificate=certificate, key=key, authority=authority.authority)
    return configuration(tmp_path, port=0, tls=tls, **web)


def client_of(address: str, trusted: Authority, shown: tuple[Path, Path] | None) -> httpx.Client:
    """Trusts `trusted`, shows a certificate and its key."""
    context = ssl.create_default_context(cafile=str(trusted.authority))
    if shown:
        context.load_cert_chain(*shown)
    return httpx.Client(base_url=address, verify=context, headers=PAGE)


def test_a_certificate_lets_in_without_a_token(tmp_path: Path, authority: Authority) -> None:
    config = with_tls(tmp_path, authority, token_file=None)
    with (
        appliance(config) as made,
        serving(made) as address,
        client_of(address, authority, authority.sign("radiologist")) as client,
    ):
        page = client.get("/")
        assert (page.status_code, "Overview" in page.text, "Log out" in page.text) == (200, True, False)
        assert client.get("/", headers={"Host": "localhost:1"}).status_code == 200
        assert client.get("/", headers={"Host": "evil.example"}).status_code == 421
        form_token = page.text.partition('name="form_token" value="')[2].partition('"')[0]
        found = client.post("/find", data={"q": "abcd", "form_token": form_token}, headers={"Origin": address})
        assert found.status_code == 200
        assert client.post("/find", data={"q": "abcd"}, headers={"Origin": address}).status_code == 403


@pytest.mark.parametrize("rogue", [True, False])
def test_others_get_no_further_than_the_handshake_and_are_audited(
    tmp_path: Path, authority: Authority, rogue: bool
) -> None:
    shown = Authority(tmp_path / "rogue", "rogue").sign("intruder") if rogue else None
    with appliance(with_tls(tmp_path, authority, token_file=None)) as made, serving(made) as address:
        with client_of(address, authority, shown) as client, pytest.raises(httpx.TransportError):
            client.get("/health/live")
        code = json.loads(made.audited()[-1])["code"]
        assert code == ("tls_certificate_verify_failed" if rogue else "tls_peer_did_not_return_a_certificate")
        with client_of(address, authority, authority.sign("radiologist")) as client:
            assert client.get("/health/live").status_code == 200


def test_certificate_and_token_are_both_needed_where_both_are_configured(tmp_path: Path, authority: Authority) -> None:
    with (
        appliance(with_tls(tmp_path, authority)) as made,
        serving(made) as address,
        client_of(address, authority, authority.sign("radiologist")) as client,
    ):
        assert client.get("/").status_code == 303
        answer = client.post("/login", data={"token": TOKEN}, headers={"Origin": address})
        assert "Secure" in answer.headers["set-cookie"].split("; ")
        assert client.get("/").status_code == 200


def test_beyond_loopback_with_tls_is_served(tmp_path: Path, authority: Authority) -> None:
    check_web(with_tls(tmp_path, authority, host="0.0.0.0").web)


def _no_file(tls: Tls) -> Tls:
    return tls.model_copy(update={"certificate": tls.certificate.with_name("none.crt")})


def _no_names(tls: Tls) -> Tls:
    return tls.model_copy(update={"certificate": tls.authority})


@pytest.mark.parametrize("spoil", [_no_file, _no_names])
def test_certificates_that_will_not_do(tmp_path: Path, authority: Authority, spoil: Callable[[Tls], Tls]) -> None:
    web = with_tls(tmp_path, authority).web
    assert web.tls
    with pytest.raises(UsageError, match="subject alternative names"):
        check_web(web.model_copy(update={"tls": spoil(web.tls)}))


def test_a_key_of_another_certificate(tmp_path: Path, authority: Authority) -> None:
    web = with_tls(tmp_path, authority).web
    assert web.tls
    wrong = web.tls.model_copy(update={"key": authority.sign("other")[1]})
    with pytest.raises(UsageError, match="its files cannot be used"):
        server.tls_context(wrong, print)
