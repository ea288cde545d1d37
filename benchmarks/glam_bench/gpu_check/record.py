"""The results file: a JSON document that is whole on disk after every word that is added to it."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1


class Record:
    """One run of the check. One process at a time has it open to write."""

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path = path
        self.content = content

    @classmethod
    def create(cls, path: Path, **facts: Any) -> "Record":
        """A new file with these facts and no step."""
        record = cls(path, {"schema_version": SCHEMA_VERSION, **facts, "steps": {}, "bars": []})
        record.save()
        return record

    @classmethod
    def open(cls, path: Path) -> "Record":
        """What another process has written."""
        record = cls(path, {})
        record.reload()
        return record

    def reload(self) -> None:
        """Take over what another process has written meanwhile."""
        self.content = json.loads(self.path.read_text("utf-8"))

    @property
    def steps(self) -> dict[str, dict[str, Any]]:
        """Name -> {"status", "seconds", "error", "results"}, in the order in which they began."""
        steps: dict[str, dict[str, Any]] = self.content["steps"]
        return steps

    def results(self, step: str) -> dict[str, Any]:
        """What a step has found; empty where it found nothing or was never begun."""
        results: dict[str, Any] = self.steps.get(step, {}).get("results", {})
        return results

    def note(self, step: str, **facts: Any) -> None:
        """Facts about a step itself: status, seconds, error."""
        self._step(step).update(facts)
        self.save()

    def add(self, step: str, results: Mapping[str, Any]) -> None:
        """Results of a step, beside those that it has. What JSON has no number for becomes text: "nan", "inf"."""
        self._step(step)["results"].update(_plain(results))
        self.save()

    def finish(self, **facts: Any) -> None:
        """Facts about the whole run."""
        self.content.update(_plain(facts))
        self.save()

    def move(self, path: Path) -> None:
        """Go on under another name."""
        path.parent.mkdir(parents=True, exist_ok=True)
        old, self.path = self.path, path
        self.save()
        old.unlink()

    def save(self) -> None:
        """Replace the file as a whole, so that whoever reads it never meets half of it."""
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.content, indent=1, allow_nan=False) + "\n", "utf-8")
        partial.replace(self.path)

    def _step(self, name: str) -> dict[str, Any]:
        return self.steps.setdefault(name, {"status": "running", "seconds": None, "error": None, "results": {}})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def free_name(folder: Path, stem: str) -> Path:
    """folder/stem.json, or stem-2, stem-3 and so on where that is taken: results are never written over."""
    path, number = folder / f"{stem}.json", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.json"
    return path
