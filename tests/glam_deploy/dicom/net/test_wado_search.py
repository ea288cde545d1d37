"""The form of a search by QIDO-RS, by a server that keeps what it was asked."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from glam_deploy.dicom.net.dicomweb import WebPeer
from glam_deploy.dicom.net.wado import WebReader
from glam_deploy.errors import PeerError


def test_values_are_percent_encoded_also_spaces() -> None:
    """RFC 3986: a plus sign stands for itself, and for a space in HTML forms only."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        reader = WebReader(WebPeer(url=f"http://127.0.0.1:{server.server_address[1]}", timeout_s=5))
        assert list(reader.search("/studies", "0020000D", matching={"AccessionNumber": "A 1+&2"}, limit=7)) == []
        reader.close()
        server.shutdown()
    assert asked == ["/studies?AccessionNumber=A%201%2B%262&limit=7&offset=0"]


def test_a_redirection_to_another_port_is_named_with_it() -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", "http://user:SECRETPW@127.0.0.1:1/dicom-web")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            reader = WebReader(WebPeer(url=f"http://127.0.0.1:{server.server_address[1]}", timeout_s=5))
            with pytest.raises(PeerError, match=r"redirects to another server, http://127\.0\.0\.1:1: give its URL"):
                list(reader.search("/studies", "0020000D", matching={}, limit=7))
        finally:
            server.shutdown()
