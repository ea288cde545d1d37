"""The bills of a release (SBOM): what pip installs for each extra, by name, version and licence."""

import json
import re
from pathlib import Path

import pytest
from install.venvs import venv
from support.commands import ROOT

pytestmark = [pytest.mark.bills, pytest.mark.timeout(1800)]


@pytest.fixture(scope="session")
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
