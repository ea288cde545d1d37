"""Rows of the two tables of an archive run: one for each distinct instance, one for each entry of the source.

Ids are the first 32 hexadecimal digits of a SHA-256, so that rows can be joined where identifiers are pseudonyms:
`entry` of location and version, `instance` of SOPInstanceUID (else the view in the name) and SHA-256 of the content.
With a key for pseudonyms they are pseudonyms of these digests, because locations and UIDs can be found from a digest by
trying.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING

from glam_deploy.archive.identifiers import Identifiers, encoded
from glam_deploy.archive.sources.base import Entry
from glam_deploy.errors import Caller, GlamError, InputError, NotForThisNetwork, internal_error, without_frames
from glam_deploy.exams import made_by
from glam_deploy.json_records import valid_text
from glam_deploy.records import Box, Facts
from glam_deploy.view_names import view_from_name

if TYPE_CHECKING:
    from glam_deploy.runtime.result import Result

SCORES = tuple(f"{score}_{name}" for score in ("y_global", "y_local", "y_fusion") for name in ("benign", "malignant"))
"""Columns of the scores, as in results.csv."""

DONE, SKIPPED, FAILED = "done", "skipped", "failed"
"""Status of an instance, and outcome of the entry that it was read from."""
KEPT = "kept"
"""Count of entries that have their row already."""
DUPLICATE, EXCLUDED, UNREADABLE = "duplicate", "excluded", "unreadable"
"""Further outcomes of an entry: content of another one, excluded by a condition, and without readable content."""


@dataclass(frozen=True, kw_only=True)
class Maker:
    """What made the results of a run; equal in all rows of one run."""

    engine: str
    bundle: str
    """Id of the bundle: SHA-256 of its manifest."""
    gate: str
    made_by: str
    """As of `exams.made_by`."""

    @classmethod
    def of(cls, provenance: Facts) -> "Maker":
        """`provenance`: that of a pipeline."""
        return cls(
            engine=provenance["engine"]["name"],
            bundle=provenance["bundle"]["id"],
            gate=provenance["gate"],
            made_by=made_by(provenance),
        )


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the pipeline made of one instance, without identifiers."""

    status: str
    """DONE, SKIPPED or FAILED."""
    kind: str = ""
    """As `Source.kind`."""
    view: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Column of `SCORES` -> float32 value, 0..1, not calibrated; those that the network has."""
    patches: tuple[Box | None, ...] = ()
    """As `Result.patch_boxes_in_source`: (top, left, bottom, right), half-open, source frame, in order of selection."""
    notices: tuple[str, ...] = ()
    """Codes of the notices."""
    error: str = ""
    """Type of the error."""
    reason: str = ""
    """Text of the error; of an instance with a result, why a file is missing."""
    timings_ms: Mapping[str, float] = field(default_factory=dict)


def finding_of(result: "Result") -> Finding:
    """The finding of an instance with a result."""
    scores = {f"{score}_{name}": y for score, found in result.predictions.items() for name, y in found.items()}
    return Finding(
        status=DONE,
        kind=result.input.source.kind,
        view=result.input.view or "",
        scores=scores,
        patches=tuple(result.patch_boxes_in_source),
        notices=tuple(notice.code for notice in result.notices),
        timings_ms=dict(result.timings_ms),
    )


def finding_of_error(error: Exception) -> Finding:
    """The finding of an instance without a result: SKIPPED for `NotForThisNetwork`, else FAILED.

    An error that is no GlamError is a fault in this program, which must not stop the other instances. The traceback of
    `error` is removed, so that the error holds no image.
    """
    known = error.with_message_for(Caller.ARCHIVE) if isinstance(error, GlamError) else internal_error(error)
    without_frames(error)
    status = SKIPPED if isinstance(known, NotForThisNetwork) else FAILED
    return Finding(status=status, error=type(known).__name__, reason=str(known))


def entry_id(entry: Entry, identifiers: Identifiers) -> str:
    """Id of an entry: equal for the same version of the same location."""
    return identifiers.text("entry", _digest(entry.location, entry.version))


def instance_id(
    uids: Mapping[str, str], sha256: str, path: PurePath, identifiers: Identifiers, *, has_view_of_name: bool
) -> str:
    """Id of a distinct instance. `sha256`: that of its content, as hexadecimal digits; `path`: as `Entry.path`.

    It is of content, SOPInstanceUID, and the view in the name if the result depends on it.
    """
    view = _view_in(path) if has_view_of_name else ""
    stated = "\0".join(filter(None, (uids.get("SOPInstanceUID"), view)))
    return identifiers.text("instance", _digest(stated, sha256))


def _view_in(path: PurePath) -> str:
    try:
        return view_from_name(path) or ""
    except InputError as error:  # several views
        return str(error)


def _digest(*texts: str) -> str:
    return hashlib.sha256(encoded("\0".join(texts))).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class ViewRow:
    """A row of the table `views`: one distinct instance."""

    instance: str
    entry: str
    """The entry that it was read from."""
    sha256: str
    identifiers: Mapping[str, str]
    finding: Finding
    maker: Maker

    def to_arrow(self) -> dict[str, object]:
        """Column -> value."""
        found = self.finding
        return {
            "instance": self.instance,
            "entry": self.entry,
            "sha256": self.sha256,
            **{column: valid_text(text) for column, text in self.identifiers.items()},
            "kind": valid_text(found.kind),
            "view": valid_text(found.view),
            "status": found.status,
            **{name: found.scores.get(name) for name in SCORES},
            "patches": [
                None if box is None else dict(zip(("top", "left", "bottom", "right"), box, strict=True))
                for box in found.patches
            ],
            "notices": [valid_text(code) for code in found.notices],
            "error": valid_text(found.error),
            "reason": valid_text(found.reason),
            "timings_ms": list(found.timings_ms.items()),
            "time_ms": sum(found.timings_ms.values()) if found.timings_ms else None,
            "engine": self.maker.engine,
            "bundle_id": self.maker.bundle,
            "gate": self.maker.gate,
            "made_by": self.maker.made_by,
        }


@dataclass(frozen=True, kw_only=True)
class FileRow:
    """A row of the table `files`: one version of one entry of the source."""

    entry: str
    instance: str
    """"" if the content was not read."""
    location: str
    """As the policy for identifiers has it."""
    version: str
    bytes: int | None
    sha256: str
    outcome: str
    """A status, DUPLICATE, EXCLUDED or UNREADABLE."""
    reason: str = ""

    def to_arrow(self) -> dict[str, object]:
        """Column -> value."""
        texts = {"location": self.location, "version": self.version, "reason": self.reason}
        return {**vars(self), **{column: valid_text(text) for column, text in texts.items()}}
