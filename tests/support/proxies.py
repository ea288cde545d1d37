"""Debian's nginx and haproxy as reverse proxies in front of the appliance's pages, on loopback."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from expected import need

from support.until import until

PREFIX = "/glam"
X_FORWARDED = """
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $http_host;"""
FORWARDED = """
      proxy_set_header Forwarded "$http_forwarded, for=$remote_addr;proto=$scheme;host=\\"$http_host\\"";"""
KEEP_HOST = """
      proxy_set_header Host $http_host;"""
"""Lines of a location of nginx; without KEEP_HOST it sends its upstream's name as host."""

NGINX = """
daemon off; pid {folder}/pid; user root root; worker_processes 1; error_log stderr warn;
events {{ worker_connections 64; }}
http {{
  access_log off; client_max_body_size 0; proxy_request_buffering off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{
    listen 127.0.0.1:{port}{ssl};
    location {prefix}/ {{
      proxy_pass {upstream};{lines}
    }}
  }}
}}
"""
HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend pages
  bind 127.0.0.1:{port} ssl crt {pem}
  option forwardfor
  http-request set-header X-Forwarded-Proto https
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  default_backend appliance
backend appliance
  server appliance {upstream}
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def nginx(
    folder: Path,
    port: int,
    upstream: str,
    *,
    lines: str,
    pair: tuple[Path, Path] | None = None,
    prefix: str = PREFIX,
    strips: bool = False,
) -> Iterator[None]:
    """nginx with these lines in its location; `pair`: certificate and key; `strips`: it removes the prefix."""
    need("nginx", "" if shutil.which("nginx") else "nginx (Debian's nginx-light; `make web-test` installs it)")
    ssl = f" ssl; ssl_certificate {pair[0]}; ssl_certificate_key {pair[1]}" if pair else ""
    text = NGINX.format(folder=folder, port=port, ssl=ssl, prefix=prefix, lines=lines, upstream=upstream + "/" * strips)
    (folder / "nginx.conf").write_text(text)
    with _running(["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"], port):
        yield


@contextmanager
def haproxy(folder: Path, port: int, upstream: str, *, pair: tuple[Path, Path]) -> Iterator[None]:
    """haproxy with TLS, which leaves host and path as they are."""
    need("haproxy", "" if shutil.which("haproxy") else "haproxy (Debian's package; `make web-test` installs it)")
    (folder / "both.pem").write_bytes(pair[0].read_bytes() + pair[1].read_bytes())
    place = urlsplit(upstream)
    (folder / "haproxy.cfg").write_text(
        HAPROXY.format(port=port, pem=folder / "both.pem", upstream=f"{place.hostname}:{place.port}")
    )
    with _running(["haproxy", "-db", "-f", str(folder / "haproxy.cfg")], port):
        yield


@contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    """A program that listens at `port`, until the block ends."""
    process = subprocess.Popen(command)
    try:
        until(lambda: process.poll() is not None or _listens(port))
        assert process.poll() is None, command
        yield
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
