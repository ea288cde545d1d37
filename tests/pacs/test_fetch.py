"""Fetching from Debian's Orthanc by DIMSE and DICOMweb, and from DCMTK's dcmqrscp: each image once, byte for byte."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from pacs.exams import exam_of, write_exam
from pydicom import dcmread
from pydicom.dataset import Dataset
from support import dcmqrscp as support_dcmqrscp
from support import orthanc as support_orthanc
from support.dcmqrscp import Dcmqrscp
from support.fetching import config_of, fetching, states, want
from support.jobs import rows
from support.orthanc import USER, Orthanc, free_port
from support.receive import data_set_of, running_receiver
from support.until import until

from glam_deploy.appliance.config import Config

Archive = Orthanc | Dcmqrscp
WAYS = ("orthanc-get", "orthanc-move", "orthanc-web", "dcmqrscp-get", "dcmqrscp-move")


@pytest.fixture(scope="module")
def port() -> int:
    """Where the receiver listens."""
    return free_port()


@pytest.fixture(scope="module")
def archives(port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Archive]]:
    orthanc = Orthanc(folder=tmp_path_factory.mktemp("orthanc"), glam_port=port)
    dcmqrscp = Dcmqrscp(folder=tmp_path_factory.mktemp("dcmqrscp"), glam_port=port)
    with support_orthanc.running(orthanc), support_dcmqrscp.running(dcmqrscp):
        yield {"orthanc": orthanc, "dcmqrscp": dcmqrscp}


def keys(way: str, archive: Archive, folder: Path) -> dict[str, Any]:
    """The table [fetch]."""
    if way.endswith("web"):
        assert isinstance(archive, Orthanc)
        (folder / "password").write_text(USER[1])
        return {"url": archive.dicomweb, "user": USER[0], "password_file": folder / "password"}
    title = support_orthanc.AE_TITLE if isinstance(archive, Orthanc) else support_dcmqrscp.AE_TITLE
    address = {"ae_title": title, "host": "127.0.0.1", "port": archive.dicom_port}
    return address | {"retrieve": way.rpartition("-")[2]}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def archive(way: str, archives: dict[str, Archive]) -> Archive:
    return archives[way.partition("-")[0]]


@pytest.fixture
def config(way: str, archive: Archive, port: int, tmp_path: Path) -> Config:
    table = keys(way, archive, tmp_path)
    return config_of(tmp_path, table, port=port, sender=str(table.get("ae_title", "MODALITY")))


def receiving(config: Config) -> AbstractContextManager[object]:
    assert config.fetch
    return running_receiver(config) if config.fetch.moves else nullcontext()


def received(config: Config) -> list[bytes]:
    """The data sets in the spool."""
    return sorted(data_set_of(path.read_bytes()) for path in (config.data / "spool/studies").rglob("*.dcm"))


def with_accession(accession: str, day: str) -> Callable[[Dataset], None]:
    def change(dataset: Dataset) -> None:
        dataset.AccessionNumber, dataset.StudyDate = accession, day

    return change


def edited(folder: Path, seed: str, edit: Callable[[Dataset], None]) -> list[Path]:
    """An exam whose headers are changed."""
    files = write_exam(folder, seed)
    for file in files:
        dataset = dcmread(file)
        edit(dataset)
        dataset.save_as(file)
    return files


def test_a_study_is_fetched_whole_and_unchanged(config: Config, archive: Archive, way: str, tmp_path: Path) -> None:
    files = write_exam(tmp_path / "exam", f"whole {way}")
    archive.upload(files)
    archive.upload(write_exam(tmp_path / "other", f"other {way}"))
    want(config, "study", exam_of(f"whole {way}").uid("study"))
    with receiving(config), fetching(config) as data:
        until(lambda: states(data) == ["fetched"])
    assert received(config) == sorted(data_set_of(file.read_bytes()) for file in files)
    assert rows(data, "SELECT priority, state FROM study") == [(2, "receiving")]
    assert rows(data, "SELECT found, value FROM fetch") == [(4, None)]
