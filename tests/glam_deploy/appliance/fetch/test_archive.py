"""What `doctor` finds at the archive: by the contexts that it accepts from a session of the fetcher."""

from pathlib import Path

import pytest
from support.fake_archive import FakeArchive
from support.fetching import config_of
from support.orthanc import free_port

from glam_deploy.appliance.fetch.archive import archive_client
from glam_deploy.cli.doctor_findings import Finding
from glam_deploy.cli.doctor_network import archive_findings
from glam_deploy.dicom.net.archive import WANTED


def found(archive: FakeArchive, folder: Path) -> Finding:
    (finding,) = archive_findings(config_of(folder, archive.keys), {})
    return finding


def test_an_archive_that_accepts_all(tmp_path: Path) -> None:
    with FakeArchive(classes=WANTED).running() as archive:
        finding = found(archive, tmp_path)
    assert (finding.state, finding.found) == (
        "ok",
        f"FAKEARCHIVE at 127.0.0.1 port {archive.port} answers, for C-GET",
    )


@pytest.mark.parametrize(
    ("models", "classes", "missing"),
    [
        (("find",), WANTED, ["Study Root Query/Retrieve Information Model - GET"]),
        (("get",), WANTED, ["Study Root Query/Retrieve Information Model - FIND"]),
        (("find", "get"), WANTED[:1], ["Digital Mammography X-Ray Image Storage - For Processing",
                                       "Key Object Selection Document Storage"]),
    ],
)  # fmt: skip
def test_what_an_archive_does_not_accept_is_named(
    models: tuple[str, ...], classes: tuple[str, ...], missing: list[str], tmp_path: Path
) -> None:
    with FakeArchive(models=models, classes=classes).running() as archive:
        finding = found(archive, tmp_path)
        config = config_of(tmp_path, archive.keys)
        assert config.fetch
        assert list(archive_client(config, config.fetch).missing()) == missing
    assert finding.state != "ok"
    assert ", ".join(missing) in finding.found


def test_an_archive_that_is_down(tmp_path: Path) -> None:
    finding = found(FakeArchive(port=free_port()), tmp_path)
    assert finding.state != "ok"
    assert "cannot be reached" in finding.found


def test_no_findings_without_the_table(tmp_path: Path) -> None:
    config = config_of(tmp_path, {"url": "https://pacs/dicom-web"}).model_copy(update={"fetch": None})
    assert list(archive_findings(config, {})) == []
