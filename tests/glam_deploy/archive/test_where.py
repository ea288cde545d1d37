"""Conditions on headers, against attributes that the test writes."""

from pathlib import Path

import pytest
from mammograms import write_mg
from pydicom.dataset import Dataset

from glam_deploy.archive.where import parse_where
from glam_deploy.errors import UsageError


def edit(dataset: Dataset) -> None:
    dataset.Manufacturer = "HOLOGIC, Inc."
    dataset.StudyDate = "20200131"
    dataset.StudyTime = "134501.5"
    dataset.AcquisitionDateTime = "20200131134501+0100"
    dataset.PatientAge = "045Y"
    dataset.KVP = "28.5"
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.SoftwareVersions = ["1.2", "3.4"]
    dataset.InstitutionName = ""
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName = "Müller^Anna"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_mg(tmp_path_factory.mktemp("mg") / "a.dcm", edit).read_bytes()


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("Manufacturer=HOLOGIC*", True),
        ("manufacturer = x", None),
        ("Manufacturer=hologic, inc.", True),
        ("Manufacturer=HOLOGIC", False),
        ("Manufacturer!=HOLOGIC*", False),
        ("Manufacturer!=GE*", True),
        ("StudyDate=2020", True),
        ("StudyDate=2020-01-31", True),
        ("StudyDate>2020", False),
        ("StudyDate>=2020", True),
        ("StudyDate<=2020", True),
        ("StudyDate<2020", False),
        ("StudyDate<2020-02", True),
        ("StudyDate>2020-01-30", True),
        ("StudyTime>=13:45", True),
        ("StudyTime>13:45", False),
        ("StudyTime<13:45:02", True),
        ("AcquisitionDateTime=2020-01-31T13:45:01", True),
        ("AcquisitionDateTime>2020-01-31 13:45:01", False),
        ("PatientAge>=40", True),
        ("PatientAge<540M", False),
        ("PatientAge<=540M", True),
        ("Rows=96", True),
        ("Rows<96.5", True),
        ("Rows!=96", False),
        ("KVP>28", True),
        ("KVP<=28.5", True),
        ("ImageType=PRIMARY", True),
        ("ImageType!=PRIMARY", False),
        ("SoftwareVersions=3.?", True),
        ("InstitutionName=", True),
        ("InstitutionName!=", False),
        ("Manufacturer!=", True),
        ("StationName=x", False),
        ("StationName!=x", True),
        ("PatientName=müller*", True),
        ("TransferSyntaxUID=1.2.840.10008.1.2.1", True),
    ],
)
def test_conditions(data: bytes, condition: str, holds: bool | None) -> None:
    if holds is None:
        with pytest.raises(UsageError, match="Manufacturer"):
            parse_where([condition])
        return
    assert parse_where([condition]).matches(data) is holds


def test_all_must_hold(data: bytes) -> None:
    assert parse_where(["Rows=96", "StudyDate=2020"]).matches(data)
    assert not parse_where(["Rows=96", "StudyDate=2021"]).matches(data)
    assert parse_where([]).matches(b"anything")


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("Manufakturer=x", "Manufacturer"),
        ("Qwertzuiop=x", "no keyword"),
        ("Manufacturer", "no condition"),
        ("Manufacturer<x", "no order"),
        ("Rows=many", "a number"),
        ("Rows>nan", "a number"),
        ("StudyDate>yesterday", "2020-01-31"),
        ("PatientAge>old", "an age"),
        ("Rows<", "no value"),
        ("ViewCodeSequence=x", "cannot be compared"),
        ("PixelData=x", "cannot be compared"),
        ("FileMetaInformationVersion=1", "cannot be compared"),
    ],
)
def test_what_is_no_condition(condition: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_where([condition])


def test_other_formats_match_nothing_and_a_damaged_header_is_passed_on(data: bytes) -> None:
    where = parse_where(["SeriesNumber!=5", "PatientAge>1"])
    assert not where.matches(b"\x89PNG\r\n\x1a\n" + bytes(200))
    assert where.matches(data[:300])
    assert where.matches(data[128:])


def test_pixels_are_not_read(data: bytes) -> None:
    pixels = data.index(b"\xe0\x7f\x10\x00")
    assert parse_where(["Rows=96"]).matches(data[: pixels + 8])


def test_an_unparsable_number_is_not_equal(tmp_path: Path) -> None:
    path = write_mg(tmp_path / "a.dcm", lambda dataset: setattr(dataset, "KVP", "28"))
    broken = path.read_bytes().replace(b"DS\x02\x0028", b"DS\x02\x00xx")
    assert not parse_where(["KVP=28"]).matches(broken)
    assert parse_where(["KVP!=28"]).matches(broken)
