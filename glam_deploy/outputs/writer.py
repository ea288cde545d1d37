"""Writing of all files of one image into a folder of results: `<stem>.npz`, `<stem>.png`, `<stem>.json`.

A file belongs to glam-deploy if it is a report, or if the report of the same stem lists it; other files are never
changed. The order of the changes guarantees, even if the process is killed, that this remains true, and that a report
with status "done" has complete files of the same run.
"""

import hashlib
import os
import tempfile
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glam_deploy.errors import GlamError, InternalError, UsageError, unwritable
from glam_deploy.json_records import parse_json
from glam_deploy.outputs import report
from glam_deploy.outputs.overlay import overlay, to_png
from glam_deploy.outputs.panel import BANNER
from glam_deploy.outputs.table import is_table
from glam_deploy.records import Pixels, View
from glam_deploy.regular import read_regular

if TYPE_CHECKING:
    from glam_deploy.runtime.result import Result


COMPRESSION_LEVEL = 1
"""zlib level; level 6, of `np.savez_compressed`, takes twice the time for full-size saliency (docs/outputs.md)."""

NamedArrays = dict[str, NDArray[Any]]


ARRAYS, PICTURE, REPORT = ".npz", ".png", ".json"
_LONGEST_STEM_BYTES = 240
"""Maximum length of a stem; file systems allow 255 bytes per name, and the rest is for the suffix."""
_BEGINNING = f'{{\n  "schema": "{report.SCHEMA}",'.encode()
_MEANWHILE = "meanwhile"
_STOPPED = "glam-deploy was stopped while it wrote the results, which may be incomplete: run this input again"
_NAMES = (
    "y_global",
    "y_scale",
    "y_local",
    "saliency_global",
    "saliency_patches",
    "patch_locations",
    "y_fusion",
    "attention",
)
_ARRAYS = {f"{name}.npy" for name in ("y_global", "saliency_global", "patch_locations")}
"""In every file of arrays, whichever the network."""


def named_arrays(result: "Result", *, full: bool, save_input: bool) -> NamedArrays:
    """Arrays of one image by their names in the file; see `Result` for range and frame.

    float32 unless said otherwise: y_global [2], y_scale [3, 2], y_local [2], saliency_global [2, *map_shape] (184 x 120
    of GLAM), saliency_patches [K, 2, 128, 128], patch_locations int64 [K, 2] (K is 0 of a network without patches),
    y_fusion [2] and attention [K], those that the network has. `full` adds saliency [2, 2944, 1920] (network frame)
    and saliency_source [2, rows, columns] (source frame); `save_input` adds input [2944, 1920], standardized, network
    frame.
    """
    found: NamedArrays = {name: array for name in _NAMES if (array := getattr(result, name)) is not None}
    if full:
        found |= {"saliency": result.saliency(), "saliency_source": result.saliency_in_source()}
    if save_input:
        found["input"] = result.network_input.image
    return found


def write_npz(path: Path, named: NamedArrays) -> None:
    """Write a compressed .npz file; equal arrays result in equal bytes. Raises OSError."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=COMPRESSION_LEVEL) as archive:
        for name, array in named.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Which outputs to write in addition to report and arrays."""

    full: bool = False
    """Whether to add the fused map at full size, in the network frame and in the source frame, to the arrays."""
    save_input: bool = False
    """Whether to add the standardized network input to the arrays."""
    picture: bool = True
    """Whether to write the overlay picture."""


def write_result(out_dir: Path, stem: str, pixels: Pixels, result: "Result", options: OutputOptions) -> list[Path]:
    """Write arrays, picture and, last, the report of one image; returns their paths in that order.

    `pixels`: `Mammogram.pixels`, uint8, uint16 or float32 [rows, columns], source frame. Files of an earlier run with
    the same stem are replaced after all new files are ready. Raises UsageError for a folder that cannot be written, a
    stem that is not a plain file name, or an existing file that glam-deploy did not write; InputError for a value that
    JSON cannot represent.
    """
    require_free(out_dir, stem)
    picture_name = stem + PICTURE if options.picture else None
    with _staging(out_dir, stem) as staged:
        write_npz(staged / (stem + ARRAYS), named_arrays(result, full=options.full, save_input=options.save_input))
        if picture_name:
            (staged / picture_name).write_bytes(to_png(overlay(pixels, result)))
        _stage_report(staged, stem, report.done(result, arrays_name=stem + ARRAYS, picture_name=picture_name))
        return _publish(staged, out_dir, stem)


def require_writable(out_dir: Path) -> None:
    """Create the folder of results if it is missing. Raises UsageError if it cannot be created or written."""
    with _staging(out_dir, "nothing"):
        pass


def require_makeable(out_dir: Path) -> None:
    """Raises UsageError if the folder of results cannot be created or written; creates nothing permanent."""
    with writing_to(out_dir):
        existing = next(folder for folder in (out_dir, *out_dir.absolute().parents) if folder.exists())
        with tempfile.TemporaryFile(dir=existing):
            pass


def read_report(out_dir: Path, stem: str) -> report.Report:
    """Read the report of a stem. Raises OSError, ValueError."""
    content: report.Report = parse_json((out_dir / (stem + REPORT)).read_bytes())
    return content


def write_failure(out_dir: Path, stem: str, name: str, view: View | None, error: GlamError) -> list[Path]:
    """Write the report of an image without a result, and remove files of an earlier run with the same stem.

    `name`: name of the image for users (`Source.name`). Returns the path of the report. Raises UsageError as
    `write_result`.
    """
    require_free(out_dir, stem)
    with _staging(out_dir, stem) as staged:
        _stage_report(staged, stem, report.failure(name, view, error))
        return _publish(staged, out_dir, stem)


def require_free(out_dir: Path, stem: str) -> None:
    """Raises UsageError if `stem` is no plain file name, or its result would overwrite a file that glam-deploy did not
    write.
    """
    if stem in ("", ".", "..") or Path(stem).name != stem or not _is_valid(stem):
        raise UsageError(f"{stem!r} is not a stem for output files, expected a plain file name without folders")
    if not _is_valid(out_dir):
        raise UsageError(f"{str(out_dir)!r} is not a folder name, expected a path without null characters")
    with writing_to(out_dir):
        own = _listed_by(out_dir / (stem + REPORT))
        for path in (out_dir / (stem + suffix) for suffix in (REPORT, ARRAYS, PICTURE)):
            if (path.exists() or path.is_symlink()) and path.name not in own and not is_orphan(path):
                raise UsageError(
                    f"{path} exists and was not written by glam-deploy (it is not listed in a report {stem + REPORT}): "
                    "move it away, or choose an output folder other than that of the inputs"
                )


def _is_valid(path: str | Path) -> bool:
    """Whether the system can have a file of this name."""
    try:
        return b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        return False


def is_result(path: Path) -> bool:
    """Whether glam-deploy wrote this file: it is a report, is listed in the report of its stem, or is a table."""
    if is_table(path):
        return True
    names = _listed_by(path.with_suffix(REPORT)) if path.suffix in (REPORT, ARRAYS, PICTURE) else []
    return path.name in names


def unique_stems(paths: Iterable[Path]) -> dict[Path, str]:
    """A unique stem for each input, also in file systems that ignore case or Unicode composition.

    It is the shortest unique one: `1` for a/1.dcm alone; `1.png` and `1.dcm` if the types differ; `a_1` and `b_1` if
    the folders differ; else a digest of the path. A suffix of digits is part of the name (UIDs). The stems depend on
    the set of paths, not on their order.
    """
    choices = {path: _candidates(path) for path in paths}
    stems = {path: next(names) for path, names in choices.items()}
    while True:
        count = Counter(map(_folded, stems.values()))
        longer = {path: next(choices[path], None) for path, stem in stems.items() if count[_folded(stem)] > 1}
        moved = {path: stem for path, stem in longer.items() if stem is not None}
        if not moved:
            return stems
        stems |= moved


def stem_of(path: Path) -> str:
    """The file name without its suffix; a suffix of digits is part of the name (UIDs)."""
    return path.name if path.suffix[1:].isdigit() else path.stem


def _candidates(path: Path) -> Iterator[str]:
    """Possible stems, from short to long; the last is unique because it has a digest of the path."""
    fits = (name for name in _names(path) if len(os.fsencode(name)) <= _LONGEST_STEM_BYTES)
    yield from fits
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    yield f"{stem_of(path)[:40]}-{digest}"


def _names(path: Path) -> Iterator[str]:
    stem = stem_of(path)
    yield from (stem, path.name)
    folders = [part for part in path.parent.parts if part not in (path.anchor, "..")]
    for depth in range(1, len(folders) + 1):
        prefix = "_".join(folders[-depth:])
        yield from (f"{prefix}_{stem}", f"{prefix}_{path.name}")


def names_in_the_way(out_dir: Path, stems: Iterable[str]) -> dict[str, list[str]]:
    """Stem -> names of its output files that exist in the folder; case and Unicode composition are ignored.

    Reads the folder once. Raises UsageError if it cannot be read.
    """
    with writing_to(out_dir):
        existing = {_folded(path.name) for path in out_dir.iterdir()} if out_dir.exists() else set()
    outputs = ((stem, [stem + suffix for suffix in (REPORT, ARRAYS, PICTURE)]) for stem in stems) if existing else ()
    found = ((stem, [name for name in names if _folded(name) in existing]) for stem, names in outputs)
    return {stem: names for stem, names in found if names}


def _folded(stem: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", stem).casefold())


@contextmanager
def _staging(out_dir: Path, stem: str) -> Iterator[Path]:
    """Context with a temporary folder inside `out_dir` (the same file system, so that a rename is atomic)."""
    with writing_to(out_dir):
        out_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".glam-deploy-", dir=out_dir) as staged:
            yield Path(staged)


@contextmanager
def writing_to(out_dir: Path) -> Iterator[None]:
    """Context that raises OSError of the block as UsageError."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot write to {out_dir} {unwritable(error)}, or choose another folder") from error


def _stage_report(staged: Path, stem: str, content: report.Report) -> None:
    _write_report(staged / (stem + REPORT), content)
    stopped = report.failure(content["input"]["name"], None, InternalError(_STOPPED))
    stopped["input"] = content["input"]
    # both names, whether new files or files to be replaced
    stopped["files"] = {"arrays": stem + ARRAYS, "picture": stem + PICTURE}
    _write_report(staged / _MEANWHILE, stopped)


def _write_report(path: Path, content: report.Report) -> None:
    # lone surrogates, of file names that are not valid UTF-8, are written as JSON escapes and can be read back
    path.write_bytes(report.to_text(content).encode("utf-8", "backslashreplace"))


def _publish(staged: Path, out_dir: Path, stem: str) -> list[Path]:
    """Move the staged files to `out_dir`; returns their paths.

    The order is: a report with status "failed" that lists all files, arrays, picture, the final report. The guarantees
    of the module therefore hold after every step.
    """
    (staged / _MEANWHILE).replace(out_dir / (stem + REPORT))
    return [path for suffix in (ARRAYS, PICTURE, REPORT) if (path := _move(staged, out_dir, stem + suffix))]


def _move(staged: Path, out_dir: Path, name: str) -> Path | None:
    source, target = staged / name, out_dir / name
    if not source.exists():
        target.unlink(missing_ok=True)
        return None
    source.replace(target)
    return target


def _listed_by(path: Path) -> list[str]:
    """Names of a report and of its "files"; empty if `path` is not a report of glam-deploy.

    A damaged report is recognized by its first bytes; it is assumed to list arrays and picture.
    """
    try:
        text = read_regular(path)
    except (OSError, ValueError):  # ValueError: not a file name
        return []
    try:
        content = parse_json(text)
    except ValueError:
        both = [path.stem + suffix for suffix in (ARRAYS, PICTURE)] if path.suffix == REPORT else []
        return [path.name, *both] if text.startswith(_BEGINNING) else []
    if not isinstance(content, dict) or content.get("schema") != report.SCHEMA:
        return []
    files = content.get("files")
    return [path.name, *(files.values() if isinstance(files, dict) else ())]


def is_orphan(path: Path) -> bool:
    """Whether a file that no report lists is an undamaged array file or picture written by glam-deploy.

    An array file has all array names of `named_arrays`; a picture is RGB, with the banner's colour in the last pixel.
    """
    try:
        if path.is_symlink() or not path.is_file():
            return False
        return _has_our_arrays(path) if path.suffix == ".npz" else path.suffix == ".png" and _ends_in_banner(path)
    except (OSError, ValueError, SyntaxError, zipfile.BadZipFile):
        return False


def _has_our_arrays(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist()) >= _ARRAYS


def _ends_in_banner(path: Path) -> bool:
    with Image.open(path) as picture:
        return picture.mode == "RGB" and picture.getpixel((picture.width - 1, picture.height - 1)) == BANNER
