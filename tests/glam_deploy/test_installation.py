"""The command that adds an extra, for every record of PEP 610; which packages an extra is; where docs/ lies."""

import json
import shlex
import sys
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from support.commands import ROOT
from support.extras import distributions_of

from glam_deploy import installation
from glam_deploy.installation import EXTRAS, documentation, install_command, page, refusal

PIP = [sys.executable, "-m", "pip", "install"]
COMMIT = "7921be1537eac1e97bc40179a57f0349c2aee67d"
SHA = "714ac14496c3e00e6b1d4b0d3c0f1e7c4f1f1d1c6d1d7a4b0b1a0b7b5c4d3e2f"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The dist-info folder of a copy that is the only one; it has no record yet."""
    info = tmp_path / "site/glam_deploy-9.9.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: glam-deploy\nVersion: 9.9\n")
    monkeypatch.setattr(sys, "path", [str(info.parent)])
    monkeypatch.setattr(installation, "IN_CHECKOUT", False)
    return info


def recorded(site: Path, record: dict[str, Any]) -> list[str]:
    """What a shell makes of the command for [dicom] after a copy was installed with this record."""
    (site / "direct_url.json").write_text(json.dumps(record))
    return shlex.split(install_command("dicom"))


# the forms of PEP 610: its examples, with this project's name


def test_from_an_index(site: Path) -> None:
    assert shlex.split(install_command("dicom")) == [*PIP, "glam-deploy[dicom]"]
    assert shlex.split(install_command("export", "dicom")) == [*PIP, "glam-deploy[export,dicom]"]


def test_onnxruntime_is_exchanged_for_the_one_with_cuda(site: Path) -> None:
    """ONNX Runtime's installation guide: only one of its packages may be installed in an environment."""
    add, remove, replace = install_command("cuda").split(" && ")
    assert shlex.split(add) == [*PIP, "glam-deploy[cuda]"]
    assert shlex.split(remove) == [*PIP[:3], "uninstall", "-y", "onnxruntime", "onnxruntime-gpu"]
    assert shlex.split(replace) == [*PIP, "onnxruntime-gpu[cuda,cudnn]"]


@pytest.mark.parametrize("folder", ["plain", "with space", "it's", "ü#%41;x", "a[b]", "$HOME", 'say "x"', "a\\b"])
@pytest.mark.parametrize("editable", [True, False])
def test_from_a_folder(site: Path, tmp_path: Path, folder: str, editable: bool) -> None:
    place = tmp_path / folder
    place.mkdir()
    command = recorded(site, {"url": place.as_uri(), "dir_info": {"editable": True} if editable else {}})
    if editable:
        assert command == [*PIP, "-e", f"{place}[dicom]"]
    elif ";" not in folder:
        assert command == [*PIP, f"{place}[dicom]"]
    else:  # pip takes what follows for a marker, so the URL is given, where ; is %3B
        assert command == [*PIP, f"glam-deploy[dicom] @ {place.as_uri()}"]


@pytest.mark.parametrize("name", ["glam_deploy-9.9-py3-none-any.whl", "glam deploy-9.9.tar.gz"])
@pytest.mark.parametrize("host", ["", "localhost"])
def test_from_a_local_archive(site: Path, tmp_path: Path, name: str, host: str) -> None:
    (tmp_path / name).write_bytes(b"")
    url = (tmp_path / name).as_uri().replace("file://", f"file://{host}")
    assert recorded(site, {"url": url, "archive_info": {"hash": f"sha256={SHA}"}}) == [
        *PIP,
        f"{tmp_path / name}[dicom]",
    ]


@pytest.mark.parametrize("archive", [{"hash": f"sha256={SHA}"}, {"hashes": {"sha256": SHA}}])
def test_from_an_archive_elsewhere(site: Path, archive: dict[str, Any]) -> None:
    record = {"url": "https://example.com/glam%20deploy-9.9.zip", "archive_info": archive}
    url = f"https://example.com/glam%20deploy-9.9.zip#sha256={SHA}"
    assert recorded(site, record) == [*PIP, f"glam-deploy[dicom] @ {url}"]
    assert recorded(site, record | {"subdirectory": "sub/dir"})[-1].endswith(f"#sha256={SHA}&subdirectory=sub/dir")


def test_from_an_archive_without_a_hash(site: Path) -> None:
    record = {"url": "https://example.com/x.whl", "archive_info": {}}
    assert recorded(site, record) == [*PIP, "glam-deploy[dicom] @ https://example.com/x.whl"]


@pytest.mark.parametrize(
    ("url", "vcs", "reference"),
    [
        ("https://github.com/pypa/pip.git", "git", "git+https://github.com/pypa/pip.git"),
        ("ssh://git@example.com/x.git", "git", "git+ssh://git@example.com/x.git"),
        ("file:///srv/repo%20x", "git", "git+file://localhost/srv/repo%20x"),  # pip 23.2 refuses one without a host
        ("file:///srv/repo x", "git", "git+file://localhost/srv/repo%20x"),  # as pip 23.2 records it
        ("https://example.com/svn/x", "svn", "svn+https://example.com/svn/x"),
    ],
)
def test_from_a_repository(site: Path, url: str, vcs: str, reference: str) -> None:
    """The commit, not the branch: an extra is added to this copy."""
    record = {"url": url, "vcs_info": {"vcs": vcs, "requested_revision": "main", "commit_id": COMMIT}}
    assert recorded(site, record) == [*PIP, f"glam-deploy[dicom] @ {reference}@{COMMIT}"]
    below = recorded(site, record | {"subdirectory": "python"})
    assert below == [*PIP, f"glam-deploy[dicom] @ {reference}@{COMMIT}#subdirectory=python"]


def test_direct_references_are_requirements(site: Path) -> None:
    """As `packaging`, which pip uses, reads them."""
    record = {"url": "https://example.com/x.git", "vcs_info": {"vcs": "git", "commit_id": COMMIT}}
    requirement = Requirement(recorded(site, record)[-1])
    assert (requirement.name, requirement.extras, requirement.url) == (
        "glam-deploy",
        {"dicom"},
        f"git+https://example.com/x.git@{COMMIT}",
    )


def test_what_is_gone_is_told(site: Path, tmp_path: Path) -> None:
    (site / "direct_url.json").write_text(json.dumps({"url": (tmp_path / "gone").as_uri(), "dir_info": {}}))
    command, _, note = install_command("dicom").partition(" (")
    assert shlex.split(command) == [*PIP, f"{tmp_path / 'gone'}[dicom]"]
    assert (
        note
        == f"{tmp_path / 'gone'}, from which this copy was installed, does not exist: name another checkout or wheel)"
    )


def test_a_checkout_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT)])
    assert shlex.split(install_command("dicom")) == [*PIP, "-e", f"{ROOT}[dicom]"]


def test_this_python_is_named_also_where_its_path_has_a_space(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/opt/my python/bin/python")
    assert install_command("dicom") == "'/opt/my python/bin/python' -m pip install 'glam-deploy[dicom]'"


def test_packages_that_somebody_copied(site: Path) -> None:
    """Never the bare name: nobody knows who owns it on an index."""
    (site / "METADATA").unlink()
    site.rmdir()
    assert "-m pip install '/unknown[dicom]' (" in install_command("dicom")
    assert "name another checkout or wheel" in install_command("dicom")


# extras


def test_extras_are_those_of_the_distribution() -> None:
    provided = metadata("glam-deploy").get_all("Provides-Extra", [])
    assert {*EXTRAS, "dev"} == {*provided}


@pytest.mark.parametrize("extra", EXTRAS)
def test_import_names_are_those_of_what_an_extra_installs(extra: str) -> None:
    """By the metadata of what is installed here: each package is of the extra, and each requirement has one."""
    asked, packages = distributions_of(extra)
    named = {package.partition(".")[0] for package in EXTRAS[extra]}
    # not installed where no GPU is, and outside of the environment of `make ray-test`
    assert named <= packages | {"tensorrt", "ray", "pyarrow", "aiohttp"}
    here = {name: names for name, names in asked.items() if names and name != "nvidia-cuda-nvrtc"}  # has no module
    assert [name for name, names in here.items() if not names & named] == []


def test_a_source_that_this_user_cannot_see_is_no_error(site: Path, tmp_path: Path) -> None:
    """Installed by root from a folder of root: stat fails, here for a name that is too long, which root meets too."""
    hidden = tmp_path / ("x" * 300)
    (site / "direct_url.json").write_text(json.dumps({"url": hidden.as_uri(), "dir_info": {}}))
    assert shlex.split(install_command("dicom")) == [*PIP, f"{hidden}[dicom]"]


@pytest.mark.parametrize(("name", "extra"), [("pydicom", "dicom"), ("cuda", "tensorrt"), ("nncf.torch", "quantize")])
def test_an_import_of_an_absent_extra(monkeypatch: pytest.MonkeyPatch, name: str, extra: str) -> None:
    monkeypatch.setattr(installation, "is_installed", lambda package: False)
    error = refusal(ModuleNotFoundError(name=name), user="x")
    assert error is not None
    assert str(error).startswith(f"x needs {name}, which this Python lacks. Install with: ")
    assert f"[{extra}]" in str(error)


@pytest.mark.parametrize("name", ["pydicom.gone", "numpy", "glam_deploy.gone", None])
def test_a_broken_install_is_no_absent_extra(name: str | None) -> None:
    assert refusal(ModuleNotFoundError(name=name)) is None


# pages


def test_pages_of_a_checkout() -> None:
    assert documentation() == ROOT
    assert page("gate.md") == ROOT / "docs/gate.md"
