"""Store of an evaluation: what each network found in each image, one JSON object a line, appended as it is computed.

An evaluation that was stopped goes on from its store: an image is computed again if its file, view or outlines, the
bundle, the engine, the number of patches or the release of glam-deploy are others.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from glam_bench.evaluation.overlap import Marks, Overlap
from glam_deploy.errors import UsageError
from glam_deploy.json_records import JsonFault, from_json, to_json
from glam_deploy.records import View

STORE = "evaluation.jsonl"
HEADING = {"kind": "glam-deploy evaluation", "schema": 1}
"""First line of a store. Another schema means that stored values are defined otherwise."""

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
    time_ms: float = 0.0
    """From the standardized image to scores and maps."""

    @property
    def side(self) -> str | None:
        """ "L" or "R"; None if the view is unknown."""
        return View(self.view).value[0] if self.view else None


class Store:
    """The store in a folder. One writer; not thread-safe."""

    def __init__(self, folder: Path, *, resume: bool) -> None:
        """Open or create the store.

        Raises UsageError if it has results and `resume` is False, so that hours of work are not lost by an option that
        was forgotten; and for a file that is no store or is damaged elsewhere than in its last line, which a killed
        process leaves incomplete and which is removed.
        """
        self._path = folder / STORE
        self._runs: dict[tuple[str, str], ImageRun] = {}
        lines = self._lines()
        if len(lines) > 1 and not resume:
            raise UsageError(
                f"{self._path} has the results of an earlier evaluation: add --resume to go on from them, or choose "
                "another --out"
            )
        for number, line in enumerate(lines[1:], start=2):
            self._keep(self._read(number, line))
        if not lines:
            self._append(json.dumps(HEADING))

    def get(self, run: str, image: str, digest: str) -> ImageRun | None:
        """The stored result of an image that is done; None if it must be computed."""
        found = self._runs.get((run, image))
        return found if found and found.status == "done" and found.digest == digest else None

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

    def _lines(self) -> list[str]:
        """The complete lines; removes an incomplete last one."""
        try:
            content = self._path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            lines = whole.decode().splitlines()
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise self._foreign() from error
        if not lines or lines[0] != json.dumps(HEADING):
            raise self._foreign()
        if whole != content:
            with self._path.open("r+b") as file:
                file.truncate(len(whole))
        return lines

    def _foreign(self) -> UsageError:
        return UsageError(
            f"{self._path} was not written by this release of glam-deploy: move it away, or choose another --out"
        )

    def _read(self, number: int, line: str) -> ImageRun:
        try:
            return from_json(ImageRun, json.loads(line))
        except (JsonFault, ValueError) as error:
            raise UsageError(
                f"{self._path}, line {number} is damaged ({error}): remove the line, whose image is then computed again"
            ) from error
