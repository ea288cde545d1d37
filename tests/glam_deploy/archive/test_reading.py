"""Entries of folders, and what is known of an entry after it was read; needs no Ray."""

import hashlib
from pathlib import Path

import pytest
from mammograms import write_mg
from support.archive import NameCondition, write_views

from glam_deploy.archive.reader import EntryReader
from glam_deploy.archive.rows import UIDS, PlainIdentifiers, entry_id, instance_id
from glam_deploy.archive.sources import Entry, SourceUnavailable, open_source
from glam_deploy.dicom.read import read_view
from glam_deploy.errors import InputError, UsageError


def test_entries_are_those_of_find_inputs_and_have_versions(tmp_path: Path) -> None:
    write_views(tmp_path / "in/b", ["2.dcm", "1"])
    write_views(tmp_path / "in", ["z.dcm"])
    (tmp_path / "in/note.txt").write_text("no image")
    (tmp_path / "in/.hidden.dcm").write_bytes(b"")
    found = list(open_source([str(tmp_path / "in")]).entries())
    assert [Path(entry.location).relative_to(tmp_path / "in").as_posix() for entry in found] == [
        "z.dcm",
        "b/1",
        "b/2.dcm",
    ]
    status = (tmp_path / "in/z.dcm").stat()
    assert (found[0].version, found[0].size) == (f"{status.st_size}-{status.st_mtime_ns}", status.st_size)
    (given,) = open_source([str(tmp_path / "in/note.txt")]).entries()
    assert given.name == "note.txt"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        list(open_source([str(tmp_path / "none")]).entries())


def test_a_file_that_has_gone_is_its_own_fault_a_folder_is_not(tmp_path: Path) -> None:
    write_views(tmp_path / "in", ["a.dcm"])
    source = open_source([str(tmp_path / "in")])
    (entry,) = source.entries()
    (tmp_path / "in/a.dcm").unlink()
    with pytest.raises(InputError, match="No such file"):
        source.read(entry)
    (tmp_path / "in").rmdir()
    with pytest.raises(SourceUnavailable, match="mounted"):
        source.read(entry)


def test_a_view_and_its_identity(tmp_path: Path) -> None:
    path = write_mg(tmp_path / "a.dcm")
    (entry,) = open_source([str(path)]).entries()
    found, view = EntryReader(source=open_source([str(path)])).read(entry)
    expected = read_view(path)
    assert view is not None
    assert (view.pixels == expected.pixels).all()
    assert view.source.name == "a.dcm"
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.bytes == path.stat().st_size
    assert found.uids == expected.source.uids
    assert set(found.uids) == set(UIDS)


def test_what_cannot_be_used_has_identity_and_reason(tmp_path: Path) -> None:
    whole = write_mg(tmp_path / "a.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    source = open_source([str(tmp_path / "cut.dcm")])
    (entry,) = source.entries()
    found, view = EntryReader(source=source).read(entry)
    assert view is None
    assert found.finding is not None
    assert (found.finding.status, found.finding.error) == ("failed", "DicomError")
    assert found.uids == read_view(tmp_path / "a.dcm").source.uids
    assert found.sha256 == hashlib.sha256(whole[: len(whole) // 2]).hexdigest()


def test_a_condition_excludes_before_pixels_are_decoded(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"not an image, EXCLUDE")
    source = open_source([str(tmp_path / "a.dcm")])
    (entry,) = source.entries()
    found, view = EntryReader(source=source, where=NameCondition(b"EXCLUDE")).read(entry)
    assert (found.excluded, found.finding, view) == (True, None, None)


def test_ids_differ_where_location_version_identifier_or_content_do() -> None:
    entries = [("a", "1"), ("a", "2"), ("b", "1"), ("a\0", "1"), ("a\udcff", "1")]
    assert len({entry_id(Entry(location=a, name="", version=v)) for a, v in entries}) == 5
    first = instance_id({"SOPInstanceUID": "1.2"}, "ab")
    assert first == hashlib.sha256(b"1.2\0ab").hexdigest()[:32]
    assert len({first, instance_id({}, "ab"), instance_id({"SOPInstanceUID": "1.2"}, "ac")}) == 3


def test_plain_identifiers() -> None:
    found = PlainIdentifiers().of({"StudyInstanceUID": "1.2"}, "/a")
    assert found == {
        "location": "/a",
        "sop_instance_uid": "",
        "series_instance_uid": "",
        "study_instance_uid": "1.2",
    }
