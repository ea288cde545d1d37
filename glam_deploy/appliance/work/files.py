"""Folders of results as they are written: whole or not at all."""

import json
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from glam_deploy.appliance.data import settle, sync
from glam_deploy.dicom.results import objects


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder that is moved to `target` once the block has filled it; one that stands there already is as good."""
    part = target.parent / f".{secrets.token_hex(12)}.part"
    part.mkdir(mode=0o700)
    try:
        yield part
        for path in (*part.iterdir(), part):
            sync(path)
        if not target.exists():
            settle(part, target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def save_object(kind: str, dataset: Any, folder: Path) -> dict[str, str]:
    """Write a DICOM object; how `finding.json` and `objects.json` tell of it."""
    objects.save(dataset, folder / f"{kind}.dcm")
    return {"kind": kind, "file": f"{kind}.dcm", **asdict(objects.reference(dataset))}


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, allow_nan=False), "utf-8")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))
