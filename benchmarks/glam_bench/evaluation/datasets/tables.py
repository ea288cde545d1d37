"""What the readers share: files of a folder, records of published tables, views, and BI-RADS."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from glam_bench.evaluation.csv_tables import Row, read_rows
from glam_bench.evaluation.labelled import MaskFile, Outline, Polygon, Rectangle
from glam_deploy.dicom.read import read_elements
from glam_deploy.errors import DicomError, UsageError
from glam_deploy.input_files import find_inputs
from glam_deploy.records import View

BIRADS_RULE = (
    "Labels are readings, not pathology: BI-RADS 4, 5 and 6 count as malignant, 1, 2 and 3 as not malignant; 2 and 3 "
    "count as benign and 1 as not benign; for 4, 5 and 6 it is unknown whether there is a benign finding too. BI-RADS "
    "0 gives no label."
)
_BIRADS = re.compile(r"(?:BI-?RADS\s*)?([0-6])[ABC]?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Tree:
    """All files of a labelled set."""

    title: str
    layout: str
    """The expected files, for messages."""
    folder: Path
    images: tuple[Path, ...]
    """Image files, in sorted order."""
    others: tuple[Path, ...]

    def table(self, *names: str) -> Path | None:
        """The only file with one of these names; None if there is none. Raises UsageError for several."""
        found = [path for path in self.others if path.name in names]
        if len(found) > 1:
            raise UsageError(
                f"{self.folder} has {len(found)} tables {found[0].name}, such as {found[0]} and {found[1]}; expected "
                f"one: give the folder of one copy of {self.title}"
            )
        return found[0] if found else None

    def missing(self, what: str) -> UsageError:
        """The error that `what` is missing, with the expected layout."""
        return UsageError(
            f"{self.folder} has no {what}; expected the files of {self.title}: {self.layout}. Check the folder; "
            "docs/datasets.md has the layouts that are read"
        )

    def name_of(self, path: Path) -> str:
        """`LabelledImage.name` of an image."""
        return path.relative_to(self.folder).as_posix()


def open_tree(folder: Path, *, title: str, layout: str) -> Tree:
    """List the files of a set. Raises UsageError if the folder does not exist or has no images."""
    others: list[Path] = []
    try:
        images = find_inputs([folder], on_passed_over=lambda _, found: others.extend(found))
    except UsageError as error:
        raise UsageError(f"{error}; expected the files of {title}: {layout}") from error
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file, expected a folder with the files of {title}: {layout}")
    return Tree(title=title, layout=layout, folder=folder, images=tuple(images), others=tuple(others))


def require_split(title: str, split: str | None, splits: Sequence[str]) -> None:
    """Raises UsageError unless `split` is None or one of `splits`."""
    if split is not None and split not in splits:
        expected = f"one of {', '.join(splits)}" if splits else "none, because it has no parts"
        raise UsageError(f"{title} has no split {split!r}, expected {expected}")


def read_published(path: Path, columns: Sequence[str]) -> list[Row]:
    """The records of a published table, with headings in lower case and with spaces for "_". See `read_rows`."""
    return read_rows(path, columns, heading=_spaced, remedy="take the table as it was published", least=0, whole=False)


def require_one_row(rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Raises UsageError if two rows have the same cells in `columns`, which name an image."""
    seen: dict[tuple[str, ...], Row] = {}
    for row in rows:
        key = tuple(row[column] for column in columns)
        if (first := seen.setdefault(key, row)) is not row:
            raise UsageError(
                f"{row.path}, lines {first.line} and {row.line}: both are of {' '.join(columns)} {'/'.join(key)}, "
                "expected one row for each image: take the table as it was published"
            )


def _spaced(heading: str) -> str:
    return " ".join(heading.replace("_", " ").lower().split())


def view_in(row: Row, side: str, projection: str) -> View | None:
    """The view in two cells; None for a projection other than CC and MLO. Raises UsageError for another side."""
    letter = {"L": "L", "LEFT": "L", "R": "R", "RIGHT": "R"}.get(row[side].upper())
    if letter is None:
        raise row.wrong(side, "L, R, LEFT or RIGHT")
    text = row[projection].upper()
    return View(f"{letter}-{text}") if text in ("CC", "MLO") else None


def birads_in(row: Row, column: str) -> int:
    """The BI-RADS category in a cell, such as "4a" or "BI-RADS 4"; subcategories count as 4. Raises UsageError."""
    found = _BIRADS.fullmatch(row[column])
    if found is None:
        raise row.wrong(column, "a BI-RADS category, 0 to 6")
    return int(found[1])


def labels_of(birads: int) -> dict[str, bool | None]:
    """Labels by BIRADS_RULE."""
    if birads == 0:
        return {"benign": None, "malignant": None}
    malignant = birads >= 4
    return {"benign": None if malignant else birads >= 2, "malignant": malignant}


def class_of(birads: int) -> str | None:
    """The class of a finding of this category; None for BI-RADS 0 and 1, which are no class of finding."""
    return "malignant" if birads >= 4 else "benign" if birads >= 2 else None


def inside(outlines: Iterable[Outline], path: Path, left_out: "LeftOut") -> tuple[Outline, ...]:
    """The boxes and polygons that have a part in the image in `path`, by its header; counts the others."""
    found = tuple(outlines)
    shape = _shape(path) if found else None
    used = [shape is None or _meets(outline.shape, shape) for outline in found]
    for _ in range(used.count(False)):
        left_out.add("outlines are not used, because they are outside of their image", path.name)
    return tuple(outline for outline, is_used in zip(found, used, strict=True) if is_used)


def _shape(path: Path) -> tuple[int, int] | None:
    """Rows and columns; None for a file that cannot be read, which is reported when its pixels are read."""
    try:
        header = read_elements(path, ("Rows", "Columns"))
        return int(header.Rows), int(header.Columns)
    except (DicomError, AttributeError, TypeError, ValueError):
        return None


def _meets(area: Rectangle | Polygon | MaskFile, shape: tuple[int, int]) -> bool:
    """Whether the box, or the box around the polygon, has a pixel of an image of this shape."""
    if isinstance(area, MaskFile):
        return True
    if isinstance(area, Rectangle):
        spans = ((area.top, area.bottom), (area.left, area.right))
        return all(max(0, round(low)) < min(size, round(high)) for (low, high), size in zip(spans, shape, strict=True))
    positions = zip(*area.corners, strict=True)
    return all(
        round(max(on_axis)) >= 0 and round(min(on_axis)) < size for on_axis, size in zip(positions, shape, strict=True)
    )


@dataclass(kw_only=True)
class LeftOut:
    """Counts what a table lists and a reader cannot use."""

    _names: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def add(self, reason: str, name: str) -> None:
        """`reason`: a plural, such as "images that are listed and absent"."""
        self._names[reason].append(name)

    def remarks(self) -> tuple[str, ...]:
        """A sentence for each reason, with the count and the first name."""
        return tuple(f"{len(names)} {reason}, such as {names[0]}." for reason, names in self._names.items())


SEVERAL = "images have several files"
ABSENT = "images are listed in the tables and absent from the folder"
