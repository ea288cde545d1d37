"""The record of a run: a JSON file that is written as a whole after every addition, so that a crash loses nothing."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glam_deploy.durable import write_whole

SCHEMA_VERSION = 1


class Record:
    """Measurements of one run, each with its status, seconds, error and results. One process at a time writes it."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path = path
        self.content = content

    @classmethod
    def create(cls, path: Path, **facts: Any) -> "Record":
        """A new file with these facts and no measurement."""
        record = cls(path, {"schema_version": SCHEMA_VERSION, **facts, "steps": {}})
        record.save()
        return record

    @classmethod
    def open(cls, path: Path) -> "Record":
        """The record that another process has written."""
        record = cls(path, {})
        record.reload()
        return record

    def reload(self) -> None:
        """Read again what another process has written."""
        self.content = json.loads(self.path.read_text("utf-8"))

    @property
    def steps(self) -> dict[str, dict[str, Any]]:
        """Name -> {"status", "seconds", "error", "results"}, in the order in which they began."""
        steps: dict[str, dict[str, Any]] = self.content["steps"]
        return steps

    def results(self, step: str) -> dict[str, Any]:
        """Results of a measurement; empty where it has none or was never begun."""
        results: dict[str, Any] = self.steps.get(step, {}).get("results", {})
        return results

    def reason(self, step: str) -> str:
        """Why a measurement has failed, in one line: of a traceback the last, else the first of the message."""
        lines = (self.steps[step]["error"] or "").strip().splitlines() or [""]
        return str(lines[-1 if self.steps[step]["status"] == "failed" else 0])

    def note(self, step: str, **facts: Any) -> None:
        """Facts about a measurement itself: status, seconds, error."""
        self._step(step).update(facts)
        self.save()

    def add(self, step: str, results: Mapping[str, Any]) -> None:
        """Further results of a measurement. Floats for which JSON has no number become text: "nan", "inf"."""
        self._step(step)["results"].update(_plain(results))
        self.save()

    def finish(self, **facts: Any) -> None:
        """Facts about the whole run."""
        self.content.update(_plain(facts))
        self.save()

    def move(self, path: Path) -> None:
        """Move the file; later additions go to the new path."""
        old, self.path = self.path, path
        self.save()
        old.unlink()

    def save(self) -> None:
        """Write the file as a whole."""
        write_json(self.path, self.content)

    def _step(self, name: str) -> dict[str, Any]:
        return self.steps.setdefault(name, {"status": "running", "seconds": None, "error": None, "results": {}})


def write_json(path: Path, content: object) -> None:
    """Replace a JSON file as a whole, so that no reader finds half of it. Raises ValueError for NaN and infinity."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, f"{json.dumps(content, indent=1, allow_nan=False)}\n".encode())


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def free_name(folder: Path, stem: str) -> Path:
    """folder/stem.json, or stem-2.json, stem-3.json and so on where that exists: results are never overwritten."""
    path, number = folder / f"{stem}.json", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.json"
    return path
