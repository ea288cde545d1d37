"""The role `web` on real sockets: where it listens, whom TLS lets in, and how it ends."""

import json
import socket
import sqlite3
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from support.certificates import Authority
from support.web import PAGE, TOKEN, appliance, configuration, serving

from glam_deploy.appliance.config import Config, WebTls
from glam_deploy.appliance.web import server
from glam_deploy.appliance.web.access import check_web
from glam_deploy.errors import UsageError
from glam_deploy.records import View


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


def test_a_request_with_two_lengths_is_refused_and_its_connection_closed(tmp_path: Path) -> None:
    """RFC 9112, section 6.3: it may be an attempt to smuggle a request past a proxy."""
    head = "POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    lengths, smuggled = "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", "GET /health/live HTTP/1.1\r\n"
    with appliance(configuration(tmp_path, port=0)) as made, serving(made) as address:
        url = httpx.URL(address)
        with socket.create_connection((url.host, url.port), 20) as peer:
            peer.sendall(f"{head}{lengths}0\r\n\r\n{smuggled}Host: 127.0.0.1\r\n\r\n".encode())
            answer = b""
            while more := peer.recv(1 << 16):  # until the connection is closed
                answer += more
        told = [json.loads(line) for line in made.audited()]
    assert answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer.lower()
    assert [line["code"] for line in told if line["event"] == "web_refused"] == ["two_lengths"]


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        config = configuration(tmp_path, port=other.getsockname()[1])
        with pytest.raises(UsageError, match=r"web cannot listen at 127\.0\.0\.1 port .*stop the program that uses it"):
            server.run(config, threading.Event())


def test_why_state_db_cannot_be_written(caplog: pytest.LogCaptureFixture) -> None:
    stop = threading.Event()

    def full() -> None:
        stop.set()
        raise sqlite3.OperationalError("database or disk is full")

    server._heartbeat_until(stop, threading.current_thread(), full)
    assert caplog.messages == ["state.db cannot be written (database or disk is full)"]


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7", "nobody.invalid"])
def test_an_address_of_another_machine(tmp_path: Path, authority: Authority, host: str) -> None:
    """Those of RFC 5737, RFC 3849 and RFC 2606."""
    config = with_tls(tmp_path, authority, host=host)
    with pytest.raises(UsageError, match=rf"cannot listen at {host} port 0 .*set `host` to an address of this machine"):
        server.run(config, threading.Event())


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def with_tls(tmp_path: Path, authority: Authority, **web: object) -> Config:
    tls = WebTls(**_pair(authority), authority=authority.authority)
    return configuration(tmp_path, **{"port": 0, "tls": tls, **web})


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


def test_without_an_authority_tls_asks_for_no_certificate(tmp_path: Path, authority: Authority) -> None:
    """The connection is encrypted; the token decides who gets in."""
    config = with_tls(tmp_path, authority, tls=WebTls(**_pair(authority)))
    with appliance(config) as made, serving(made) as address, client_of(address, authority, None) as client:
        assert client.get("/").status_code == 303
        assert client.get("/metrics", headers={"Accept": "*/*"}).status_code == 401
        answer = client.post("/login", data={"token": TOKEN}, headers={"Origin": address})
        assert "Secure" in answer.headers["set-cookie"].split("; ")
        assert client.get("/").status_code == 200
    with pytest.raises(UsageError, match="neither token_file nor oidc nor tls with an authority"):
        check_web(config.web.model_copy(update={"token_file": None}))


def test_the_certificate_of_a_proxy_lets_nobody_in(tmp_path: Path, authority: Authority) -> None:
    """All who reach the proxy would have it."""
    config = with_tls(tmp_path, authority, public_url="https://pacs.example", trusted_proxies=["10.0.0.7"])
    check_web(config.web)
    with pytest.raises(UsageError, match="has trusted_proxies, but neither token_file nor oidc"):
        check_web(config.web.model_copy(update={"token_file": None}))


def test_the_audit_names_who_a_certificate_is_of(tmp_path: Path, authority: Authority) -> None:
    with (
        appliance(with_tls(tmp_path, authority, token_file=None)) as made,
        serving(made) as address,
        client_of(address, authority, authority.sign("radiologist")) as client,
    ):
        form_token = client.get("/").text.partition('name="form_token" value="')[2].partition('"')[0]
        made.receive_exam(1, (View.L_CC,))
        made.assemble()
        number = made.kill_job("dead").id
        data = {"form_token": form_token}
        assert client.post(f"/jobs/{number}/retry", data=data, headers={"Origin": address}).status_code == 303
        (line,) = [json.loads(each) for each in made.audited() if '"web_retry"' in each]
        assert (line["by"], line["number"]) == ("radiologist", number)


def _pair(authority: Authority) -> dict[str, Path]:
    certificate, key = authority.sign("appliance")
    return {"certificate": certificate, "key": key}


def test_beyond_loopback_with_tls_is_served(tmp_path: Path, authority: Authority) -> None:
    check_web(with_tls(tmp_path, authority, host="0.0.0.0").web)


def _no_file(tls: WebTls) -> WebTls:
    return tls.model_copy(update={"certificate": tls.certificate.with_name("none.crt")})


def _no_names(tls: WebTls) -> WebTls:
    return tls.model_copy(update={"certificate": tls.authority})  # an authority has none


@pytest.mark.parametrize("spoil", [_no_file, _no_names])
def test_certificates_that_will_not_do(tmp_path: Path, authority: Authority, spoil: Callable[[WebTls], WebTls]) -> None:
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
