"""Detection of complete results of an earlier run with the same settings, which `run --resume` skips."""

import json
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from glam_deploy.exams import models_of
from glam_deploy.json_records import parse_json
from glam_deploy.outputs.report import SCHEMA, Report, shortest
from glam_deploy.outputs.writer import ARRAYS, PICTURE, REPORT
from glam_deploy.records import MAX_PIXELS, Facts
from glam_deploy.regular import open_regular, read_regular

RUN = "run"
"""Key of a report's provenance with the input's SHA-256 and the settings of the run."""

LARGEST = 32 * MAX_PIXELS
"""Maximum size of the uncompressed arrays of one result, in bytes. The arrays of the largest image, with three float32
values per pixel (two maps and the image), have less than half of it."""

_DAMAGE = (OSError, ValueError, TypeError, LookupError, AttributeError, EOFError, SyntaxError, RuntimeError,
           MemoryError, zipfile.BadZipFile, zlib.error, struct.error, Image.DecompressionBombError)  # fmt: skip
"""Exceptions of numpy, zipfile and Pillow for truncated or changed files, and of a missing key in a report."""


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """Result of an earlier run for an input."""

    report: Report | None
    """Report of a complete result with the same settings; None if there is none."""
    difference: str = ""
    """What differs, if the result was made with other settings: a text that follows "made with"."""


def run_facts(sha256: str, settings: Mapping[str, object]) -> dict[str, object]:
    """Value of RUN in a result's provenance: SHA-256 of the input and settings of the run."""
    return {"input_sha256": sha256, "settings": dict(settings)}


def earlier_result(folder: Path, stem: str, sha256: str, made_by: Facts) -> Earlier:
    """Find the result of an earlier run for an input of this SHA-256, with the same settings and intact files.

    `made_by`: a pipeline's provenance and RUN -> {"settings"}, as JSON values. Everything that affects the results must
    be equal: checkpoint, engine (with the SHA-256 of the files of all stages), number of patches, release of
    glam-deploy, settings, and SHA-256 of the input. The bundle's id is not compared, because each gate changes it; nor
    is the gate, because it does not change the results. The arrays are read, the picture is verified by its checksums,
    and the report must be "done" and agree with the arrays.
    """
    wanted = json.loads(json.dumps(made_by))
    try:
        report: Report = parse_json(read_regular(folder / (stem + REPORT)))
        if report["schema"] != SCHEMA or report["status"] != "done":
            return Earlier(report=None)
        if difference := next(_differences(report["provenance"], wanted), ""):
            return Earlier(report=None, difference=difference)
        _require_whole(folder, stem, report, picture=made_by[RUN]["settings"]["picture"])
    except _DAMAGE:
        return Earlier(report=None)
    same_input = report["provenance"][RUN]["input_sha256"] == sha256
    return Earlier(report=report if same_input else None)


def _differences(made: Facts, wanted: Facts) -> Iterator[str]:
    """Descriptions of all differences that affect the results, the most important first."""
    before, now = made["checkpoint"]["sha256"], wanted["checkpoint"]["sha256"]
    if before != now:
        yield f"another checkpoint (SHA-256 {before[:12]}..., now {now[:12]}...)"
    if (before := made["engine"]) != (now := wanted["engine"]):
        old, new = _described(before), _described(now)
        yield f"engine {old}, not {new}" if old != new else f"other graphs or files of engine {old}"
    if models_of(made) != models_of(wanted):
        yield "other graphs or files of a model of the ensemble"
    if (before := made["patches"]) != (now := wanted["patches"]):
        yield f"--patches {before}, not {now}"
    before, now = made[RUN]["settings"], wanted[RUN]["settings"]
    if others := sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key)):
        yield f"other settings ({', '.join(others).replace('_', ' ')})"
    if (before := _release(made)) != (now := _release(wanted)):
        yield f"glam-deploy {before}, not {now}"


def _described(engine: Facts) -> str:
    properties = [engine.get(key) for key in ("name", "precision", "flavour", "library", "device")]
    return " ".join(str(value) for value in properties if value)


def _release(provenance: Facts) -> object:
    return provenance.get("versions", {}).get("glam_deploy")


def _require_whole(folder: Path, stem: str, report: Report, *, picture: bool) -> None:
    """Raises one of _DAMAGE if a file is missing, truncated or changed."""
    if report["files"] != {"arrays": stem + ARRAYS, "picture": stem + PICTURE if picture else None}:
        raise ValueError("other files")
    with open_regular(folder / (stem + ARRAYS)) as file, zipfile.ZipFile(file) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > LARGEST or archive.testzip():
            raise ValueError("size or checksum")
    with open_regular(folder / (stem + ARRAYS)) as file, np.load(file, allow_pickle=False) as arrays:
        for name, scores in report["predictions"].items():
            found = arrays[name]
            if found.shape != (len(scores),) or [shortest(value) for value in found] != list(scores.values()):
                raise ValueError("the report has other scores")
        if len(report["patches"]) != len(arrays["patch_locations"]):
            raise ValueError("the report has other patches")
    if picture:
        with open_regular(folder / (stem + PICTURE)) as file, Image.open(file) as shown:
            shown.verify()
