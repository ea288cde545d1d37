"""Parsers of this project that read what others wrote: each with seeds, and the errors that it may raise.

Anything else that a parser raises is a finding, and so is an input that takes more time or memory than `campaign`
allows.
"""

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz import seeds

from glam_bench.evaluation.plain_list import read_list
from glam_deploy.appliance.config import parse_config
from glam_deploy.appliance.web.stow import Malformed, TooManyParts, boundary_of, read_parts
from glam_deploy.archive.sources import lists
from glam_deploy.archive.where import parse_where
from glam_deploy.bundle.manifest import read_ensemble, read_manifest
from glam_deploy.cli.inputs import read_views
from glam_deploy.dicom import part10, received, rejection
from glam_deploy.dicom.completeness import require_complete
from glam_deploy.dicom.header import KEYWORDS
from glam_deploy.dicom.read import silence_pydicom
from glam_deploy.dicom.transfer_syntaxes import codestream, jpeg2000, jpeg_lossless, jpeg_ls, rle
from glam_deploy.dicom.transfer_syntaxes.segments import StreamError
from glam_deploy.errors import GlamError
from glam_deploy.gpu.engines.tensorrt.report import read_report
from glam_deploy.images import foreign, image_files, structure, tiff
from glam_deploy.view_names import exam_from_name, view_from_name

MOST_INFLATED = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Target:
    """A parser."""

    run: Callable[[bytes], object]
    """Parses an input; what it returns is not used."""
    seeds: Callable[[], Iterable[bytes]]
    """Valid inputs, from which others are made."""
    allowed: tuple[type[Exception], ...] = (GlamError,)
    """The errors that tell the caller that an input is refused."""


@cache
def _folder() -> TemporaryDirectory[str]:
    """In memory where that is possible; removed when the process ends."""
    shared = Path("/dev/shm")
    return TemporaryDirectory(prefix="glam-fuzz-", dir=shared if shared.is_dir() else None)


def _file(content: bytes, name: str) -> Path:
    path = Path(_folder().name) / name
    path.write_bytes(content)
    return path


def _part10_head(data: bytes) -> None:
    claim = part10.read_head(data)
    if claim is not None:
        part10.write_head(claim[0])
    _, reader = part10.open_data_set(io.BytesIO(data), KEYWORDS, limit=MOST_INFLATED)
    reader.read_through(0xFFFFFFFF)


def _multipart(data: bytes) -> None:
    content_type, _, body = data.partition(b"\n")
    boundary, _ = boundary_of(content_type.decode("latin-1"))
    half = len(body) // 2
    read_parts((body[:half], body[half:]), boundary, lambda headers: io.BytesIO())


def _view_name(data: bytes) -> None:
    path = Path(data.replace(b"\0", b"").decode("utf-8", "surrogateescape"))
    view_from_name(path)
    exam_from_name(path)


def _image_file(data: bytes) -> None:
    foreign.kind_of(data[: foreign.HEAD])
    image_files.read_pixels(_file(data, "image"))


def _jpeg_2000(data: bytes) -> None:
    """The checks before OpenJPEG; OpenJPEG itself is not ours, and the appliance runs it in a child process."""
    stream = codestream.codestream_of(data) if data.startswith(jpeg2000.FILE) else data
    codestream.checked(stream, seeds.SHAPE).lengthened(4)


def _lines(data: bytes) -> list[str]:
    return data.decode("utf-8", "replace").split("\n")


STREAMS = (StreamError,)
TARGETS: Mapping[str, Target] = {
    "part10": Target(run=_part10_head, seeds=seeds.dicom_files),
    "without-pixels": Target(
        run=lambda data: part10.without_pixels(data, limit=MOST_INFLATED), seeds=seeds.dicom_files
    ),
    "reception": Target(
        run=lambda data: received.examine(_file(data, "received.dcm"), for_processing=True), seeds=seeds.dicom_files
    ),
    "completeness": Target(run=lambda data: require_complete(_file(data, "whole.dcm")), seeds=seeds.dicom_files),
    "rejection-note": Target(
        run=lambda data: rejection.read_rejection(_file(data, "note.dcm")), seeds=seeds.rejection_notes
    ),
    "jpeg-lossless": Target(
        run=lambda data: jpeg_lossless.decode(data, seeds.SHAPE), seeds=seeds.jpeg_lossless, allowed=STREAMS
    ),
    "jpeg-ls": Target(run=lambda data: jpeg_ls.decode(data, seeds.SHAPE), seeds=seeds.jpeg_ls, allowed=STREAMS),
    "jpeg-2000": Target(run=_jpeg_2000, seeds=seeds.jpeg_2000, allowed=STREAMS),
    "rle": Target(run=lambda data: rle.decode(data, seeds.SHAPE, 16), seeds=seeds.rle, allowed=STREAMS),
    "png": Target(run=structure.sound_png, seeds=seeds.pngs),
    "tiff": Target(run=tiff.sound_tiff, seeds=seeds.tiffs),
    "image-file": Target(run=_image_file, seeds=seeds.image_files),
    "manifest": Target(run=lambda data: read_manifest(data, Path("manifest.json")), seeds=seeds.manifests),
    "ensemble": Target(run=lambda data: read_ensemble(data, Path("ensemble.json")), seeds=seeds.ensembles),
    "layer-report": Target(run=lambda data: read_report(data.decode("utf-8", "replace")), seeds=seeds.layer_reports),
    "configuration": Target(
        run=lambda data: parse_config(data.decode("utf-8", "replace"), folder=Path("/")), seeds=seeds.configurations
    ),
    "stow-multipart": Target(run=_multipart, seeds=seeds.multiparts, allowed=(Malformed, TooManyParts)),
    "view-name": Target(run=_view_name, seeds=seeds.view_names),
    "views-csv": Target(run=lambda data: read_views(_file(data, "views.csv")), seeds=seeds.view_tables),
    "labels-csv": Target(run=lambda data: read_list(_file(data, "labels.csv")), seeds=seeds.label_tables),
    "archive-list": Target(
        run=lambda data: list(lists.rows(io.BytesIO(data), "/nowhere/list.csv")), seeds=seeds.archive_lists
    ),
    "where": Target(run=lambda data: parse_where(_lines(data)), seeds=seeds.conditions),
}
"""By name."""


def run(name: str, data: bytes) -> bool:
    """Parse `data`; returns whether it was accepted. Raises what the parser must not raise."""
    target = TARGETS[name]
    silence_pydicom()
    try:
        target.run(data)
    except target.allowed:
        return False
    return True
