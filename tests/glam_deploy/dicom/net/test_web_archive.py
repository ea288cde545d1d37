"""Searches of the fetcher by QIDO-RS, at a server whose answers have no end or are no UIDs."""

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from glam_deploy.dicom.net import web_archive
from glam_deploy.dicom.net.archive import FoundStudies, StoppedError
from glam_deploy.dicom.net.dicomweb import WebPeer
from glam_deploy.dicom.net.web_archive import WebSession
from glam_deploy.errors import PeerBroke

Page = Callable[[int, int], Sequence[object]]
"""Values of the UID of the results of a page, by offset and limit."""
TAGS = {"studies": "0020000D", "series": "0020000E", "instances": "00080018"}


@contextmanager
def session(page: Page, proceed: Callable[[], bool] = lambda: True) -> Iterator[WebSession]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            asked, level = parse_qs(url.query), url.path.rpartition("/")[2]
            found = page(int(asked["offset"][0]), int(asked["limit"][0]))
            modality = {"00080060": {"vr": "CS", "Value": ["MG"]}}
            results = [modality | {TAGS[level]: {"vr": "UI", "Value": [value]}} for value in found]
            content = json.dumps(results).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            peer = WebPeer(url=f"http://127.0.0.1:{server.server_address[1]}", timeout_s=5)
            with WebSession(peer, most=1 << 20, proceed=proceed) as found:
                yield found
        finally:
            server.shutdown()


def endless(offset: int, limit: int) -> list[object]:
    return [f"1.2.3.{offset + number}" for number in range(limit)]


def test_results_without_end_are_given_up() -> None:
    with session(endless) as archive, pytest.raises(PeerBroke, match="more than 10000 matches"):
        archive.studies(day="20240131")


def test_objects_of_a_study_without_end_are_given_up() -> None:
    def five_series(offset: int, limit: int) -> list[object]:
        return endless(offset, limit) if offset < 9000 else []

    with session(five_series) as archive, pytest.raises(PeerBroke, match="the objects of one study"):
        archive.content("1.2.3")


def test_a_search_has_a_limit_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_archive, "SEARCH_TIMEOUTS", -1)
    with session(lambda *_: []) as archive, pytest.raises(PeerBroke, match="for longer than"):
        archive.studies(day="20240131")


def test_a_search_that_is_not_wanted_any_more_is_not_sent() -> None:
    asked: list[int] = []
    with (
        session(lambda offset, _: asked.append(offset) or [], lambda: False) as archive,
        pytest.raises(StoppedError),
    ):
        archive.studies(day="20240131")
    assert asked == []


@pytest.mark.parametrize(
    "value",
    [
        "",
        "*",
        "1.2.?",
        "..",
        "../../admin",
        "1.2.3?x=1#y",
        "1.2.3\\1.2.4",
        "x" * 2000,
        "\ud800",
        5,
        None,
        [1],
        {"a": 1},
    ],
)
def test_what_is_no_identifier_is_counted_and_ends_no_search(value: object) -> None:
    def page(offset: int, limit: int) -> list[object]:
        return [] if offset else [value, "1.2.3", "1.2.3.04"]

    with session(page) as archive:
        assert archive.studies(day="20240131") == FoundStudies(studies=("1.2.3", "1.2.3.04"), refused=1)
        content = archive.content("1.2.3")
    assert [(image.series_uid, image.sop_uid) for image in content.images] == [
        (series, sop) for series in ("1.2.3", "1.2.3.04") for sop in ("1.2.3", "1.2.3.04")
    ]
    assert content.refused == 3, "one series, and one object in each of the others"
