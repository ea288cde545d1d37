"""A fresh Debian 12, made by debootstrap once for all tests."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from expected import need

OF_THIS_MACHINE = ("etc/resolv.conf", "etc/hosts")
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
"""Of this machine, which may reach the registries of packages through a proxy of its own."""
PIP_AUTHORITIES = "etc/pip-authorities.crt"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("debian")


def lacking() -> str:
    if os.geteuid() != 0:
        return "root"
    return next((name for name in ("debootstrap", "buildah") if not shutil.which(name)), "")


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The system as installed, which reaches the registries of packages as this machine does."""
    need("debian", lacking())
    root = tmp_path_factory.mktemp("debian") / "base"
    subprocess.run(["debootstrap", "--variant=minbase", "bookworm", root], check=True, capture_output=True)
    for name in OF_THIS_MACHINE:
        shutil.copyfile(Path("/") / name, root / name)
    shutil.copyfile(AUTHORITIES, root / PIP_AUTHORITIES)
    (root / "etc/pip.conf").write_text(f"[global]\ncert = /{PIP_AUTHORITIES}\n")
    return root
