"""One PACS and one appliance for most tests; each test has exams of its own."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from expected import need
from pacs.appliance import Appliance
from support.orthanc import AE_TITLE, Orthanc, free_port, missing, running
from support.tiny_bundle import write_tiny_bundle

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("pacs")


@pytest.fixture(scope="session", autouse=True)
def programs() -> None:
    """Debian's."""
    need("orthanc", missing())
    for name in ("storescu", "dcmsend", "dcmcjpls", "dcmcrle", "dcmqrscp"):
        need("dcmtk", "" if shutil.which(name) else name)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running(Orthanc(folder=tmp_path_factory.mktemp("orthanc"), glam_port=free_port())) as orthanc:
        yield orthanc


@pytest.fixture(scope="module")
def appliance(pacs: Orthanc, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    served = Appliance(
        folder=tmp_path_factory.mktemp("appliance"),
        bundle=bundle,
        targets=[dimse_target(pacs)],
        dicom_port=pacs.glam_port,
    )
    served.start()
    yield served
    assert served.stop() in (0, 143)


@pytest.fixture(scope="module")
def workstation(pacs: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """A second target, beside `pacs`."""
    with running(Orthanc(folder=tmp_path_factory.mktemp("workstation"), glam_port=pacs.glam_port)) as orthanc:
        yield orthanc


def dimse_target(pacs: Orthanc) -> dict[str, object]:
    return {"name": "pacs", "ae_title": AE_TITLE, "host": "127.0.0.1", "port": pacs.dicom_port}


def cad_target(workstation: Orthanc) -> dict[str, object]:
    """Of a mammography workstation, which gets no other object than the CAD SR."""
    return dimse_target(workstation) | {"name": "workstation", "objects": ["cad_sr"]}
