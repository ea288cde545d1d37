"""Lower bounds of the requirements in setup.py: tested versions without a published hole that this package exposes."""

import runpy
from typing import Any

import pytest
from packaging.version import Version
from support.commands import ROOT

LOWEST: dict[str, Any] = runpy.run_path(str(ROOT / "packaging/lowest.py"))
BOUNDS = {
    name: Version(version)
    for extra, requirements in LOWEST["required"]().items()
    if extra != "dev"
    for requirement in requirements
    for name, _, version in [LOWEST["lowest"](requirement).partition("==")]
}
TESTED = {
    name.lower().replace("_", "-"): Version(version)
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    for name, equals, version in [line.partition("==")]
    if equals
}

# First versions without the hole, as the advisories give them (GitHub Advisory Database, PyPA advisory database).
FIXED = {
    "CVE-2024-47081 requests": "2.32.4",
    "CVE-2025-27516 jinja2": "3.1.6",
    "CVE-2025-32434 torch": "2.6.0",
    "CVE-2025-43859 h11": "0.16.0",
    "CVE-2025-53644 opencv-python-headless": "4.12.0.88",
    "CVE-2025-62727 starlette": "0.49.1",
    "CVE-2026-22801 opencv-python-headless": "4.14.0.94",
    "CVE-2026-24486 python-multipart": "0.0.22",
    "CVE-2026-24747 torch": "2.10.0",
    "CVE-2026-25645 requests": "2.33.0",
    "CVE-2026-25990 pillow": "12.1.1",
    "CVE-2026-27962 authlib": "1.6.9",
    "CVE-2026-28498 authlib": "1.6.9",
    "CVE-2026-28500 onnx": "1.21.0",
    "CVE-2026-32711 pydicom": "3.0.2",
    "CVE-2026-40192 pillow": "12.2.0",
    "CVE-2026-42561 python-multipart": "0.0.27",
    "CVE-2026-44432 urllib3": "2.7.0",
    "CVE-2026-48710 starlette": "1.0.1",
    "CVE-2026-53539 python-multipart": "0.0.30",
    "CVE-2026-54283 starlette": "1.3.1",
    "CVE-2026-55379 pillow": "12.3.0",
    "CVE-2026-69247 cryptography": "50.0.0",
}


@pytest.mark.parametrize("hole", FIXED)
def test_lower_bounds_have_no_published_hole(hole: str) -> None:
    assert BOUNDS[hole.split()[1]] >= Version(FIXED[hole])


def test_lower_bounds_are_not_above_the_tested_versions() -> None:
    above = {name: (bound, TESTED[name]) for name, bound in BOUNDS.items() if name in TESTED and bound > TESTED[name]}
    assert above == {}


def test_types_of_parameters_are_not_generic() -> None:
    """`click.ParamType[...]` is an error at import with the lowest Click that is admitted: it is generic since 8.4."""
    assert BOUNDS["click"] < Version("8.4")
    generic = [path.name for path in (ROOT / "glam_deploy").rglob("*.py") if "ParamType[" in path.read_text("utf-8")]
    assert generic == []
