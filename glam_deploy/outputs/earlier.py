"""Whether an input has a complete result of an earlier run, made in the same way: what `run --resume` leaves alone."""

import hashlib
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from glam_deploy.errors import InputError
from glam_deploy.outputs.report import SCHEMA, Report, shortest
from glam_deploy.outputs.writer import ARRAYS, PICTURE, REPORT

RUN = "run"
"""Key of a report's provenance: the input's SHA-256 and the settings of the run."""

_MAKERS = ("bundle", "checkpoint", "engine", "gate", "patches", RUN)
_DAMAGE = (OSError, ValueError, TypeError, LookupError, AttributeError, EOFError, SyntaxError, RuntimeError,
           zipfile.BadZipFile, zlib.error, struct.error)  # fmt: skip
"""What numpy, zipfile and Pillow raise for files that were cut or changed, and a report for a key that is not there."""


def file_sha256(path: Path) -> str:
    """In hexadecimal digits. Raises InputError where the file cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"the file cannot be read ({type(error).__name__}): check its path and rights") from error


def run_facts(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in a result's provenance under RUN: the content of the input, and how it was taken."""
    return {"input_sha256": file_sha256(path), "settings": dict(settings)}


def complete_result(folder: Path, stem: str, path: Path, made_by: Mapping[str, Any]) -> Report | None:
    """The report of an earlier run where it is that of `path` as it is now, made alike, with all its files whole.

    `made_by`: a pipeline's provenance and RUN -> {"settings"}; JSON-ready. Bundle, engine, gate, number of patches,
    release of glam-deploy and settings must be the same, and the SHA-256 of the input. The numbers are read, and the
    picture is checked against its check sums; the report must be "done" and agree with the numbers. None else.
    """
    wanted = json.loads(json.dumps(made_by))
    try:
        report: Report = json.loads((folder / (stem + REPORT)).read_bytes())
        if report["schema"] != SCHEMA or report["status"] != "done" or not _made_alike(report, wanted):
            return None
        _require_whole(folder, stem, report, picture=made_by[RUN]["settings"]["picture"])
    except _DAMAGE:
        return None
    return report if report["provenance"][RUN]["input_sha256"] == file_sha256(path) else None


def _made_alike(report: Report, wanted: Mapping[str, Any]) -> bool:
    made = report["provenance"]
    pairs = [(made[RUN]["settings"], wanted[RUN]["settings"]), (_release(made), _release(wanted))]
    pairs += [(_without_folder(made.get(key)), _without_folder(wanted.get(key))) for key in _MAKERS if key != RUN]
    return all(first == second for first, second in pairs)


def _release(provenance: Mapping[str, Any]) -> Any:
    return provenance.get("versions", {}).get("glam_deploy")


def _without_folder(value: Any) -> Any:
    """A bundle is the same wherever it lies."""
    return {key: inner for key, inner in value.items() if key != "folder"} if isinstance(value, dict) else value


def _require_whole(folder: Path, stem: str, report: Report, *, picture: bool) -> None:
    """Raises one of _DAMAGE where a file is missing, cut or changed."""
    if report["files"] != {"arrays": stem + ARRAYS, "picture": stem + PICTURE if picture else None}:
        raise ValueError("other files")
    with zipfile.ZipFile(folder / (stem + ARRAYS)) as archive:
        if archive.testzip():
            raise ValueError("check sum")
    with np.load(folder / (stem + ARRAYS), allow_pickle=False) as arrays:
        for name, scores in report["predictions"].items():
            if [shortest(value) for value in arrays[name]] != list(scores.values()):
                raise ValueError("the report tells other scores")
        if len(report["patches"]) != len(arrays["patch_locations"]):
            raise ValueError("the report tells other patches")
    if picture:
        with Image.open(folder / (stem + PICTURE)) as shown:
            shown.verify()
