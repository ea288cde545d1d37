"""The files of a release: distributions that are the same bytes each time, and bills of what pip installs."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from install.conftest import Distributions, repository
from install.venvs import venv
from support.commands import ROOT

pytestmark = [pytest.mark.install, pytest.mark.timeout(1800)]

BUILD = [sys.executable, "packaging/distributions.py", "dist"]


@pytest.fixture(scope="module")
def origin(made: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository of this checkout."""
    place = tmp_path_factory.mktemp("origin") / "repository"
    shutil.copytree(made.tree, place, ignore=shutil.ignore_patterns("*.egg-info", "build"))
    repository(place)
    return place


def built(origin: Path, place: Path, *, umask: int, zone: str) -> dict[str, bytes]:
    """What `packaging/distributions.py` makes in a clone: name -> content."""
    subprocess.run(["git", "clone", "--quiet", str(origin), str(place)], check=True, umask=umask)
    environment = os.environ | {"TZ": zone}
    subprocess.run(BUILD, cwd=place, check=True, umask=umask, env=environment, capture_output=True)
    return {path.name: path.read_bytes() for path in (place / "dist").iterdir()}


@pytest.fixture(scope="module")
def release(origin: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `dist` of one build."""
    place = tmp_path_factory.mktemp("release") / "clone"
    built(origin, place, umask=0o077, zone="Asia/Tokyo")
    return place / "dist"


def test_two_builds_are_the_same_bytes(origin: Path, release: Path, tmp_path: Path) -> None:
    """In folders of other names, at other times, with another umask and time zone."""
    (tmp_path / "a longer name").mkdir()
    again = built(origin, tmp_path / "a longer name" / "of a clone", umask=0o002, zone="America/Lima")
    assert len(again) == 2
    assert {path.name: path.read_bytes() for path in release.iterdir() if path.suffix != ".json"} == again


def test_the_source_distribution_says_nothing_of_the_machine(origin: Path, release: Path) -> None:
    stamp = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=origin, check=True, capture_output=True).stdout
    (sdist,) = release.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {(0, 0, "", "", int(stamp))}
    assert {m.mode for m in members} <= {0o644, 0o755}


def test_only_a_commit_is_released(origin: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "clone", "--quiet", str(origin), str(tmp_path / "clone")], check=True)
    (tmp_path / "clone/README.md").write_text("changed")
    done = subprocess.run(BUILD, cwd=tmp_path / "clone", check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert "1 files differ from the last commit, the first is README.md" in done.stderr


@pytest.fixture(scope="module")
def bills(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `dist` with its bills, checked by the official schema, which cyclonedx-python-lib carries."""
    with venv(tmp_path_factory.mktemp("tools") / "venv") as env:
        env.pip("install", "--quiet", "--requirement", ROOT / "packaging/requirements.txt")
        (wheel,) = release.glob("*.whl")
        for command in (
            [ROOT / "packaging/sbom.py", wheel, release],
            ["-c", VALIDATE, release],
        ):
            done = env.run(env.python, *command, cwd=release)
            assert done.code == 0, done.out + done.err
    return release


VALIDATE = """
import sys
from pathlib import Path
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
check = JsonStrictValidator(SchemaVersion.V1_6)
faults = [(path, fault) for path in Path(sys.argv[1]).glob("*.json") if (fault := check.validate_str(path.read_text()))]
sys.exit(str(faults) if faults else 0)
"""


def test_every_extra_has_a_bill(bills: Path) -> None:
    names = {re.sub(r"^glam_deploy-[\d.]+-|\.cdx\.json$", "", path.name) for path in bills.glob("*.cdx.json")}
    extras = ("export", "dicom", "appliance", "sign", "openvino", "quantize", "tensorrt-rtx", "ray")
    assert names == {"plain", "container", *extras}


@pytest.mark.parametrize(("name", "line"), [("plain", ""), ("sign", "sign"), ("container", "dicom,appliance")])
def test_a_bill_has_what_pip_installs(bills: Path, name: str, line: str, tmp_path: Path) -> None:
    """Names and versions in a fresh environment; and every package has a licence, and no path is of this machine."""
    (path,) = bills.glob(f"*-{name}.cdx.json")
    text = path.read_text("utf-8")
    components = json.loads(text)["components"]
    assert "file:" not in text
    (wheel,) = bills.glob("*.whl")
    with venv(tmp_path / "venv") as env:
        listing = (env.python, "-m", "pip", "list", "--format=json")
        seeds = packages(json.loads(env.run(*listing, cwd=tmp_path).out))
        env.install(wheel, line)
        installed = packages(json.loads(env.run(*listing, cwd=tmp_path).out))
    assert packages(components) == {name: version for name, version in installed.items() if name not in seeds}
    unnamed = {one["name"] for one in components if not one.get("licenses")}
    assert unnamed <= {"protobuf"}  # "3-Clause BSD License" is no identifier of SPDX, and cyclonedx-py leaves it out


def packages(listed: list[dict[str, str]]) -> dict[str, str]:
    """Normalized name -> version."""
    return {re.sub(r"[-_.]+", "-", one["name"]).lower(): one["version"] for one in listed}
