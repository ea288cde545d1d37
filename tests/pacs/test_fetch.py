"""Fetching from Debian's Orthanc by DIMSE and DICOMweb, and from DCMTK's dcmqrscp: each image once, byte for byte."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from mammograms import write_mg
from pacs.appliance import Appliance
from pacs.conftest import dimse_target
from pacs.exams import exam_of, write_exam
from pacs.results import REPORTS, counts
from pacs.test_corrections import rejection
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import BreastTomosynthesisImageStorage, generate_uid
from support import dcmqrscp as support_dcmqrscp
from support import orthanc as support_orthanc
from support.dcmqrscp import Dcmqrscp
from support.fetching import config_of, fetching, items, states, want
from support.jobs import rows
from support.orthanc import USER, Orthanc, free_port, wait_for
from support.receive import data_set_of, running_receiver
from support.until import until

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.fetch import fetcher
from glam_deploy.cli.main import exit_code
from glam_deploy.records import View

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


def test_studies_are_found_by_day_and_by_accession_number(
    config: Config, archive: Archive, way: str, tmp_path: Path
) -> None:
    number, day = f"A-{way}"[:16], f"2019030{1 + WAYS.index(way)}"
    wanted = edited(tmp_path / "wanted", f"wanted {way}", with_accession(number, day))
    same_day = edited(tmp_path / "same", f"same day {way}", with_accession(f"B-{way}"[:16], day))
    other = edited(tmp_path / "other", f"elsewhere {way}", with_accession(f"C-{way}"[:16], "20191231"))
    archive.upload([*wanted, *same_day, *other])
    want(config, "accession", number)
    with receiving(config), fetching(config) as data:
        until(lambda: states(data) == ["fetched"] * 2)
        assert received(config) == sorted(data_set_of(file.read_bytes()) for file in wanted)
        want(config, "day", day)
        until(lambda: states(data) == ["fetched"] * 4)
    assert received(config) == sorted(data_set_of(file.read_bytes()) for file in (*wanted, *same_day))


def test_mammograms_and_rejection_notes_are_fetched_and_nothing_else(
    config: Config, archive: Archive, way: str, tmp_path: Path
) -> None:
    def tomosynthesis(dataset: Dataset) -> None:
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = BreastTomosynthesisImageStorage
        renew(dataset)

    def ultrasound(dataset: Dataset) -> None:
        dataset.Modality, dataset.SeriesInstanceUID = "US", generate_uid()
        renew(dataset)

    def renew(dataset: Dataset) -> None:
        dataset.StudyInstanceUID, dataset.SOPInstanceUID = study, generate_uid()
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID

    study = exam_of(f"mixed {way}").uid("study")
    files = write_exam(tmp_path / "exam", f"mixed {way}", [View.L_CC, View.R_CC])
    note = rejection(tmp_path / "note.dcm", files[0])
    others = [write_mg(tmp_path / "tomo.dcm", tomosynthesis), write_mg(tmp_path / "us.dcm", ultrasound)]
    archive.upload([*files, note, *others])
    want(config, "study", study)
    with receiving(config), fetching(config) as data:
        until(lambda: states(data) == ["fetched"])
    kept = {dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in (*files, note)}
    if way.startswith("dcmqrscp"):  # it does not tell SOP classes
        kept |= {dcmread(tmp_path / "tomo.dcm", stop_before_pixels=True).SOPInstanceUID}
    assert {uid for (uid,) in rows(data, "SELECT sop_uid FROM instance")} == kept
    rejected = rows(data, "SELECT sop_uid FROM rejection")
    assert rejected == [(dcmread(files[0], stop_before_pixels=True).SOPInstanceUID,)]


def test_a_study_that_is_not_there(config: Config) -> None:
    want(config, "study", generate_uid())
    with receiving(config), fetching(config) as data:
        until(lambda: states(data) == ["dead"])
    assert items(data) == [("study", "dead", fetcher.ABSENT)]


def test_a_second_request_fetches_nothing_twice(config: Config, archive: Archive, way: str, tmp_path: Path) -> None:
    archive.upload(write_exam(tmp_path / "exam", f"twice {way}", [View.L_CC, View.R_CC]))
    study = exam_of(f"twice {way}").uid("study")
    with receiving(config), fetching(config) as data:
        for again, counted in ((False, "new"), (False, "known"), (True, "again")):
            assert getattr(want(config, "study", study, again=again), counted) == 1
            until(lambda: states(data) == ["fetched"])
    lines = "".join(path.read_text() for path in (data.root / "audit").glob("*.jsonl"))
    assert lines.count('"received"') == 2
    assert lines.count('"duplicate"') == 0


@pytest.mark.parametrize("way", ["orthanc-web", "dcmqrscp-get", "orthanc-move"], indirect=True)
def test_an_archive_that_is_down_in_the_middle(config: Config, archive: Archive, way: str, tmp_path: Path) -> None:
    files = [write_exam(tmp_path / str(n), f"down {way} {n}", [View.L_CC, View.R_CC]) for n in range(3)]
    archive.upload([file for exam in files for file in exam])
    first, *others = (exam_of(f"down {way} {n}").uid("study") for n in range(3))
    want(config, "study", first)
    with receiving(config), fetching(config) as data:
        until(lambda: states(data) == ["fetched"])
        archive.stop()
        want(config, "study", *others)
        until(lambda: rows(data, "SELECT state FROM component WHERE name = 'fetcher'") == [("waiting",)])
        archive.start()
        until(lambda: states(data) == ["fetched"] * 3)
    assert received(config) == sorted(data_set_of(file.read_bytes()) for exam in files for file in exam)
    assert rows(data, "SELECT max(attempts) FROM fetch") == [(0,)]


@pytest.mark.parametrize("way", ["orthanc-get", "orthanc-web", "dcmqrscp-move"], indirect=True)
def test_a_killed_fetcher_loses_nothing_and_the_results_arrive_once(
    way: str, archive: Archive, archives: dict[str, Archive], bundle: Path, port: int, tmp_path: Path
) -> None:
    """From `fetch add` to results in a PACS, with the fetcher killed after each of the first studies."""
    pacs = archives["orthanc"]
    assert isinstance(pacs, Orthanc)
    seeds = [f"killed {way} {n}" for n in range(4)]
    for seed in seeds:
        archive.upload(write_exam(tmp_path / seed, seed, [View.L_CC, View.R_CC]))
    table = keys(way, archive, tmp_path) | {"first_retry_s": 0.1, "longest_retry_s": 0.5}
    senders = [{"ae_title": table.get("ae_title", "MODALITY"), "hosts": ["127.0.0.1"]}]
    served = Appliance(
        folder=tmp_path / "appliance",
        bundle=bundle,
        targets=[dimse_target(pacs)],
        settings={
            "receive": {"port": port, "senders": senders, "reserve_bytes": 0},
            "fetch": {key: str(value) if isinstance(value, Path) else value for key, value in table.items()},
        },
        dicom_port=port,
    )
    studies = [exam_of(seed).uid("study") for seed in seeds]
    (tmp_path / "list.csv").write_text("StudyInstanceUID\n" + "\n".join(studies) + "\n")
    served.start()
    try:
        added = ["fetch", "add", "--config", str(served.config), "--list", str(tmp_path / "list.csv")]
        assert exit_code(added) == 0
        arrived = "SELECT count(*) FROM instance"
        for count in (1, 3, 5):
            wait_for(lambda count=count: served.count(arrived) >= count, f"{count} images")
            wait_for(lambda: served.kill("fetcher"), "the fetcher")
        delivered = "SELECT count(*) FROM parcel WHERE state = 'delivered'"
        wait_for(lambda: served.count(delivered) == len(studies), "all results", patience_s=180)
    finally:
        served.stop()
    assert served.count("SELECT count(*) FROM instance WHERE is_mammogram") == 2 * len(studies)
    assert served.count("SELECT count(*) FROM job") == len(studies), "no study was assembled before all of it was here"
    assert {row[0] for row in served.rows("SELECT reason FROM study")} == {"fetched from the archive"}
    for study in studies:
        objects = pacs.retrieve(study)
        assert [counts(objects)[kind] for kind in REPORTS] == [1] * len(REPORTS)
