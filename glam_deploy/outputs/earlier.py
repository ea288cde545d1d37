"""Whether an input has a complete result of an earlier run, made in the same way: what `run --resume` leaves alone."""

import hashlib
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from glam_deploy.errors import InputError
from glam_deploy.outputs.report import SCHEMA, Report, shortest
from glam_deploy.outputs.writer import ARRAYS, PICTURE, REPORT
from glam_deploy.records import MAX_PIXELS, Facts
from glam_deploy.regular import open_regular, read_regular

RUN = "run"
"""Key of a report's provenance: the input's SHA-256 and the settings of the run."""

LARGEST = 32 * MAX_PIXELS
"""Bytes of the arrays of one result, unpacked, that are read. The largest image with its maps and itself, two float32
and one float32 a pixel, has less than half of it."""

_DAMAGE = (OSError, ValueError, TypeError, LookupError, AttributeError, EOFError, SyntaxError, RuntimeError,
           MemoryError, zipfile.BadZipFile, zlib.error, struct.error, Image.DecompressionBombError)  # fmt: skip
"""What numpy, zipfile and Pillow raise for files that were cut or changed, and a report for a key that is not there."""


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """What an earlier run left for an input."""

    report: Report | None
    """Of a complete result that was made alike; None else."""
    difference: str = ""
    """Where a result was made otherwise: with what, in words that follow "made with"."""


def file_sha256(path: Path) -> str:
    """In hexadecimal digits. Raises InputError where the file cannot be read."""
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"the file cannot be read ({type(error).__name__}): check its path and rights") from error


def run_facts(path: Path, settings: Mapping[str, object]) -> dict[str, object]:
    """What stands in a result's provenance under RUN: the content of the input, and how it was taken."""
    return {"input_sha256": file_sha256(path), "settings": dict(settings)}


def earlier_result(folder: Path, stem: str, path: Path, made_by: Facts) -> Earlier:
    """The result of an earlier run where it is that of `path` as it is now, made alike, with all its files whole.

    `made_by`: a pipeline's provenance and RUN -> {"settings"}; JSON-ready. What decides the numbers must be the same:
    checkpoint, engine (with the SHA-256 of what each stage runs), number of patches, release of glam-deploy and
    settings, and the SHA-256 of the input. The bundle's own id is not compared, because each gate changes it; nor is
    the gate, which measures an engine and changes none. The numbers are read, and the picture is checked against its
    check sums; the report must be "done" and agree with the numbers.
    """
    wanted = json.loads(json.dumps(made_by))
    try:
        report: Report = json.loads(read_regular(folder / (stem + REPORT)))
        if report["schema"] != SCHEMA or report["status"] != "done":
            return Earlier(report=None)
        if difference := next(_differences(report["provenance"], wanted), ""):
            return Earlier(report=None, difference=difference)
        _require_whole(folder, stem, report, picture=made_by[RUN]["settings"]["picture"])
    except _DAMAGE:
        return Earlier(report=None)
    same_input = report["provenance"][RUN]["input_sha256"] == file_sha256(path)
    return Earlier(report=report if same_input else None)


def _differences(made: Facts, wanted: Facts) -> Iterator[str]:
    """What decides the numbers and is not the same, in words; the weightiest first."""
    before, now = made["checkpoint"]["sha256"], wanted["checkpoint"]["sha256"]
    if before != now:
        yield f"another checkpoint (SHA-256 {before[:12]}..., now {now[:12]}...)"
    if (before := made["engine"]) != (now := wanted["engine"]):
        told, asked = _engine_words(before), _engine_words(now)
        yield f"engine {told}, not {asked}" if told != asked else f"other graphs or files of engine {told}"
    if (before := made["patches"]) != (now := wanted["patches"]):
        yield f"--patches {before}, not {now}"
    before, now = made[RUN]["settings"], wanted[RUN]["settings"]
    if others := sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key)):
        yield f"other settings ({', '.join(others).replace('_', ' ')})"
    if (before := _release(made)) != (now := _release(wanted)):
        yield f"glam-deploy {before}, not {now}"


def _engine_words(engine: Facts) -> str:
    facts = [engine.get(key) for key in ("name", "precision", "flavour", "library", "device")]
    return " ".join(str(fact) for fact in facts if fact)


def _release(provenance: Facts) -> object:
    return provenance.get("versions", {}).get("glam_deploy")


def _require_whole(folder: Path, stem: str, report: Report, *, picture: bool) -> None:
    """Raises one of _DAMAGE where a file is missing, cut or changed."""
    if report["files"] != {"arrays": stem + ARRAYS, "picture": stem + PICTURE if picture else None}:
        raise ValueError("other files")
    with open_regular(folder / (stem + ARRAYS)) as file, zipfile.ZipFile(file) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > LARGEST or archive.testzip():
            raise ValueError("size or check sum")
    with open_regular(folder / (stem + ARRAYS)) as file, np.load(file, allow_pickle=False) as arrays:
        for name, scores in report["predictions"].items():
            if [shortest(value) for value in arrays[name]] != list(scores.values()):
                raise ValueError("the report tells other scores")
        if len(report["patches"]) != len(arrays["patch_locations"]):
            raise ValueError("the report tells other patches")
    if picture:
        with open_regular(folder / (stem + PICTURE)) as file, Image.open(file) as shown:
            shown.verify()
