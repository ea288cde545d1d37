"""Store of an evaluation: what each network found in each image, one JSON object a line, appended as it is computed.

An evaluation that was stopped goes on from its store: an image is computed again if its file, view or outlines, the
checkpoint, the engine, the number of patches or the release of glam-deploy are others, or if its line is not valid.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Literal

from glam_bench.evaluation.overlap import MOST_MARKS, THRESHOLDS, Marks, Overlap, map_names
from glam_deploy.errors import UsageError
from glam_deploy.json_records import from_json, parse_json, to_json
from glam_deploy.networks import NetworkSpec
from glam_deploy.records import View
from glam_deploy.regular import open_regular

STORE = "evaluation.jsonl"
HEADING = {"kind": "glam-deploy evaluation", "schema": 1}
"""First line of a store. Another schema means that stored values are defined otherwise."""
_MAX_LINE = 1 << 20
"""Largest line, bytes; the marks and overlaps of an image take some 10 kB."""

Status = Literal["done", "skipped", "failed"]


@dataclass(frozen=True, kw_only=True)
class ImageRun:
    """One image with one network."""

    run: str
    """Identifies bundle, engine, patches and release: `Model.run`."""
    image: str
    """`LabelledImage.name`."""
    digest: str
    """SHA-256 of the image, its view and its outlines."""
    status: Status
    """"skipped": an image that the networks were not made for. "failed": another error."""
    reason: str = ""
    view: str | None = None
    """The view that was used."""
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Score -> class -> value."""
    overlaps: tuple[Overlap, ...] = ()
    marks: tuple[Marks, ...] = ()
    empty_outlines: int = 0
    """Outlines that have no pixel in the image."""
    time_ms: float = 0.0
    """From the standardized image to scores and maps."""

    @property
    def side(self) -> str | None:
        """ "L" or "R"; None if the view is unknown."""
        return View(self.view).value[0] if self.view else None


class Store:
    """The store in a folder. One writer; not thread-safe."""

    def __init__(self, folder: Path) -> None:
        """Open or create the store.

        Lines that are not valid are counted and ignored. An incomplete last line, which a killed process leaves, is
        removed. Raises UsageError for a file that is no store.
        """
        self._path = folder / STORE
        self._runs: dict[tuple[str, str], ImageRun] = {}
        self.damaged = 0
        """Lines that were not valid."""
        for line in self._lines():
            if found := _parsed(line):
                self._keep(found)
            else:
                self.damaged += 1
        if not self._path.exists():
            self._append(json.dumps(HEADING))

    def get(self, run: str, image: str, digest: str, network: NetworkSpec) -> ImageRun | None:
        """The stored result of an image that is done; None if it must be computed."""
        found = self._runs.get((run, image))
        if found is None or found.status != "done" or found.digest != digest:
            return None
        if not _is_valid(found, network):
            self.damaged += 1
            return None
        return found

    def add(self, found: ImageRun) -> None:
        """Append a result; it takes the place of an earlier one. Raises OSError."""
        self._append(json.dumps(to_json(found), separators=(",", ":"), allow_nan=False))
        self._keep(found)

    def _append(self, line: str) -> None:
        # in one system call, so that a killed process leaves at most its last line incomplete
        with self._path.open("ab", buffering=0) as file:
            file.write(f"{line}\n".encode())

    def _keep(self, found: ImageRun) -> None:
        self._runs[found.run, found.image] = found

    def _lines(self) -> Iterator[bytes]:
        """The complete lines below the heading; removes an incomplete last one."""
        if not self._path.exists() and not self._path.is_symlink():
            return
        try:
            with open_regular(self._path) as file:
                if file.readline(_MAX_LINE) != f"{json.dumps(HEADING)}\n".encode():
                    raise self._foreign()
                whole = file.tell()
                # of a longer line only the end counts, which is not valid
                while line := file.readline(_MAX_LINE):
                    if line.endswith(b"\n"):
                        whole = file.tell()
                        yield line
                size = file.tell()
        except OSError as error:
            raise self._foreign() from error
        if whole != size:
            with self._path.open("r+b") as file:
                file.truncate(whole)

    def _foreign(self) -> UsageError:
        return UsageError(
            f"{self._path} was not written by this release of glam-deploy: move it away, or choose another --out"
        )


def _parsed(line: bytes) -> ImageRun | None:
    """The result in a line; None if it is not valid JSON of this record."""
    try:
        return from_json(ImageRun, parse_json(line))
    except (ValueError, RecursionError):
        return None


def _is_valid(found: ImageRun, network: NetworkSpec) -> bool:
    """Whether a result that is done has all values that this network gives, each in its range."""
    classes = sorted(network.classes)
    outlined = [one.label for one in found.marks if one.lesions]
    return (
        found.view in set(View)
        and found.scores.keys() == set(network.scores)
        and all(sorted(values) == classes and _are_shares(values.values()) for values in found.scores.values())
        and sorted(one.label for one in found.marks) == classes
        and all(map(_is_valid_marks, found.marks))
        and sorted((one.label, one.map) for one in found.overlaps)
        == sorted((label, name) for label in outlined for name in map_names(network))
        and all(len(one.by_threshold) == len(THRESHOLDS) for one in found.overlaps)
        and all(_are_shares((one.soft, *one.by_threshold)) for one in found.overlaps)
        and found.empty_outlines >= 0
        and 0 <= found.time_ms < inf
    )


def _is_valid_marks(found: Marks) -> bool:
    return (
        len(found.scores) == len(found.hits) <= MOST_MARKS
        and _are_shares(found.scores)
        and list(found.scores) == sorted(found.scores, reverse=True)
        and found.lesions >= 0
        and all(hit is None or 0 <= hit < found.lesions for hit in found.hits)
    )


def _are_shares(values: Iterable[float]) -> bool:
    """Whether all are numbers from 0 to 1; NaN is none."""
    return all(0 <= value <= 1 for value in values)
