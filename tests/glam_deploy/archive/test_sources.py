"""Sources against what is in the folders, containers and lists that the tests write."""

import bz2
import gzip
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from support.archives import contents, dicom, locations, reason, write_tar, write_zip

from glam_deploy.archive.sources import containers, open_source, storage
from glam_deploy.archive.sources.base import Entry, SourceUnavailable
from glam_deploy.errors import BackendUnavailable, UsageError
from glam_deploy.input_files import find_inputs
from glam_deploy.reading import MAX_BYTES


def member(entry: Entry) -> str:
    """What follows the first `!`."""
    return entry.location.partition("!")[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Images by suffix and by content, other files, hidden ones, and links in circles."""
    root = tmp_path / "tree"
    for name, content in {
        "b/1.2.3": dicom("uid"), "b/x.png": b"p", "b/notes.txt": b"t", "b/DICOMDIR": dicom("dir"), "a.dcm": b"broken",
        "c/d/e.IMA": dicom("siemens"), "c/.hidden.dcm": dicom("h"), ".git/x.dcm": dicom("g"),
        "dicomdir.;1": dicom("dir"), "c/headless": dicom("headless")[128:], "c/README": b"f\xfcr \xc4rzte\r\n",
        "c/d/IM1": b"", "c/d/IM2": bytes(600), "c/d/1.2.840.1": gzip.compress(dicom("packed")), "c/d/LICENSE": b"all",
        "c/DICOMDIR/IM3": dicom("in a folder"), "c/Dicomdir;1/x.dcm": dicom("in another folder"),
        "c/d/x.DCM.gz": gzip.compress(dicom("suffix")), "c/d/report.gz": gzip.compress(b"text"),
        "c/d/list.csv.bz2": bz2.compress(b"text"),
    }.items():  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "c/up").symlink_to(root)
    (root / "c/broken.dcm").symlink_to(root / "nothing")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "o.dcm").write_bytes(dicom("outside"))
    (outside / "back").symlink_to(outside)
    (root / "link").symlink_to(outside)
    return root


def test_a_folder_has_the_files_that_run_finds(tree: Path) -> None:
    found = locations(open_source([str(tree)]))
    assert sorted(found) == sorted(str(path) for path in find_inputs([tree]))
    found_names = {Path(path).name for path in found}
    assert found_names >= {"IM1", "IM2", "IM3", "x.dcm", "1.2.840.1", "x.DCM.gz"}
    assert not found_names & {"README", "LICENSE", "report.gz"}
    assert found[0].endswith("a.dcm"), "files of a folder come before its folders"
    assert found == locations(open_source([str(tree)]))


def test_other_files_are_told(tree: Path) -> None:
    """Each once, without hidden ones, as `run` counts them."""
    told: list[str] = []
    list(open_source([str(tree)]).entries(told.append))
    assert sorted(told) == [
        str(tree / name) for name in ("b/notes.txt", "c/README", "c/d/LICENSE", "c/d/list.csv.bz2", "c/d/report.gz")
    ]


def test_a_folder_is_listed_step_by_step(tree: Path) -> None:
    entries = open_source([str(tree)]).entries()
    next(entries)
    (tree / "c/d/later.dcm").write_bytes(dicom("later"))
    assert any(entry.location.endswith("later.dcm") for entry in entries)


def test_version_is_of_size_and_time(tree: Path) -> None:
    first = next(iter(open_source([str(tree)]).entries()))
    assert first.size == len(b"broken") and next(iter(open_source([str(tree)]).entries())) == first
    os.utime(tree / "a.dcm", (1, 1))
    assert next(iter(open_source([str(tree)]).entries())).version == "6-1000000000"


def test_a_name_that_is_not_utf8_has_a_location_that_is(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"M\xfcller.dcm")).write_bytes(dicom("latin"))
    source = open_source([str(tmp_path)])
    (location,) = locations(source)
    assert location == f"file://{tmp_path}/M%FCller.dcm"
    assert contents(source) == {location: dicom("latin")}


def test_a_file_that_is_gone_is_its_own_error_and_a_folder_that_is_gone_that_of_the_source(tree: Path) -> None:
    source = open_source([str(tree)])
    entry = next(iter(source.entries()))
    (tree / "a.dcm").unlink()
    assert "No such file" in reason(source, entry)
    tree.rename(tree.with_name("elsewhere"))
    with pytest.raises(SourceUnavailable, match=r"a\.dcm cannot be reached"):
        source.read(entry)
    tree.mkdir()  # as a mount point that is not mounted
    with pytest.raises(SourceUnavailable):
        source.read(entry)


def test_a_folder_that_cannot_be_searched_is_an_entry(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir

    def scandir(path: Path) -> object:
        if Path(path).name == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    source = open_source([str(tree)])
    (entry,) = [entry for entry in source.entries() if entry.name == "b"]
    assert reason(source, entry) == "it cannot be read (Permission denied): check its path and rights"


MEMBERS = [
    ("p/1.dcm", dicom("1")),
    ("../up.dcm", dicom("up")),
    ("p/noname", dicom("2")),
    ("p/readme.txt", b"text"),
    ("p/.hidden.dcm", b"h"),
    ("p/1.dcm", dicom("again")),
    ("p/inner.zip", b"PK"),
    ("DICOMDIR", dicom("dir")),
    ("q/dicomdir", dicom("dir")),
    ("q/headless.ima", dicom("3")[128:]),
    ("q/IM7", bytes(600)),
    ("q/README", b"text"),
]
EXPECTED = {
    "p/1.dcm": dicom("1"),
    "../up.dcm": dicom("up"),
    "p/noname": dicom("2"),
    "p/1.dcm!2": dicom("again"),
    "q/headless.ima": dicom("3")[128:],
    "q/IM7": bytes(600),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["zip", "tar", "tgz", "tar.bz2", "tar.xz"])
def test_members_of_a_container(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in MEMBERS:
                archive.writestr(name, content)
    else:
        write_tar(path, MEMBERS)
    source = open_source([str(tmp_path)])
    told: list[str] = []
    entries = {member(entry): entry for entry in source.entries(told.append)}
    assert told == [f"{path}!p/readme.txt", f"{path}!q/README"]
    assert "extract it" in reason(source, entries.pop("p/inner.zip"))
    assert {label: source.read(entry) for label, entry in entries.items()} == EXPECTED
    backwards = {label: source.read(entry) for label, entry in reversed(entries.items())}
    assert backwards == EXPECTED
    assert {entry.version for entry in entries.values()} == {f"{path.stat().st_size}-{path.stat().st_mtime_ns}"}


def test_many_members_of_one_name_are_numbered_in_one_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Text(str):
        __slots__ = ()

        def __format__(self, form: str) -> str:
            made.append(1)
            return super().__format__(form)

    names = [Text("x.dcm")] * 1000
    monkeypatch.setattr(containers, "_in_zip", lambda file: ((name, 0, io.BytesIO) for name in names))
    labels = [found.label for found in containers.members(io.BytesIO(), "a.zip")]
    assert labels == ["x.dcm", *(f"x.dcm!{number}" for number in range(2, 1001))]
    assert len(made) == 999, "one label for each member"


def test_a_compressed_tar_is_decompressed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "a.tgz", [(f"{n}.dcm", dicom(str(n))) for n in range(50)])
    opened = []
    real = gzip.GzipFile.__init__
    monkeypatch.setattr(gzip.GzipFile, "__init__", lambda self, **given: (opened.append(1), real(self, **given))[1])
    source = open_source([str(path)])
    entries = list(source.entries())
    assert [source.read(entry) for entry in entries] == [dicom(str(n)) for n in range(50)]
    assert len(opened) == 2, "once for the list, once to read"


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
def test_a_damaged_container_is_an_entry_with_a_reason(tmp_path: Path, kind: str) -> None:
    noise = [(f"{n}.dcm", dicom("x") + os.urandom(20_000)) for n in range(3)]
    path = tmp_path / f"a.{kind}"
    _ = write_zip(path, dict(noise)) if kind == "zip" else write_tar(path, noise)
    path.write_bytes(path.read_bytes()[:45_000])
    source = open_source([str(path)])
    *before, last = source.entries()
    assert last.location == str(path) and "damaged" in reason(source, last)
    assert [source.read(entry) for entry in before[:2]] == [content for _, content in noise[:2]][: len(before)]


PAGE = b"<html><body>404 Not Found</body></html>\n"


KINDS = [("zip", "zip"), ("gz", "gzip"), ("bz2", "bzip2"), ("xz", "xz"), ("tar", "tar")]
"""End of a name and format."""


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tgz", "a.tar.bz2", "a.txz"])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "the file is empty (0 bytes), expected KIND because its name ends with SUFFIX: copy or download"),
        (PAGE, "the file is a web page (HTML or XML), perhaps the error page of a download, expected KIND because"),
        (b"0123456789", "the file is no archive (it starts with 30313233), expected KIND because"),
        (b"Rar!\x1a\x07\0", "the file is a rar archive, expected KIND because"),
    ],
)
def test_a_file_that_is_no_container(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    """Not an error of the disk, although zipfile and bz2 raise OSError."""
    (tmp_path / name).write_bytes(content)
    source = open_source([str(tmp_path / name)])
    (entry,) = source.entries()
    suffix, kind = next(pair for pair in KINDS if name.endswith(pair[0]))
    if content.isdigit() and kind == "tar":  # the oldest tar files have no signature
        expected = "the content is no tar archive, or is damaged (ReadError): copy it again, or extract it"
    assert reason(source, entry).startswith(expected.replace("KIND", kind).replace("SUFFIX", suffix))


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        (b"PK\3\4abcdef", "a.zip", "the archive is damaged (BadZipFile): copy it again, or extract it"),
        (b"PK\3\4abcdef", "a.tgz", "the file is a zip archive, expected gzip because its name ends with gz: give it"),
        (gzip.compress(PAGE, mtime=0), "a.tgz", "the content is no tar archive, or is damaged (ReadError)"),
    ],
)
def test_a_container_of_another_kind_or_damaged(tmp_path: Path, content: bytes, name: str, expected: str) -> None:
    (tmp_path / name).write_bytes(content)
    source = open_source([str(tmp_path / name)])
    (entry,) = source.entries()
    assert reason(source, entry).startswith(expected)


def test_a_tar_with_a_damaged_header_in_its_middle_is_not_taken_for_complete(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("1.dcm", dicom("1")), ("2.dcm", dicom("2"))])
    content = bytearray(path.read_bytes())
    content[1024:1034] = b"\xff" * 10
    path.write_bytes(content)
    source = open_source([str(path)])
    first, damaged = source.entries()
    assert (member(first), damaged.location) == ("1.dcm", str(path))
    assert "without its end mark" in reason(source, damaged)


def test_members_that_cannot_be_read_are_errors_of_their_own(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.zip", {"good.dcm": dicom("good"), "bad.dcm": dicom("bad"), "locked": dicom("l")})
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        at = archive.getinfo("bad.dcm").header_offset + 30 + len("bad.dcm")
    content[at] ^= 0xFF
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 8] |= 1  # encrypted
    path.write_bytes(content)
    source = open_source([str(path)])
    good, bad, locked = source.entries()
    assert "damaged" in reason(source, bad)
    assert "encrypted" in reason(source, locked)
    assert source.read(good) == dicom("good")


def test_an_archive_without_images_is_an_entry(tmp_path: Path) -> None:
    source = open_source([str(write_zip(tmp_path / "a.zip", {"a.txt": b"t"}))])
    (entry,) = source.entries()
    assert "no DICOM" in reason(source, entry)


def test_bombs_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "_FREE", 1 << 20)
    monkeypatch.setattr(containers, "MAX_STEP", 1 << 20)
    bomb = tmp_path / "bomb.tgz"
    with tarfile.open(bomb, "w:gz") as archive:
        info = tarfile.TarInfo("zeros.bin")
        info.size = 8 << 20
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    (entry,) = open_source([str(bomb)]).entries()
    assert "200 times its size" in reason(open_source([str(bomb)]), entry)
    monkeypatch.setattr(storage, "MAX_BYTES", 1 << 20)
    path = write_zip(tmp_path / "a.zip", {"zeros.dcm": bytes(2 << 20)})
    source = open_source([str(path)])
    assert "too many" in reason(source, next(iter(source.entries())))


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.dcm"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    source = open_source([str(path)])
    assert "too many" in reason(source, next(iter(source.entries())))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "does not exist"),
        ("", "a source is empty"),
        ("s3x://bucket", "no scheme"),
        ("https://u:geheim@[host/a.dcm", "not a valid URL"),
        ("dicomweb+https://[host", "not a valid URL"),
        ("file://[host/a.dcm", "not a valid URL"),
        ("file://host/etc/passwd", "not a valid URL"),
        ("https://host/folder/", "no listing"),
        ("https://user:geheim@host/folder/", "no listing"),
        ("zip://*::s3://bucket/a.zip", "chain"),
        ("sftp://host/folder", "sftp"),
    ],
)
def test_what_is_no_source(text: str, message: str) -> None:
    with pytest.raises((UsageError, BackendUnavailable), match=message) as caught:
        list(open_source([text]).entries())
    assert "geheim" not in str(caught.value)


def test_paths_that_look_like_members(tmp_path: Path) -> None:
    (tmp_path / "a.zip!").mkdir()
    (tmp_path / "a.zip!/plain.dcm").write_bytes(dicom("plain"))
    write_zip(tmp_path / "a.zip!/b.zip", {"c.zip!x/d.dcm": dicom("d")})
    write_zip(tmp_path / "a.zip", {"e.dcm": dicom("e")})
    assert sorted(contents(open_source([str(tmp_path)])).values()) == [dicom("d"), dicom("e"), dicom("plain")]


def test_sources_one_after_another(tree: Path, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "z.zip", {"m.dcm": dicom("m")})
    (tmp_path / "list.txt").write_text("outside/o.dcm\n")
    source = open_source([str(tmp_path / "list.txt"), str(path), str(tree / "b"), str(path)])
    assert contents(source) == {
        f"{tmp_path}/outside/o.dcm": dicom("outside"),
        f"{path}!m.dcm": dicom("m"),
        f"{tree}/b/1.2.3": dicom("uid"),
        f"{tree}/b/x.png": b"p",
    }


def test_locations_do_not_depend_on_the_working_folder(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absolute = contents(open_source([str(tree / "b")]))
    monkeypatch.chdir(tree)
    source = open_source(["b"])
    monkeypatch.chdir("/")
    assert contents(source) == absolute
