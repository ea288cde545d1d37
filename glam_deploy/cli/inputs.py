"""Which inputs `run` works on, where the results of each go, and which view a table says that they show."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from glam_deploy.cli import console
from glam_deploy.cli.view_map import read_views, told_lines
from glam_deploy.errors import UsageError
from glam_deploy.images import image_files
from glam_deploy.outputs.writer import is_result, names_in_the_way, require_free, unique_stems
from glam_deploy.reading import find_inputs
from glam_deploy.records import View
from glam_deploy.view_names import not_a_mammogram


def plan(inputs: Sequence[Path], out: Path) -> dict[Path, str]:
    """Every input file and the stem of its results; what a searched folder holds besides is told on standard error.

    Results, outlines and crops in a searched folder are no inputs. Raises UsageError as `find_inputs` does, where
    nothing else is there, and where a result would replace an input or another file that is not ours.
    """
    stems = unique_stems(_mammograms(inputs))
    in_the_way = names_in_the_way(out, stems.values())
    folders = cache(Path.resolve)
    originals = {_real(path, folders) for path in stems} if in_the_way else set()
    for path, stem in stems.items():
        for name in in_the_way.get(stem, ()):
            if _real(out / name, folders) in originals:
                raise UsageError(
                    f"{out / name} is an input, and a result of {path} would replace it. "
                    f"Name another folder with --out."
                )
        if stem in in_the_way:
            require_free(out, stem)
    return stems


def _real(path: Path, folders: Callable[[Path], Path]) -> Path:
    """As `Path.resolve`; `folders` resolves the folder, once for all files in it."""
    return path.resolve() if path.is_symlink() else folders(path.parent) / path.name


def assigned_views(table: Path | None, inputs: Sequence[Path]) -> Mapping[Path, View]:
    """The view of each input that the table names; rows that name no input are told on standard error."""
    if table is None:
        return {}
    views, unknown = read_views(table).assign(inputs)
    if not views:
        raise UsageError(f"{table}: no row names an input, such as {inputs[0]}: check the names in it")
    if unknown:
        console.err.print(f"rows of {table} that name no input: {len(unknown)} ({told_lines(unknown)})", soft_wrap=True)
    return views


def _mammograms(inputs: Sequence[Path]) -> list[Path]:
    """What was named, and what was found that is no result and is not named like an outline."""
    named = set(inputs)
    found = find_inputs(inputs, on_passed_over=_tell_passed_over)
    kept = [path for path in found if path in named or not is_result(path)]
    if not kept:
        raise UsageError("all images there are results of an earlier run: check the inputs")
    outlines = {path for path in kept if path not in named and _is_outline(path)}
    if outlines:
        told = f"outlines or crops by their names, no mammograms: {len(outlines)}, such as {min(outlines)}"
        if len(outlines) == len(kept):
            raise UsageError(f"{told}. There is no other image: check the inputs")
        console.err.print(f"passed over as {told}", soft_wrap=True)
    return [path for path in kept if path not in outlines]


def _is_outline(path: Path) -> bool:
    """By name; the header of a DICOM object tells better."""
    return path.suffix.lower() in image_files.SUFFIXES and bool(not_a_mammogram(path))


def _tell_passed_over(folder: Path, others: Sequence[Path]) -> None:
    if count := sum(not is_result(path) for path in others):
        told = "1 other file" if count == 1 else f"{count} other files"
        console.err.print(f"{told} in {folder} {'was' if count == 1 else 'were'} passed over", soft_wrap=True)
