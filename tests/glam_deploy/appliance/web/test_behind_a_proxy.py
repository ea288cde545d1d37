"""The pages behind Debian's nginx and haproxy, with TLS and under a path of their own."""

import json
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.certificates import Authority
from support.proxies import FORWARDED, KEEP_HOST, PREFIX, X_FORWARDED, free_port, haproxy, nginx
from support.until import until
from support.web import PAGE, TOKEN, Appliance, appliance, configuration, dicom_file, exam, serving

from glam_deploy.appliance.state import overview
from glam_deploy.records import View

CLIENT, STRANGER = "127.0.0.2", "127.0.0.3"
"""Addresses of clients; the proxies connect from 127.0.0.1."""
TRUSTED = ("127.0.0.1",)


@dataclass
class Site:
    """An appliance behind a proxy."""

    appliance: Appliance
    public: str
    """Its public URL."""
    direct: str
    """Its own address."""
    authority: Authority | None

    def client(self, base: str | None = None, address: str = CLIENT, **headers: str) -> httpx.Client:
        """A browser at `address`."""
        verify = ssl.create_default_context(cafile=str(self.authority.authority)) if self.authority else True
        transport = httpx.HTTPTransport(verify=verify, local_address=address)
        return httpx.Client(base_url=base or self.public, transport=transport, headers={**PAGE, **headers})

    def audited(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.appliance.audited()]
        return [line for line in lines if line["event"] == event]


Proxy = Callable[[Path, int, str, tuple[Path, Path] | None], AbstractContextManager[None]]


def by_nginx(lines: str, **options: Any) -> Proxy:
    return lambda folder, port, upstream, pair: nginx(folder, port, upstream, lines=lines, pair=pair, **options)


def by_haproxy(folder: Path, port: int, upstream: str, pair: tuple[Path, Path] | None) -> AbstractContextManager[None]:
    assert pair
    return haproxy(folder, port, upstream, pair=pair)


@contextmanager
def site(folder: Path, proxy: Proxy, *, prefix: str = PREFIX, tls: bool = True, **web: Any) -> Iterator[Site]:
    """`tls`: of the proxy; the public URL is https in any case but where `web` has another."""
    authority, port = Authority(folder / "authority"), free_port()
    public = f"http{'s' * tls}://localhost:{port}{prefix}"
    keys = {"port": 0, "public_url": public, "trusted_proxies": TRUSTED, **web}
    pair = authority.sign("proxy") if tls else None
    with (
        appliance(configuration(folder, **keys)) as made,
        serving(made) as direct,
        proxy(folder, port, direct, pair),
    ):
        yield Site(made, public, direct, authority if tls else None)


PROXIES = {
    "nginx that keeps the path": (by_nginx(X_FORWARDED + KEEP_HOST), {}),
    "nginx that removes the path": (by_nginx(X_FORWARDED, strips=True), {}),
    "nginx that writes Forwarded": (by_nginx(FORWARDED), {"forwarded": "forwarded"}),
    "nginx without a path": (by_nginx(X_FORWARDED, prefix=""), {"prefix": ""}),
    "haproxy": (by_haproxy, {}),
}


@pytest.mark.parametrize("name", PROXIES)
def test_login_and_all_links_behind_nginx_and_haproxy(tmp_path: Path, name: str) -> None:
    proxy, options = PROXIES[name]
    with site(tmp_path, proxy, stow=True, **options) as made, made.client() as browser:
        base = httpx.URL(made.public).path.rstrip("/")
        first = browser.get("/failures")
        assert (first.status_code, first.headers["location"]) == (303, f"{base}/login?next=/failures")
        origin = made.public.removesuffix(base)
        data = {"token": TOKEN, "next": "/failures"}
        answer = browser.post("/login", data=data, headers={"Origin": origin})
        assert (answer.status_code, answer.headers["location"]) == (303, f"{base}/failures")
        cookie = set(answer.headers["set-cookie"].split("; "))
        assert {"Secure", "HttpOnly", "SameSite=strict", f"Path={base or '/'}"} <= cookie
        study = made.appliance.receive_exam(1, (View.L_CC,))
        for path in ("/", "/studies", "/failures", f"/study/{made.appliance.name(study)}", "/nothing"):
            page = browser.get(path)
            assert page.status_code == (404 if path == "/nothing" else 200)
            for link in set(re.findall(r'(?:href|src)="([^"#]+)"', page.text)):
                assert browser.get(origin + link).status_code == 200, link
            for action in re.findall(r'action="([^"]+)"', page.text):
                assert action.startswith(f"{base}/")
        form_token = page.text.partition('name="form_token" value="')[2].partition('"')[0]
        found = browser.post("/find", data={"q": study, "form_token": form_token}, headers={"Origin": origin})
        assert found.headers["location"] == f"{base}/study/{made.appliance.name(study)}"
        out = browser.post("/logout", data={"form_token": form_token}, headers={"Origin": origin})
        assert out.headers["location"] == f"{base}/login"
        assert browser.get("/").status_code == 303
        assert {line["sender"] for event in ("web_login", "web_logout") for line in made.audited(event)} == {CLIENT}
        assert browser.post("/find", headers={"Origin": "https://evil.example"}).status_code == 403


def test_a_tunnel_beside_nginx(tmp_path: Path) -> None:
    """From the machine of the proxy, which is a trusted one, without forwarded headers: the own origin counts."""
    with site(tmp_path, by_nginx(X_FORWARDED)) as made, made.client(made.direct, "127.0.0.1") as browser:
        for origin, status in ((made.direct, 303), ("https://evil.example", 403), (made.public, 403)):
            answer = browser.post("/login", data={"token": TOKEN}, headers={"Origin": origin.removesuffix(PREFIX)})
            assert answer.status_code == status, origin


def test_programs_behind_nginx(tmp_path: Path) -> None:
    """Health, metrics and STOW-RS with the token; the sender of an image is the client, not the proxy."""
    with site(tmp_path, by_nginx(X_FORWARDED + KEEP_HOST), stow=True) as made:
        with made.client(Authorization=f"Bearer {TOKEN}", Accept="*/*") as program:
            assert program.get("/health/ready").json()["ready"] is False
            assert program.get("/metrics").status_code == 200
            body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + dicom_file(View.L_CC, exam(1)) + b"\r\n--b--\r\n"
            kind = 'multipart/related; type="application/dicom"; boundary=b'
            answer = program.post("/dicom-web/studies", content=body, headers={"Content-Type": kind})
            assert answer.status_code == 200
        assert [line["sender"] for line in made.audited("received")] == [f"stow@{CLIENT}"]


@pytest.mark.parametrize("lines", [X_FORWARDED + KEEP_HOST, FORWARDED + KEEP_HOST])
def test_forged_headers_behind_nginx_change_nothing(tmp_path: Path, lines: str) -> None:
    """A client invents addresses, in the header that is read and in the other one."""
    kind = "forwarded" if lines.startswith(FORWARDED) else "x-forwarded"
    forged = {"X-Forwarded-For": "10.9.9.9, 127.0.0.1", "Forwarded": "for=10.8.8.8;proto=https;host=localhost"}
    with site(tmp_path, by_nginx(lines), forwarded=kind) as made:
        with made.client(**forged) as browser:
            assert browser.get("/metrics", headers={"Authorization": "Bearer x"}).status_code == 401
        with made.client(made.direct, STRANGER, **forged) as stranger:
            assert stranger.get("/metrics", headers={"Authorization": "Bearer x"}).status_code == 401
        assert [line["sender"] for line in made.audited("web_refused")] == [CLIENT, STRANGER]
        with overview.open_read_only(made.appliance.context.data.database) as connection:
            beat = overview.components(connection, 0.0)["web"].detail
        assert set(beat) == {"host", "port", "tls", "stow", "forwarded_by", "secrets"}


def test_foreign_names_behind_nginx_are_refused(tmp_path: Path) -> None:
    """In the host that the proxy passes on, and in one that a client forges where the proxy sets its own."""
    with (
        site(tmp_path, by_nginx(X_FORWARDED)) as made,
        made.client(Authorization=f"Bearer {TOKEN}") as browser,
    ):
        assert browser.get("/").status_code == 200
        assert browser.get("/", headers={"Host": "evil.example"}).status_code == 421
        assert [line["code"] for line in made.audited("web_refused")] == ["foreign_host"]
    (tmp_path / "other").mkdir()
    with (
        site(tmp_path / "other", by_nginx(X_FORWARDED.replace("$http_host", "$http_x_forwarded_host"))) as made,
        made.client(Authorization=f"Bearer {TOKEN}") as browser,
    ):
        assert browser.get("/").status_code == 200
        assert browser.get("/", headers={"X-Forwarded-Host": "localhost, evil.example"}).status_code == 421


def test_an_unencrypted_way_through_nginx_is_refused(tmp_path: Path) -> None:
    public = "https://localhost/glam"
    with site(tmp_path, by_nginx(X_FORWARDED), tls=False, public_url=public) as made:
        port = re.search(r"listen 127\.0\.0\.1:(\d+)", (tmp_path / "nginx.conf").read_text())
        assert port
        with made.client(f"http://localhost:{port[1]}{PREFIX}") as browser:
            answer = browser.get("/login")
            assert answer.status_code == 403
            assert f"use {public}/" in answer.text
            assert browser.get("/health/live").status_code == 200


def test_a_proxy_that_is_not_trusted_is_told(tmp_path: Path) -> None:
    """Its clients have its address, and its own heartbeat names it for `doctor`."""
    with site(tmp_path, by_nginx(X_FORWARDED + KEEP_HOST), trusted_proxies=("10.0.0.1",)) as made:
        with made.client() as browser:
            assert browser.get("/metrics", headers={"Authorization": "Bearer x"}).status_code == 401
        assert [line["sender"] for line in made.audited("web_refused")] == ["127.0.0.1"]
        database = made.appliance.context.data.database
        until(lambda: heartbeat(database).get("forwarded_by") == ["127.0.0.1"])


def heartbeat(database: Path) -> dict[str, Any]:
    with overview.open_read_only(database) as connection:
        return dict(overview.components(connection, 0.0)["web"].detail)
