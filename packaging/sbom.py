"""Software bills of materials of a wheel: `python packaging/sbom.py WHEEL OUT`, CycloneDX 1.6 in JSON.

One for the plain install, one for each extra, and one for what the container installs. The packages are those that pip
resolves with constraints.txt; nothing is installed. Needs `packaging/requirements.txt`, and Debian 12's Python 3.11,
because the container has that.
"""

import json
import os
import subprocess
import sys
from calendar import timegm
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from venv import EnvBuilder
from zipfile import ZipFile

ROOT = Path(__file__).parent.parent
PYTHON = (3, 11)
"""Debian 12's."""
SETS = {
    "plain": "",
    **{
        extra: extra
        for extra in ("export", "dicom", "appliance", "sign", "openvino", "quantize", "tensorrt-rtx", "ray")
    },
    "container": "dicom,appliance",
}
"""Name of a bill -> extras. `cuda` and `tensorrt` have no tested versions, and `dev` is not for use."""


SOURCE_ONLY = ("--no-binary", "tensorrt-rtx-cu13")
"""Published without a wheel: a package without content that requires those with it."""


def resolved(wheel: Path, extras: str) -> list[dict[str, Any]]:
    """What pip would install into an empty environment: the list "install" of its installation report.

    Format: pip.pypa.io/en/stable/reference/installation-report.
    """
    requirement = f"glam-deploy[{extras}] @ {wheel.resolve().as_uri()}" if extras else str(wheel)
    options = ["--dry-run", "--ignore-installed", "--quiet", "--report", "-", "--only-binary", ":all:", *SOURCE_ONLY]
    command = [sys.executable, "-m", "pip", "install", *options, "-c", str(ROOT / "constraints.txt"), requirement]
    report = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    installs: list[dict[str, Any]] = json.loads(report)["install"]
    return installs


def metadata_text(metadata: Mapping[str, Any]) -> str:
    """The file METADATA of the JSON form of metadata (PEP 566), without the description."""
    fields = {key: value for key, value in metadata.items() if key != "description"}
    pairs = [(key, each) for key, value in fields.items() for each in (value if isinstance(value, list) else [value])]
    return "".join(
        f"{key.replace('_', '-').title()}: {str(each).replace(chr(10), chr(10) + ' ' * 8)}\n" for key, each in pairs
    )


def environment(folder: Path, installs: Iterable[Mapping[str, Any]]) -> Path:
    """An environment that has the metadata of packages and nothing else; its Python."""
    EnvBuilder(symlinks=True).create(folder)
    (site,) = folder.glob("lib/python3*/site-packages")
    for one in installs:
        metadata = one["metadata"]
        info = site / f"{metadata['name'].replace('-', '_')}-{metadata['version']}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(metadata_text(metadata), "utf-8")
        if one["download_info"]["url"].startswith("https:"):  # a file of the machine that builds says nothing
            (info / "direct_url.json").write_text(json.dumps(one["download_info"]), "utf-8")
    return folder / "bin/python"


def built(wheel: Path) -> int:
    """The time of the wheel's files, in seconds since 1970."""
    with ZipFile(wheel) as archive:
        return timegm((*archive.infolist()[0].date_time, 0, 0, 0))


def main(wheel: Path, out: Path) -> None:
    """Write `<name and version>-<set>.cdx.json` for each set into `out`."""
    if sys.version_info[:2] != PYTHON:
        found = sys.version.split()[0]
        sys.exit(f"The bills are of Debian 12's Python 3.11, and this is {found}: make dist PYTHON=python3.11")
    release = "-".join(wheel.name.split("-")[:2])
    for name, extras in SETS.items():
        with TemporaryDirectory() as room:
            python = environment(Path(room, "venv"), resolved(wheel, extras))
            options = [
                "--sv",
                "1.6",
                "--of",
                "JSON",
                "--output-reproducible",
                "-o",
                str(out / f"{release}-{name}.cdx.json"),
            ]
            tool = Path(sys.executable).with_name("cyclonedx-py")
            timed = os.environ | {"SOURCE_DATE_EPOCH": str(built(wheel))}
            subprocess.run([str(tool), "environment", *options, str(python)], env=timed, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
