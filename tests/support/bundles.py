"""Small made-up bundles: right in form, with bytes for graphs that no engine could run."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from os import geteuid, seteuid
from pathlib import Path
from typing import Any

from glam_deploy import bundle as bundles
from glam_deploy.bundle import MANIFEST, Manifest
from glam_deploy.json_records import from_json

FILES = {
    "graphs/global.onnx": b"global" * 7,
    "graphs/local.onnx": b"local" * 9,
    "graphs/fusion.onnx": b"fusion" * 11,
    "checkpoint.safetensors": b"weights" * 13,
}
NOBODY = 65534


def facts() -> dict[str, Any]:
    """What an exporter says of a bundle, made anew."""
    return {
        "created": "2026-01-01T00:00:00+00:00",
        "licence": "made up for tests",
        "network": {
            "name": "GLAM",
            "precisions": ["fp32"],
            "aggregation": "concatenation",
            "patches": 1,
        },
        "checkpoint": {"name": "made_up.pt", "sha256": "00" * 32, "parameters": 3, "ignored_keys": []},
        "versions": {"glam_deploy": "0.1.0"},
        "golden": {"file": "golden/case.npz", "patches": 1},
        "parity": [
            {
                "output": "global.y_scale",
                "precision": "fp32",
                "max_abs": 1e-7,
                "mean_abs": 2e-8,
                "limit": 1e-4,
                "passed": True,
            }
        ],
    }


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """As `glam_deploy.bundle.write_manifest`, of facts as JSON has them."""
    bundles.write_manifest(folder, from_json(Manifest, {**facts, "files": {}}))


def fill(folder: Path) -> None:
    """Write FILES and their manifest into an existing folder."""
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    write_manifest(folder, facts())


def edit_manifest(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Rewrite a bundle's manifest after `edit` has had its way with it."""
    manifest = json.loads((folder / MANIFEST).read_text())
    edit(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, by relative path."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@contextmanager
def unprivileged() -> Iterator[None]:
    """As an account whose rights are checked: root reads and writes anything."""
    before = geteuid()
    seteuid(before or NOBODY)
    try:
        yield
    finally:
        seteuid(before)
