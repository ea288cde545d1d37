"""All files of one image, in a folder of results: `<stem>.npz`, `<stem>.png`, `<stem>.json`.

A file is ours where it is a report, or where the report beside it names it; all else is left as it is. The order of
every change keeps that true also when the process dies in between, and another promise with it: a report that says
"done" stands beside complete files of the same run.
"""

import hashlib
import json
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

from glam_deploy.errors import GlamError, InternalError, UsageError
from glam_deploy.outputs import report
from glam_deploy.outputs.overlay import overlay, to_png
from glam_deploy.outputs.panel import BANNER
from glam_deploy.outputs.table import is_table
from glam_deploy.records import Pixels, View
from glam_deploy.regular import read_regular

if TYPE_CHECKING:
    from glam_deploy.runtime.result import Result


COMPRESSION_LEVEL = 1
"""zlib's; level 6 of `np.savez_compressed` takes twice the time on full-size saliency (docs/outputs.md)."""

NamedArrays = dict[str, NDArray[Any]]


ARRAYS, PICTURE, REPORT = ".npz", ".png", ".json"
_LONGEST_STEM_BYTES = 240
"""File systems stop at 255 bytes a name; the rest is for the suffix."""
_BEGINNING = f'{{\n  "schema": "{report.SCHEMA}",'.encode()
_MEANWHILE = "meanwhile"
_STOPPED = "glam-deploy was stopped while it wrote the results, which may be incomplete: run this input again"
_ARRAYS = {f"{name}.npy" for name in ("y_global", "y_scale", "y_local", "saliency_global", "saliency_patches")}


def named_arrays(result: "Result", *, full: bool, save_input: bool) -> NamedArrays:
    """The arrays of one image by the names they have in the file (see `Result` for range and frame).

    float32 unless said otherwise: y_global [2], y_scale [3, 2], y_local [2], saliency_global [2, 184, 120],
    saliency_patches [K, 2, 128, 128], patch_locations int64 [K, 2]; y_fusion [2] and attention [K] only where the
    checkpoint has them. `full` adds saliency [2, 2944, 1920] (network frame) and saliency_source [2, rows, columns]
    (source frame); `save_input` adds input [2944, 1920], standardized, network frame.
    """
    always = ("y_global", "y_scale", "y_local", "saliency_global", "saliency_patches", "patch_locations")
    found: NamedArrays = {name: getattr(result, name) for name in always}
    optional = {"y_fusion": result.y_fusion, "attention": result.attention}
    found |= {name: array for name, array in optional.items() if array is not None}
    if full:
        found |= {"saliency": result.saliency(), "saliency_source": result.saliency_in_source()}
    if save_input:
        found["input"] = result.network_input.image
    return found


def write_npz(path: Path, named: NamedArrays) -> None:
    """Write a compressed .npz; the same arrays give the same bytes. Raises OSError as the file system does."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=COMPRESSION_LEVEL) as archive:
        for name, array in named.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


if TYPE_CHECKING:
    from glam_deploy.runtime.result import Result


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What to write beside the report."""

    full: bool = False
    """Also the fused saliency at full size, in the network's frame and in the source image's."""
    save_input: bool = False
    """Also the standardized network input."""
    picture: bool = True
    """The overlay."""


def write_result(out_dir: Path, stem: str, pixels: Pixels, result: "Result", options: OutputOptions) -> list[Path]:
    """Write the arrays, the picture and, last, the report of one image; returns what was written, in that order.

    `pixels`: `Mammogram.pixels`, uint8, uint16 or float32 [rows, columns], source frame. Replaces an earlier run's
    files of the same stem, and leaves them alone until all new ones are ready. Raises UsageError for a folder that
    cannot be written to, a stem that is no plain file name, or a file in the way that glam-deploy did not write;
    InputError for a value that JSON cannot hold.
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
    """Make the folder of results where it is missing; UsageError where it cannot be made or written to."""
    with _staging(out_dir, "nothing"):
        pass


def require_makeable(out_dir: Path) -> None:
    """As `require_writable`, for a check before long work: nothing is made that stays."""
    with writing_to(out_dir):
        place = next(place for place in (out_dir, *out_dir.absolute().parents) if place.exists())
        with tempfile.TemporaryFile(dir=place):
            pass


def read_report(out_dir: Path, stem: str) -> report.Report:
    """The report that this run, or an earlier one, wrote."""
    content: report.Report = json.loads((out_dir / (stem + REPORT)).read_bytes())
    return content


def write_failure(out_dir: Path, stem: str, name: str, view: View | None, error: GlamError) -> list[Path]:
    """Write the report of an image without a result, and remove an earlier run's files of the same stem.

    `name` is what a person calls the image (`Source.name`). Raises UsageError as `write_result` does.
    """
    require_free(out_dir, stem)
    with _staging(out_dir, stem) as staged:
        _stage_report(staged, stem, report.failure(name, view, error))
        return _publish(staged, out_dir, stem)


def require_free(out_dir: Path, stem: str) -> None:
    """UsageError where a file of the user's has a name that a result of this stem would get; changes nothing."""
    with writing_to(out_dir):
        ours = _named_by(out_dir / (stem + REPORT))
        for path in (out_dir / (stem + suffix) for suffix in (REPORT, ARRAYS, PICTURE)):
            if (path.exists() or path.is_symlink()) and path.name not in ours and not is_orphan(path):
                raise UsageError(
                    f"{path} is in the way and was not written by glam-deploy (no report {stem + REPORT} of ours names "
                    "it); move it away, or choose an output folder apart from the inputs"
                )


def is_result(path: Path) -> bool:
    """Whether glam-deploy wrote this file: it is a report, or the report beside it names it, or it is a table."""
    if is_table(path):
        return True
    names = _named_by(path.with_suffix(REPORT)) if path.suffix in (REPORT, ARRAYS, PICTURE) else []
    return path.name in names


def unique_stems(paths: Iterable[Path]) -> dict[Path, str]:
    """A stem for each input, different from every other's also where case or Unicode composition do not count.

    The shortest that does: `1` for a/1.dcm alone; `1.png` and `1.dcm` where the types differ; `a_1` and `b_1` where the
    folders do; else a digest of the path. A suffix of digits alone is part of the name (UIDs). The answer depends on
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
    """The name without its suffix; a suffix of digits alone is part of the name (UIDs)."""
    return path.name if path.suffix[1:].isdigit() else path.stem


def _candidates(path: Path) -> Iterator[str]:
    """Stems from short to long; the last is unique by the digest of the whole path."""
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
    """Stem -> those files of a result of this stem whose names are taken in the folder, however they are written.

    Looks into the folder once. Raises UsageError where it cannot be searched.
    """
    with writing_to(out_dir):
        there = {_folded(path.name) for path in out_dir.iterdir()} if out_dir.exists() else set()
    taken = ((stem, [stem + suffix for suffix in (REPORT, ARRAYS, PICTURE)]) for stem in stems) if there else ()
    found = ((stem, [name for name in names if _folded(name) in there]) for stem, names in taken)
    return {stem: names for stem, names in found if names}


def _folded(stem: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", stem).casefold())


@contextmanager
def _staging(out_dir: Path, stem: str) -> Iterator[Path]:
    """A folder inside `out_dir` (same file system, so that a rename is atomic) that goes away whatever happens."""
    if stem in ("", ".", "..") or Path(stem).name != stem:
        raise UsageError(f"{stem!r} is no stem for output files; expected a plain file name without folders")
    with writing_to(out_dir):
        out_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".glam-deploy-", dir=out_dir) as staged:
            yield Path(staged)


@contextmanager
def writing_to(out_dir: Path) -> Iterator[None]:
    """What the file system raises in the block, as UsageError."""
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot write to {out_dir}: {error.strerror or error}; expected a folder with space and permission to "
            "write: free space, change its permissions, or choose another folder"
        ) from error


def _stage_report(staged: Path, stem: str, content: report.Report) -> None:
    _write_report(staged / (stem + REPORT), content)
    stopped = report.failure(content["input"]["name"], None, InternalError(_STOPPED))
    stopped["input"] = content["input"]
    # the names of the new files and of those that they replace
    stopped["files"] = {"arrays": stem + ARRAYS, "picture": stem + PICTURE}
    _write_report(staged / _MEANWHILE, stopped)


def _write_report(path: Path, content: report.Report) -> None:
    # A file name with bytes that are not UTF-8 holds lone surrogates; as escapes they are valid JSON and come back.
    path.write_bytes(report.to_text(content).encode("utf-8", "backslashreplace"))


def _publish(staged: Path, out_dir: Path, stem: str) -> list[Path]:
    """A report of a failure that names all, arrays, picture, the report: the module's promises hold at every step."""
    (staged / _MEANWHILE).replace(out_dir / (stem + REPORT))
    return [path for suffix in (ARRAYS, PICTURE, REPORT) if (path := _move(staged, out_dir, stem + suffix))]


def _move(staged: Path, out_dir: Path, name: str) -> Path | None:
    source, target = staged / name, out_dir / name
    if not source.exists():
        target.unlink(missing_ok=True)
        return None
    source.replace(target)
    return target


def _named_by(place: Path) -> list[str]:
    """The report's own name and those in its "files"; nothing where no report of ours is there.

    A report of ours that is damaged is told by its beginning, and may have named both.
    """
    try:
        text = read_regular(place)
        content = json.loads(text)
    except OSError:
        return []
    except (ValueError, RecursionError):
        both = [place.stem + suffix for suffix in (ARRAYS, PICTURE)] if place.suffix == REPORT else []
        return [place.name, *both] if text.startswith(_BEGINNING) else []
    if not isinstance(content, dict) or content.get("schema") != report.SCHEMA:
        return []
    files = content.get("files")
    return [place.name, *(files.values() if isinstance(files, dict) else ())]


def is_orphan(path: Path) -> bool:
    """Whether a file that no report names is arrays or a picture that glam-deploy wrote, damaged ones left out.

    Arrays have the names of ours; a picture is in colour and ends in the banner's, which no mammogram does.
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
