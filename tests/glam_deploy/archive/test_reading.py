"""Entries of folders, and what is known of an entry after it was read; needs no Ray."""

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePath

import numpy as np
import pytest
from mammograms import write_mg
from pydicom.dataset import Dataset
from support.archive import NameCondition
from support.frames import fail, is_released, refuse

from glam_deploy.archive.decoder import decode_here
from glam_deploy.archive.identifiers import UIDS, Identifiers
from glam_deploy.archive.reader import EntryReader
from glam_deploy.archive.rows import Finding, entry_id, finding_of_error, instance_id
from glam_deploy.archive.sources import open_source
from glam_deploy.archive.sources.base import Entry
from glam_deploy.dicom.read import read_view
from glam_deploy.records import Mammogram, View


def test_a_view_and_its_identity(tmp_path: Path) -> None:
    path = write_mg(tmp_path / "a.dcm")
    (entry,) = open_source([str(path)]).entries()
    found, view = EntryReader(source=open_source([str(path)])).read(entry, decode_here)
    expected = read_view(path)
    assert view is not None
    assert (view.mammogram.pixels == expected.pixels).all()
    assert view.mammogram.source.name == "a.dcm"
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.bytes == path.stat().st_size
    assert found.uids == expected.source.uids
    assert set(found.uids) == set(UIDS)


def test_the_identity_is_that_of_the_header_whatever_a_decoder_states(tmp_path: Path) -> None:
    """By another one's SOPInstanceUID a decoder would make the other image a duplicate, which is not computed."""
    path, other = write_mg(tmp_path / "a.dcm"), write_mg(tmp_path / "b.dcm", view=View.R_MLO)
    expected, forged = read_view(path).source.uids, read_view(other).source.uids
    assert expected["SOPInstanceUID"] != forged["SOPInstanceUID"]

    def lie(data: bytes, name: PurePath, /, *, for_processing: bool) -> Mammogram:
        mammogram = decode_here(data, name, for_processing=for_processing)
        return replace(mammogram, source=replace(mammogram.source, uids=forged))

    source = open_source([str(path)])
    (entry,) = source.entries()
    found, view = EntryReader(source=source).read(entry, lie)
    assert view is not None
    assert found.uids == view.mammogram.source.uids == expected


def test_what_cannot_be_used_has_identity_and_reason(tmp_path: Path) -> None:
    whole = write_mg(tmp_path / "a.dcm").read_bytes()
    (tmp_path / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    source = open_source([str(tmp_path / "cut.dcm")])
    (entry,) = source.entries()
    found, view = EntryReader(source=source).read(entry, decode_here)
    assert view is None
    assert found.finding is not None
    assert (found.finding.status, found.finding.error) == ("failed", "IncompleteObject")
    assert found.uids == read_view(tmp_path / "a.dcm").source.uids
    assert found.sha256 == hashlib.sha256(whole[: len(whole) // 2]).hexdigest()


@pytest.mark.parametrize("step", [refuse, fail])
def test_the_image_of_an_error_is_released(step: Callable[[np.ndarray], None]) -> None:
    """Also if the error refers to itself by its traceback, as one of another thread does."""

    def use(image: np.ndarray) -> Finding:
        try:
            step(image)
        except Exception as error:
            return finding_of_error(error)
        raise AssertionError

    assert is_released(use, np.ones(5))


def test_a_condition_excludes_before_pixels_are_decoded(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(b"not an image, EXCLUDE")
    source = open_source([str(tmp_path / "a.dcm")])
    (entry,) = source.entries()
    found, view = EntryReader(source=source, where=NameCondition(b"EXCLUDE")).read(entry, decode_here)
    assert (found.excluded, found.finding, view) == ("without b'EXCLUDE'", None, None)


def test_ids_differ_where_location_version_identifier_or_content_do() -> None:
    entries = [("a", "1"), ("a", "2"), ("b", "1"), ("a\0", "1"), ("a\udcff", "1")]
    stored = Identifiers()
    assert len({entry_id(Entry(location=a, name="", version=v), stored) for a, v in entries}) == 5
    uids, path = {"SOPInstanceUID": "1.2"}, PurePath("a/1_L-CC.png")
    tagged = partial(instance_id, has_view_of_name=False)
    first = tagged(uids, "ab", path, stored)
    assert first == hashlib.sha256(b"1.2\0ab").hexdigest()[:32]
    assert first == tagged(uids, "ab", PurePath("b/2.png"), stored)
    others = {tagged({}, "ab", path, stored), tagged(uids, "ac", path, stored)}
    assert len({first, *others, tagged(uids, "ab", path, Identifiers(key=b"k" * 32))}) == 4


def test_the_same_pixels_under_another_view_are_another_instance() -> None:
    names = ("a/1_L-CC.png", "b/2_L-CC.png", "a/1_R-CC.png", "a/1.png", "a/L-CC_R-CC.png")
    for uids in ({}, {"SOPInstanceUID": "1.2"}):
        found = [instance_id(uids, "ab", PurePath(name), Identifiers(), has_view_of_name=True) for name in names]
        assert found[0] == found[1] and len(set(found)) == 4


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ((), False),
        (("ViewCodeSequence", "ImageLaterality"), True),
        (("ViewCodeSequence",), True),
        (("ImageLaterality",), True),
        (("PatientOrientation",), False),
        (("Rows",), False),
    ],
)
def test_whether_a_result_depends_on_the_name(tmp_path: Path, missing: tuple[str, ...], named: bool) -> None:
    def edit(dataset: Dataset) -> None:
        for keyword in missing:
            delattr(dataset, keyword)

    write_mg(tmp_path / "a.dcm", edit)
    source = open_source([str(tmp_path)])
    (entry,) = source.entries()
    for decoder in (None, decode_here):
        assert EntryReader(source=source).read(entry, decoder)[0].has_view_of_name is named


def test_the_view_in_the_name_of_a_folder(tmp_path: Path) -> None:
    """CBIS-DDSM names folders by the view, and its headers do not state it."""
    folder = tmp_path / "Mass-Training_P_00001_LEFT_CC/1.3.6/1.3.7"
    folder.mkdir(parents=True)
    write_mg(folder / "1-1.dcm", _without_view)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.write(folder / "1-1.dcm", (folder / "1-1.dcm").relative_to(tmp_path))
    for source in (open_source([str(folder.parents[1])]), open_source([str(tmp_path / "set.zip")])):
        (entry,) = source.entries()
        _, view = EntryReader(source=source).read(entry, decode_here)
        assert view is not None
        assert (view.mammogram.view, view.mammogram.source.name) == ("L-CC", "1-1.dcm")


def _without_view(dataset: Dataset) -> None:
    del dataset.ViewCodeSequence, dataset.ImageLaterality


def test_plain_identifiers() -> None:
    found = Identifiers().of({"StudyInstanceUID": "1.2"}, "/a")
    assert found == {
        "location": "/a",
        "patient": "",
        "sop_instance_uid": "",
        "series_instance_uid": "",
        "study_instance_uid": "1.2",
    }
