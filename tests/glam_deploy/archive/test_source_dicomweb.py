"""A DICOMweb source against a stub with the habits of several servers; tests/pacs has a real one."""

import base64
import io
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from support.archives import contents, dicom, reason

from glam_deploy.archive.identifiers import Identifiers
from glam_deploy.archive.rows import entry_id
from glam_deploy.archive.sources import open_source, storage
from glam_deploy.archive.sources.base import SourceUnavailable
from glam_deploy.dicom.net import wado
from glam_deploy.errors import UsageError

BOUNDARY = "xx--yy"
Answer = tuple[int, dict[str, str], bytes]


def multipart(*parts: bytes) -> Answer:
    body = b"".join(b"\r\n--%s\r\nContent-Type: application/dicom\r\n\r\n%s" % (BOUNDARY.encode(), p) for p in parts)
    kind = f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"'
    return 200, {"Content-Type": kind}, body + f"\r\n--{BOUNDARY}--\r\n".encode()


@dataclass
class Server:
    """Studies with a series MG of two instances each and a series US, and one of CT."""

    studies: int = 5
    most: int = 1000
    """Largest page."""
    ignores: tuple[str, ...] = ()
    """Parameters of a search that it ignores."""
    empty: int = 204
    answers: dict[str, list[Answer]] = field(default_factory=dict)
    """Path -> its next answers, before the usual one."""
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    url: str = ""

    def answer(self, path: str, query: dict[str, str]) -> Answer:
        if self.answers.get(path):
            return self.answers[path].pop(0)
        parts = path.strip("/").split("/")
        if len(parts) == 6:
            return multipart(dicom(parts[-1]))
        query = {name: value for name, value in query.items() if name not in self.ignores}
        found = self._found(parts)
        first, count = int(query.get("offset", 0)), min(int(query.get("limit", 10**6)), self.most)
        page = found[first : first + count]
        return (200 if page else self.empty), {"Content-Type": "application/dicom+json"}, json.dumps(page).encode()

    def _found(self, parts: list[str]) -> list[object]:
        if len(parts) == 1:
            studies = [{"0020000D": {"vr": "UI", "Value": [f"1.{n}"]}} for n in range(self.studies)]
            return [*studies, {"0020000D": {"Value": ["9"]}, "00080061": {"Value": ["CT", "SR"]}}]
        if len(parts) == 3:
            both = {"MG": f"{parts[1]}.1", "US": f"{parts[1]}.2"}
            return [{"0020000E": {"Value": [uid]}, "00080060": {"Value": [kind]}} for kind, uid in both.items()]
        return [{"00080018": {"Value": [f"{parts[3]}.{n}"]}} for n in range(2)]

    @property
    def source(self) -> str:
        return f"dicomweb+{self.url}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    for name in ("TOKEN", "USER", "PASSWORD"):
        monkeypatch.delenv(f"GLAM_DICOMWEB_{name}", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(storage, "PAUSES_S", (0.0, 0.0))
    served = Server()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # one packet for each answer

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            path = url.path.removeprefix("/dicom-web")
            served.asked.append((path, {name.lower(): value for name, value in self.headers.items()}))
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            status, headers, body = served.answer(path, query)
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if status != 204:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    stub = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    stub.daemon_threads = True
    threading.Thread(target=stub.serve_forever, args=(0.01,), daemon=True).start()
    served.url = f"http://127.0.0.1:{stub.server_port}/dicom-web"
    yield served
    stub.shutdown()
    stub.server_close()


def uids(studies: int) -> set[str]:
    return {f"1.{study}.1.{n}" for study in range(studies) for n in range(2)}


def found(server: Server) -> list[str]:
    return [entry.name for entry in open_source([server.source]).entries()]


def test_every_instance_of_mammography_is_read(server: Server) -> None:
    read = contents(open_source([server.source]))
    assert {location.rsplit("/", 1)[1] for location in read} == uids(5)
    assert read[f"{server.source}/studies/1.3/series/1.3.1/instances/1.3.1.1"] == dicom("1.3.1.1")
    accepts = {headers["accept"] for path, headers in server.asked if path.count("/") == 6}
    assert not any(path.startswith("/studies/9") or path.endswith(".2/instances") for path, _ in server.asked)
    assert accepts == {'multipart/related; type="application/dicom"; transfer-syntax=*'}


@pytest.mark.parametrize(
    "habits",
    [
        {"most": 2},
        {"ignores": ("limit",)},
        {"ignores": ("limit", "offset")},
        {"empty": 200},
        {"empty": 404, "most": 3},
    ],
    ids=str,
)
def test_habits_of_servers_lose_no_instance(
    server: Server, habits: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wado, "PAGE", 4)
    for name, value in habits.items():
        setattr(server, name, value)
    if server.empty == 404:
        with pytest.raises(SourceUnavailable, match="404"):
            found(server)  # of /studies, where it may also mean a wrong URL
        return
    names = found(server)
    assert len(names) == 10 and set(names) == uids(5)


def test_a_server_that_repeats_its_first_page_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wado, "PAGE", 4)
    server.ignores = ("offset",)
    with pytest.raises(SourceUnavailable, match="ignores `offset`"):
        found(server)


def test_a_server_that_repeats_earlier_pages_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wado, "PAGE", 4)
    pages = [
        json.dumps([{"0020000D": {"Value": [f"1.{n}"]}} for n in numbers]).encode() for numbers in ((1, 2), (3, 4))
    ]
    server.answers = {"/studies": [(200, {}, pages[n % 2]) for n in range(9)]}
    with pytest.raises(SourceUnavailable, match="ignores `offset`"):
        found(server)
    assert len(server.answers["/studies"]) == 6


@pytest.mark.parametrize("path", ["/studies/1.2/series", "/studies/1.2/series/1.2.1/instances"])
@pytest.mark.parametrize("answer", [(404, {}, b""), (403, {}, b""), (500, {}, b""), (204, {}, b""), (200, {}, b"")])
def test_what_cannot_be_listed_is_an_entry(server: Server, path: str, answer: Answer) -> None:
    server.answers = {path: [answer] * 6}
    source = open_source([server.source])
    entries = list(source.entries())
    (entry,) = [entry for entry in entries if not entry.version]
    assert len(entries) == 9 and entry.location == server.source + path.rpartition("/")[0]
    text = reason(source, entry)
    assert (str(answer[0]) if answer[0] > 204 else "listed none") in text and "1.2" not in text.replace("127", "")


@pytest.mark.parametrize("junk", [{}, 5, {"00080018": {"Value": [""]}}, {"00080018": {"Value": [".."]}}, None], ids=str)
def test_results_without_a_uid_are_an_entry(server: Server, junk: object) -> None:
    path = "/studies/1.2/series/1.2.1/instances"
    server.answers = {path: [(200, {}, json.dumps([junk, {"00080018": {"Value": ["1.2.1.0"]}}, junk]).encode())]}
    source = open_source([server.source])
    entries = list(source.entries())
    (entry,) = [entry for entry in entries if not entry.version]
    assert len(entries) == 9 + 1 and entry.location.startswith(server.source + path)
    assert "without a UID" in reason(source, entry)


@pytest.mark.parametrize("body", [b"{}", b"<html>", b'"x"'])
def test_a_search_without_a_list_is_unavailable(server: Server, body: bytes) -> None:
    for path in ("/studies", "/studies/1.2/series"):
        server.answers = {path: [(200, {}, body)]}
        with pytest.raises(SourceUnavailable, match="no list"):
            found(server)


@pytest.mark.parametrize("wrong", [None, *range(3)])
def test_another_object_than_the_one_asked_for_is_refused(server: Server, wrong: int | None) -> None:
    uids = ["1.0", "1.0.1", "1.0.1.0"]
    if wrong is not None:
        uids[wrong] = "9.9"
    content = with_uids(*uids)
    source = open_source([server.source])
    entry = next(iter(source.entries()))
    server.answers = {INSTANCE: [multipart(content)]}
    if wrong is None:
        assert source.read(entry) == content
        return
    text = reason(source, entry)
    assert "another object" in text and "9.9" not in text and "Jane" not in text


def with_uids(study: str, series: str, instance: str) -> bytes:
    """A DICOM file with these UIDs, without pixels."""
    header = Dataset()
    header.SOPClassUID, header.PatientName = "1.2.840.10008.5.1.4.1.1.1.2", "Jane"
    header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID = study, series, instance
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = io.BytesIO()
    header.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


INSTANCE = "/studies/1.0/series/1.0.1/instances/1.0.1.0"


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((404, {}, b""), "404 Not Found"),
        ((403, {}, b""), "403 Forbidden"),
        ((500, {}, b"Jane Doe"), "500 Internal"),
        ((200, {"Content-Type": "text/html"}, b"<html>"), "without a DICOM file"),
        (multipart(b"one", b"two"), "several files"),
        ((*multipart(b"one")[:2], multipart(b"one")[2][:-12]), "incomplete"),
    ],
)
def test_an_instance_that_fails_is_its_own_error(server: Server, answer: Answer, message: str) -> None:
    source = open_source([server.source])
    entry = next(iter(source.entries()))
    server.answers = {INSTANCE: [answer] * 3}
    text = reason(source, entry)
    assert message in text and "1.0.1" not in text and "Jane" not in text


def test_trouble_that_passes_is_tried_again(server: Server) -> None:
    source = open_source([server.source])
    entry = next(iter(source.entries()))
    server.answers = {INSTANCE: [(503, {}, b""), (429, {}, b"")], "/studies": [(503, {}, b"")]}
    assert source.read(entry) == dicom("1.0.1.0")
    assert len(found(server)) == 10


@pytest.mark.parametrize("answer", [(401, {}, b""), (500, {}, b"")])
def test_a_server_that_denies_or_fails_every_request_is_unavailable(server: Server, answer: Answer) -> None:
    source = open_source([server.source])
    entry = next(iter(source.entries()))
    server.answers = {INSTANCE: [answer] * 3, "/studies": [answer] * 6}
    with pytest.raises(SourceUnavailable):
        source.read(entry)
    with pytest.raises(SourceUnavailable):
        found(server)


def test_other_forms_of_a_response(server: Server) -> None:
    source = open_source([server.source])
    entry = next(iter(source.entries()))
    plain = (200, {"Content-Type": "application/dicom"}, dicom("plain"))
    server.answers = {INSTANCE: [plain, (406, {}, b""), multipart(b"\r\n--xx\r\n\r\n" + dicom("odd"))]}
    assert source.read(entry) == dicom("plain")
    assert source.read(entry) == b"\r\n--xx\r\n\r\n" + dicom("odd"), "after 406, without the transfer syntax"


def test_redirections_stay_on_the_server(server: Server) -> None:
    source = open_source([server.source])
    entry = next(iter(source.entries()))
    moved = INSTANCE.replace("1.0.1.0", "1.0.1.1")
    server.answers = {INSTANCE: [(302, {"Location": f"/dicom-web{moved}"}, b"")]}
    assert source.read(entry) == dicom("1.0.1.1")
    server.answers = {INSTANCE: [(302, {"Location": "http://localhost:9/x"}, b"")]}
    with pytest.raises(SourceUnavailable, match="another server, http://localhost"):
        source.read(entry)


def test_credentials(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login anna password geheim\n")
    (tmp_path / "netrc").chmod(0o600)
    source = open_source([server.source])
    next(iter(source.entries()))
    basic = base64.b64encode(b"anna:geheim").decode()
    assert server.asked[-1][1]["authorization"] == f"Basic {basic}"
    assert "geheim" not in repr(source)
    monkeypatch.setenv("GLAM_DICOMWEB_TOKEN", "t0ken")
    source = open_source([server.source])
    next(iter(source.entries()))
    assert server.asked[-1][1]["authorization"] == "Bearer t0ken"
    assert "t0ken" not in repr(source)
    with pytest.raises(UsageError, match="unencrypted"):
        open_source(["dicomweb+http://pacs/dicom-web"])
    with pytest.raises(UsageError, match="without user") as caught:
        open_source(["dicomweb+https://anna:geheim@pacs/dicom-web"])
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "element"),
    [
        ("/studies", "0020000D"),
        ("/studies/1.0/series", "0020000E"),
        ("/studies/1.0/series/1.0.1/instances", "00080018"),
    ],
)
def test_uids_that_cannot_be_encoded_are_entries(server: Server, path: str, element: str) -> None:
    """JSON may have halves of surrogate pairs; two UIDs that differ in nothing else are two."""
    items = [{element: {"Value": [uid]}} for uid in ("1.0", "1.0\ud800", "1.0\udfff")]
    server.answers[path] = [(200, {}, json.dumps(items).encode())]
    entries = list(open_source([server.source]).entries())
    found = {location.partition("%5C")[2][:5] for location in (entry.location for entry in entries)}
    assert found == {"", "ud800", "udfff"}
    assert len({entry_id(entry, Identifiers()) for entry in entries}) == len(entries)
