"""Containers against what the tests write into them: members of one name, and headers that lead back or never end."""

import bz2
import copy
import gzip
import io
import lzma
import os
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from support.archives import contents, dicom, reason, write_tar

from glam_deploy.archive.decoder import decode_here
from glam_deploy.archive.reader import EntryReader
from glam_deploy.archive.sources import containers, open_source
from glam_deploy.archive.sources.base import Entry, Source

END = bytes(1024)


def listed(path: Path) -> tuple[Source, list[Entry]]:
    """The entries of a container; of an endless listing the first ones."""
    source = open_source([str(path)])
    return source, list(islice(source.entries(), 20))


def write(path: Path, members: list[tuple[str, bytes]]) -> Path:
    if path.suffix != ".zip":
        return write_tar(path, members)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
@pytest.mark.parametrize("name", ["0_L-CC.png", "L-CC.tif", "p/L-CC.TIFF", "L-CC.npy", "broken.dcm", "inner.zip"])
def test_two_members_of_one_name_are_two_entries(tmp_path: Path, name: str, kind: str) -> None:
    path = write(tmp_path / f"twice.{kind}", [(name, b"one"), (name, b"other"), (name, b"third")])
    source, entries = listed(path)
    assert [entry.location for entry in entries] == [f"{path}!{name}", f"{path}!{name}!2", f"{path}!{name}!3"]
    assert {entry.name for entry in entries} == {Path(name).name}, "for the view and the suffix in it"
    if name == "inner.zip":
        assert all("extract it" in reason(source, entry) for entry in entries)
    else:
        assert [source.read(entry) for entry in entries] == [b"one", b"other", b"third"]


def npy(value: int) -> bytes:
    file = io.BytesIO()
    np.save(file, np.full((300, 200), value, "uint16"))
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_second_mask_of_one_name_is_a_mask(tmp_path: Path) -> None:
    path = write(tmp_path / "twice.zip", [("0_L-CC_mask.npy", npy(1)), ("0_L-CC_mask.npy", npy(2))])
    source, entries = listed(path)
    found = [EntryReader(source=source).read(entry, decode_here)[0].finding for entry in entries]
    assert [each.error for each in found if each] == ["NotForThisNetwork"] * 2


def test_a_member_named_as_an_invalid_url_is_a_member(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", [("http://[x/1.2", dicom("1")), ("s3://[x/a.zip", b"PK")])
    source, (one, inner) = listed(path)
    assert (source.read(one), one.name) == (dicom("1"), "1.2")
    assert "extract it" in reason(source, inner)


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    """A header of a tar file (POSIX.1-1988); a negative size in the form of GNU tar, base 256."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def pax(name: str, stored: int = 0, **values: str) -> bytes:
    """A header of a file of `stored` bytes with an extension (POSIX.1-2001)."""
    info = tarfile.TarInfo(name)
    info.size, info.pax_headers = stored, values
    return info.tobuf(tarfile.PAX_FORMAT)


def sparse(name: str, size: int) -> bytes:
    """A header of a sparse file (GNU tar) of 7 bytes, of which `size` are stored."""
    content = bytearray(header(name, size, tarfile.GNUTYPE_SPARSE))
    content[483:495] = b"00000000007\0"
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    return bytes(content)


BACKWARDS = {
    "size": header("a.dcm", -512),
    "pax": pax("a.dcm", size="-1536"),
    "pax to the begin": pax("a.dcm", size="-2048"),
    "other kind": header("a", -512, b"Z"),
    "sparse": sparse("a.dcm", -512),
    "sparse to the end mark": sparse("a.dcm", -1024),
    "real size": pax("a.dcm", **{"GNU.sparse.map": "0,0", "GNU.sparse.size": "-5"}),
}


@pytest.mark.parametrize("member", BACKWARDS.values(), ids=BACKWARDS)
@pytest.mark.parametrize("kind", ["tar", "tgz"])
def test_a_tar_whose_headers_lead_back_ends_with_its_damage(tmp_path: Path, kind: str, member: bytes) -> None:
    """CVE-2025-8194: such a tar was listed without end, and the sources after it were never reached."""
    content = header("first.dcm", 512) + bytes(512) + member + END + header("lost.dcm") + END
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content if kind == "tar" else gzip.compress(content))
    source, entries = listed(path)
    assert [entry.location for entry in entries] == [f"{path}!first.dcm", str(path)]
    assert "damaged" in reason(source, entries[-1])


def test_a_member_beyond_the_end_of_a_compressed_tar_is_damage(tmp_path: Path) -> None:
    """A step forward at the end of the content goes nowhere."""
    path = tmp_path / "a.tgz"
    path.write_bytes(gzip.compress(header("first.dcm", 1 << 30) + END))
    source, entries = listed(path)
    assert [entry.location for entry in entries] == [f"{path}!first.dcm", str(path)]
    assert "damaged" in reason(source, entries[-1])


def parts(order: Iterator[int]) -> str:
    return ",".join(f"{number * 2},1" for number in order)


@pytest.mark.parametrize("turned", [False, True])
def test_the_parts_of_a_sparse_file_are_in_order(tmp_path: Path, turned: bool) -> None:
    """Against the order, each step would search all parts."""
    order = reversed(range(1000)) if turned else iter(range(1000))
    info = pax("a.dcm", 1000, **{"GNU.sparse.map": parts(order), "GNU.sparse.size": "2000"})
    path = tmp_path / "a.tar"
    path.write_bytes(info + b"x" * 1024 + END)
    source, entries = listed(path)
    if turned:
        assert [entry.location for entry in entries] == [str(path)]
        assert "sparse file have no order" in reason(source, entries[0])
    else:
        assert source.read(entries[0]) == b"x\0" * 1000


@pytest.mark.skipif(shutil.which("tar") is None, reason="needs tar")
@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_a_sparse_file_of_gnu_tar_is_read(tmp_path: Path, form: str) -> None:
    content = dicom("1") + bytes(1 << 17) + b"middle" + bytes(1 << 17)
    with (tmp_path / "a.dcm").open("wb") as file:
        for at in range(0, len(content), 4096):
            part = content[at : at + 4096]
            _ = file.write(part) if part.strip(b"\0") else file.seek(len(part), io.SEEK_CUR)
        file.truncate(len(content))
    path = tmp_path / "a.tar"
    subprocess.run(
        ["tar", "-cf", path, "-S", "--hole-detection=raw", f"--format={form}", "a.dcm"], cwd=tmp_path, check=True
    )
    assert path.stat().st_size < len(content)
    source, (entry,) = listed(path)
    assert source.read(entry) == content


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_the_headers_of_a_member_are_bounded_together(tmp_path: Path, kind: bytes) -> None:
    half = (containers._MAX_HEADER // 2) + 512
    path = tmp_path / "a.tgz"
    extension = header("long", half, kind) + bytes(half)
    path.write_bytes(gzip.compress(header("first.dcm") + extension * 3 + header("a.dcm") + END, 1))
    source, entries = listed(path)
    assert [entry.location for entry in entries] == [f"{path}!first.dcm", str(path)]
    assert f"header of more than {containers._MAX_HEADER} bytes" in reason(source, entries[-1])


# archives behind archives


@pytest.mark.parametrize("kind", ["tar", "tgz", "tar.bz2", "tar.xz"])
def test_an_archive_behind_an_archive_has_its_members(tmp_path: Path, kind: str) -> None:
    """As `cat day*.tgz > month.tgz` makes it, which `tar --ignore-zeros` reads."""
    days = [
        write_tar(tmp_path / f"{n}.{kind}", [("1.dcm", dicom(f"{n}")), (f"{n}.dcm", dicom(f"own {n}"))])
        for n in range(3)
    ]
    path = tmp_path / f"month.{kind}"
    path.write_bytes(b"".join(day.read_bytes() for day in days))
    source = open_source([str(path)])
    labels = ("1.dcm", "0.dcm", "1.dcm!2", "1.dcm!3", "1.dcm!4", "2.dcm")
    told = ("0", "own 0", "1", "own 1", "2", "own 2")
    assert contents(source) == {f"{path}!{label}": dicom(text) for label, text in zip(labels, told, strict=True)}


def test_a_program_reads_the_same(tmp_path: Path) -> None:
    days = [write_tar(tmp_path / f"{n}.tgz", [(f"{n}.dcm", dicom(f"{n}"))]) for n in range(3)]
    (path := tmp_path / "month.tgz").write_bytes(b"".join(day.read_bytes() for day in days))
    listing = subprocess.run(["tar", "-tizf", path], check=True, capture_output=True, text=True).stdout
    assert listing.split() == [entry.location.partition("!")[2] for entry in listed(path)[1]]


@pytest.mark.parametrize("more", [b"other data", bytes(512) + b"\1" * 512, b"\1" * 5000])
def test_other_data_behind_a_tar_are_damage(tmp_path: Path, more: bytes) -> None:
    path = write_tar(tmp_path / "a.tar", [("1.dcm", dicom("1"))])
    path.write_bytes(path.read_bytes() + more)
    source, (entry, damaged) = listed(path)
    assert source.read(entry) == dicom("1")
    assert "other data follow" in reason(source, damaged)


def test_zeros_behind_a_tar_are_its_padding_up_to_a_bound(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", [("1.dcm", dicom("1"))])
    os.truncate(path, 10 << 20)
    assert len(listed(path)[1]) == 1
    os.truncate(path, 100 << 30)
    source, (_, damaged) = listed(path)
    assert "zeros follow the end mark" in reason(source, damaged)


def test_a_zip_behind_a_zip_is_told(tmp_path: Path) -> None:
    one, other = (write(tmp_path / f"{n}.zip", [(f"{n}.dcm", dicom(f"{n}"))]) for n in range(2))
    (path := tmp_path / "both.zip").write_bytes(one.read_bytes() + other.read_bytes())
    source, (entry, damaged) = listed(path)
    assert source.read(entry) == dicom("1")
    assert f"another zip archive is in its first {one.stat().st_size} bytes" in reason(source, damaged)


def test_a_program_before_a_zip_is_none(tmp_path: Path) -> None:
    """As in archives that extract themselves."""
    path = write(tmp_path / "a.zip", [("1.dcm", dicom("1"))])
    path.write_bytes(b"MZ" + bytes(5000) + path.read_bytes())
    source, (entry,) = listed(path)
    assert source.read(entry) == dicom("1")


# names


def test_a_member_without_a_name_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(path := tmp_path / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(""), dicom("1"))
        archive.writestr("2.dcm", dicom("2"))
    source, entries = listed(path)
    assert [source.read(entry) for entry in entries] == [dicom("1"), dicom("2")]
    assert [entry.location for entry in entries] == [f"{path}!unnamed", f"{path}!2.dcm"]


def test_a_name_in_another_encoding_than_the_archive_says(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip", [("1.dcm", dicom("1")), ("\u00e95.dcm", dicom("2"))])
    path.write_bytes(path.read_bytes().replace("\u00e9".encode(), b"\xff\xfe"))
    source, (entry,) = listed(path)
    assert "the name of a member is not UTF-8" in reason(source, entry) and "extract it" in reason(source, entry)


# sizes


def test_members_that_share_bytes_are_damage(tmp_path: Path) -> None:
    with zipfile.ZipFile(path := tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.dcm", dicom("1") + bytes(5000))
        archive.filelist += [copy.copy(archive.filelist[0]) for _ in range(50)]
    source, (entry,) = listed(path)
    assert "members share bytes" in reason(source, entry)


def test_sparse_files_are_bounded_in_all(tmp_path: Path) -> None:
    for name in ("1.dcm", "2.dcm", "3.dcm"):
        (tmp_path / name).write_bytes(dicom(name))
        os.truncate(tmp_path / name, 400 << 20)
    names = ["1.dcm", "2.dcm", "3.dcm"]
    subprocess.run(["tar", "--sparse", "-cf", "a.tar", *names], cwd=tmp_path, check=True)
    assert (tmp_path / "a.tar").stat().st_size < 100_000
    source, entries = listed(tmp_path / "a.tar")
    assert [entry.location.partition("!")[2] for entry in entries] == ["1.dcm", "2.dcm", ""]
    assert "bytes of sparse files" in reason(source, entries[-1])


def test_an_impossible_size_is_damage_of_the_archive(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(pax("1.dcm", size="9" * 30) + dicom("1").ljust(512, b"\0") + END)
    source, (member, archive) = listed(path)
    assert reason(source, member) and "impossible size" in reason(source, archive)


def test_a_tar_member_of_an_unknown_type_or_without_a_name_is_read(tmp_path: Path) -> None:
    """POSIX.1-2017 pax, ustar: a type that is not known is a regular file; GNU tar extracts it too."""
    content, blocks = dicom("a"), b""
    for name, kind in (("c.dcm", b"Z"), ("", tarfile.REGTYPE)):
        info = tarfile.TarInfo(name)
        info.size, info.type = len(content), kind
        blocks += info.tobuf() + content.ljust(-len(content) % 512 + len(content), b"\0")
    (tmp_path / "a.tar").write_bytes(blocks + END)
    listing = subprocess.run(["tar", "-tf", "a.tar"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "c.dcm" in listing.stdout
    source, entries = listed(tmp_path / "a.tar")
    assert {entry.location.partition("!")[2]: source.read(entry) for entry in entries} == {
        "c.dcm": content,
        "unnamed": content,
    }


# kinds that are not opened


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("exam.rar", b"Rar!\x1a\x07\0", "a rar archive"),
        ("exam.7z", b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
        ("2009.tar.zst", b"\x28\xb5\x2f\xfd", "a zstd archive"),
        ("disc 3.ISO", bytes(40_000), "unknown"),
        ("a.zipx", b"PK\3\4", "a zip archive"),
        ("1.2.840.113619.2.55.3.gz", gzip.compress(dicom("a"), mtime=0), "compressed with gzip"),
        ("x.gz", gzip.compress(dicom("a"), mtime=0), "compressed with gzip"),
        ("exam.data", bz2.compress(dicom("a")), "a bzip2 archive"),
        ("x.xz", lzma.compress(dicom("a")), "an xz archive"),
        ("f.dcm.Z", b"\x1f\x9d\x90", "an archive (compress, lzip,"),
        ("1.2.840.113619.2.55.4.lzma", lzma.compress(dicom("a"), lzma.FORMAT_ALONE), "an archive (compress, lzip,"),
        ("exam.taz", gzip.compress(b"a".ljust(257) + b"ustar", mtime=0), "compressed with gzip"),
        ("disc.cab", b"MSCF\0\0\0\0", "an archive (compress, lzip,"),
    ],
)
def test_an_archive_that_is_not_opened_has_a_row(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (folder := tmp_path / "in").mkdir()
    (folder / name).write_bytes(content)
    write(tmp_path / "a.zip", [(name, content)])
    for path in (folder, tmp_path / "a.zip"):
        source, (entry,) = listed(path)
        finding = EntryReader(source=source).read(entry, decode_here)[0].finding
        assert finding is not None and told in finding.reason
