"""Sources behind URLs: a real S3 server (moto) where it is installed, and a web server of this test."""

import logging
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.archives import contents, dicom, reason, write_tar, write_zip
from support.commands import install_line

from glam_deploy.archive.sources import open_source, storage
from glam_deploy.archive.sources.base import SourceUnavailable
from glam_deploy.errors import BackendUnavailable, InputError, UsageError

SIGNATURE = "X-Amz-Signature=0123456789abcdef0123456789abcdef"


@dataclass
class Web:
    """Files of a web server, and what it does before it serves them."""

    files: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, list[int]] = field(default_factory=dict)
    """Path -> statuses of its next answers; 0 closes the connection in the middle of the content."""
    asked: list[str] = field(default_factory=list)
    by_query: bool = False
    """Whether the value in the query is the path."""
    moved: dict[str, str] = field(default_factory=dict)
    """Path -> target of its redirection."""
    has_ranges: bool = True
    released: threading.Event = field(default_factory=threading.Event)
    """Ends the wait at the path /never."""
    url: str = ""


@pytest.fixture
def web() -> Iterator[Web]:
    pytest.importorskip("aiohttp")
    served = Web()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # one packet for each answer

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            path = f"/{self.path.partition('=')[2]}" if served.by_query else self.path.partition("?")[0]
            served.asked.append(self.path)
            if path in served.moved:
                self.send_response(302)
                self.send_header("Location", served.moved[path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if path == "/never":
                served.released.wait(60)
            content = served.files.get(path)
            status = (served.answers.get(path) or [200 if content is not None else 404]).pop(0)
            content = content if content is not None and status in (0, 200) else b""
            first, last = 0, len(content) - 1
            if status == 200 and served.has_ranges and (given := self.headers.get("Range")):
                first, last = (int(n) for n in given.removeprefix("bytes=").split("-"))
                last = min(last, len(content) - 1)
            part = content[first : last + 1]
            self.send_response(206 if len(part) < len(content) else status or 200)
            self.send_header("Content-Length", str(len(part)))
            if served.has_ranges:
                self.send_header("Accept-Ranges", "bytes")
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(part[: len(part) // 2] if status == 0 else part)
            self.close_connection = status == 0

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    served.url = f"http://127.0.0.1:{server.server_port}"
    yield served
    served.released.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PAUSES_S", (0.0, 0.0))


def listed(tmp_path: Path, *places: str) -> str:
    (tmp_path / "list.txt").write_text("\n".join(places))
    return str(tmp_path / "list.txt")


def test_signed_urls_of_a_list(web: Web, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    web.files = {"/a.dcm": dicom("a"), "/b": dicom("b")}
    source = open_source([listed(tmp_path, f"{web.url}/a.dcm?{SIGNATURE}", f"{web.url}/b?{SIGNATURE}")])
    assert contents(source) == {f"{web.url}/a.dcm": dicom("a"), f"{web.url}/b": dicom("b")}
    assert web.asked == [f"/a.dcm?{SIGNATURE}", f"/b?{SIGNATURE}"], "one request for each"
    assert "0123456789abcdef" not in f"{list(source.entries())} {source!r}"
    assert "0123456789abcdef" not in "".join(r.getMessage() for r in caplog.records if r.name.startswith("glam"))


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_entry_that_is_denied_or_gone(web: Web, tmp_path: Path, status: int) -> None:
    source = open_source([listed(tmp_path, f"{web.url}/a.dcm?{SIGNATURE}")])
    web.answers = {"/a.dcm": [status]}
    message = reason(source, next(iter(source.entries())))
    assert ("denied" if status < 404 else "does not exist") in message and "Signature" not in message


@pytest.mark.parametrize("status", [500, 503, 429, 0])
def test_passing_trouble_is_tried_again(web: Web, tmp_path: Path, status: int) -> None:
    web.files = {"/a.dcm": dicom("a" * 1000)}
    web.answers = {"/a.dcm": [status, status, 200]}
    source = open_source([listed(tmp_path, f"{web.url}/a.dcm")])
    (entry,) = source.entries()
    assert source.read(entry) == dicom("a" * 1000)
    web.answers = {"/a.dcm": [status] * 3}
    if status == 500:
        assert "answers 500" in reason(source, entry), "one URL that always fails must not stop a run"
        return
    if status == 0:
        assert "ends too early" in reason(source, entry)
        return
    with pytest.raises(SourceUnavailable, match=f"answers {status}"):
        source.read(entry)


@pytest.mark.parametrize("content", [b"", b"<html></html>"])
def test_a_zip_file_at_a_url_that_is_none(web: Web, tmp_path: Path, content: bytes) -> None:
    web.files = {"/a.zip": content}
    source = open_source([listed(tmp_path, f"{web.url}/a.zip")])
    (entry,) = source.entries()
    assert reason(source, entry).startswith(f"the file is {'a web page' if content else 'empty (0 bytes)'}")


def test_a_zip_file_at_a_server_without_ranges(web: Web, tmp_path: Path) -> None:
    """The directory of a zip file is at its end."""
    web.has_ranges = False
    web.files = {"/a.zip": write_zip(tmp_path / "a.zip", {"a.dcm": dicom("a")}).read_bytes()}
    source = open_source([listed(tmp_path, f"{web.url}/a.zip")])
    (entry,) = source.entries()
    assert "no HTTP range requests" in reason(source, entry)


@pytest.mark.parametrize("name", ["a.dcm", "a.zip"])
@pytest.mark.parametrize("target", ["file:///etc/passwd", "/SELF", "http://127.0.0.1:9/x", "http://[bad", "ftp://h/x"])
def test_a_redirection_that_leads_nowhere_is_an_error_of_its_entry(
    web: Web, tmp_path: Path, name: str, target: str
) -> None:
    web.moved = {f"/{name}": target.replace("SELF", name)}
    web.files = {"/b.dcm": dicom("b")}
    source = open_source([listed(tmp_path, f"{web.url}/{name}", f"{web.url}/b.dcm")])
    bad, good = source.entries()
    assert "redirects" in reason(source, bad)
    assert source.read(good) == dicom("b")


def test_a_redirection_is_followed(web: Web, tmp_path: Path) -> None:
    web.moved, web.files = {"/a.dcm": f"{web.url}/b.dcm"}, {"/b.dcm": dicom("b")}
    assert list(contents(open_source([listed(tmp_path, f"{web.url}/a.dcm")])).values()) == [dicom("b")]


@pytest.mark.parametrize(
    "bad",
    [
        "http://[bad",
        "http://[bad/a.zip",
        "http://h:x/a.dcm",
        "nothing://h/a.zip",
        "a\0b",
        "a\0.zip",
        "file://[bad/gone.dcm",
    ],
)
def test_an_invalid_line_of_a_list_is_an_error_of_its_entry(tmp_path: Path, bad: str) -> None:
    pytest.importorskip("aiohttp")
    (tmp_path / "b.dcm").write_bytes(dicom("b"))
    source = open_source([listed(tmp_path, bad, "b.dcm")])
    entries = list(source.entries())
    assert len(entries) == 2 and source.read(entries[1]) == dicom("b")
    with pytest.raises((InputError, UsageError), match=r"valid|no scheme|No such file"):
        source.read(entries[0])


def test_a_server_that_never_answers_is_given_up(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "IDLE_S", 0.1)
    source = open_source([listed(tmp_path, f"{web.url}/never")])
    with pytest.raises(SourceUnavailable, match="no answer"):
        source.read(next(iter(source.entries())))


@pytest.mark.parametrize("name", ["a.dcm", "a.zip"])
def test_the_host_of_a_url_that_cannot_be_connected_ends_the_run(tmp_path: Path, name: str) -> None:
    pytest.importorskip("aiohttp")
    source = open_source([listed(tmp_path, f"HTTP://LOCALHOST:9/{name}")])
    with pytest.raises(SourceUnavailable, match="no answer"):
        source.read(next(iter(source.entries())))


def test_containers_and_lists_behind_urls(web: Web, tmp_path: Path) -> None:
    web.files = {
        "/z.zip": write_zip(tmp_path / "z.zip", {"1.dcm": dicom("1"), "2.dcm": dicom("2")}).read_bytes(),
        "/t.tgz": write_tar(tmp_path / "t.tgz", [("3.dcm", dicom("3"))]).read_bytes(),
        "/list.csv": f"url\n{web.url}/z.zip?{SIGNATURE}\n{web.url}/t.tgz\n".encode(),
    }
    found = contents(open_source([f"{web.url}/list.csv"]))
    places = {"z.zip!1.dcm": dicom("1"), "z.zip!2.dcm": dicom("2"), "t.tgz!3.dcm": dicom("3")}
    assert found == {f"{web.url}/{name}": content for name, content in places.items()}


@pytest.mark.parametrize(("parameter", "count"), [("study", 2), ("token", 1)])
def test_containers_of_different_urls_are_not_mixed_up(web: Web, tmp_path: Path, parameter: str, count: int) -> None:
    names = ("a" * 40, "b" * 40)
    for name in names:
        web.files[f"/{name}"] = write_zip(tmp_path / "z.zip", {"L-CC.dcm": dicom(name)}).read_bytes()
    web.by_query = True
    source = open_source([listed(tmp_path, *(f"{web.url}/export.zip?{parameter}={name}" for name in names))])
    entries = list(source.entries())
    assert [source.read(entry) for entry in entries] == [dicom(name) for name in names], "each from its own container"
    assert len({entry.location for entry in entries}) == count
    assert not any(name in entry.location for entry in entries for name in names)


def test_objects_of_a_store() -> None:
    fsspec = pytest.importorskip("fsspec")
    fs = fsspec.filesystem("memory")
    for name in ("exams/1/a.dcm", "exams/2/1.2.3", "exams/2/x.txt", "exams/3/.hidden", "exams/b.png"):
        fs.pipe(f"/bucket/{name}", dicom(name))
    source = open_source(["memory://bucket/exams"])
    names = ["exams/b.png", "exams/1/a.dcm", "exams/2/1.2.3"]
    assert contents(source) == {f"memory:///bucket/{name}": dicom(name) for name in names}
    told: list[str] = []
    assert all(entry.version and entry.size for entry in source.entries(told.append))
    assert told == ["memory:///bucket/exams/2/x.txt"]
    entry = next(iter(source.entries()))
    fs.rm("/bucket/exams/b.png")
    assert "does not exist" in reason(source, entry)
    fs.rm("/bucket", recursive=True)
    with pytest.raises(SourceUnavailable):
        source.read(entry)
    with pytest.raises(UsageError, match="no objects"):
        list(source.entries())


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """Endpoint of an S3 server with two objects in the bucket `mammo`."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.mark.filterwarnings("default")  # of the libraries of Amazon
def test_s3(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    for name, value in {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_ENDPOINT_URL": bucket}.items():
        monkeypatch.setenv(name, value)
    fs = s3fs.S3FileSystem()
    fs.mkdir("mammo")
    for name in ("a/1.dcm", "a/2", "b/3.dcm"):
        fs.pipe(f"mammo/{name}", dicom(name))
    source = open_source(["s3://mammo"])
    assert contents(source) == {f"s3://mammo/{name}": dicom(name) for name in ("a/1.dcm", "a/2", "b/3.dcm")}
    entries = list(source.entries())
    assert {entry.version for entry in entries} == {fs.info(entry.location)["ETag"].strip('"') for entry in entries}
    fs.rm("mammo/a/2")
    assert "does not exist" in reason(source, entries[1])
    fs.rm("mammo", recursive=True)
    with pytest.raises(SourceUnavailable):
        source.read(entries[0])


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(BackendUnavailable, match=rf"{re.escape(sys.executable)} -m pip install gcsfs"):
        open_source(["gs://bucket/exams"])
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    with pytest.raises(BackendUnavailable, match=re.escape(install_line("ray"))):
        open_source(["https://host/list.txt"])
    with pytest.raises(BackendUnavailable, match=r"needs a package that this Python lacks\. fsspec says: .*ocifs"):
        open_source(["oci://bucket/list.txt"])


def test_so_is_pyarrow_for_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "list.parquet").write_bytes(b"PAR1")
    with pytest.raises(BackendUnavailable, match=re.escape(install_line("ray"))):
        list(open_source([str(tmp_path / "list.parquet")]).entries())


def test_a_large_object_is_refused(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MAX_BYTES", 1000)
    web.files = {"/a.dcm": bytes(3000)}
    source = open_source([listed(tmp_path, f"{web.url}/a.dcm")])
    with pytest.raises(InputError, match="too many"):
        source.read(next(iter(source.entries())))


def test_a_list_behind_a_url_names_no_files_of_this_machine(web: Web) -> None:
    web.files = {"/list.txt": b"/etc/passwd\n"}
    with pytest.raises(UsageError, match="expected URLs"):
        list(open_source([f"{web.url}/list.txt"]).entries())
    with pytest.raises(UsageError, match="does not exist"):
        list(open_source([f"{web.url}/other.txt"]).entries())
