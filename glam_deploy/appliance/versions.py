"""Two versions of one mammogram: the stored one and a later one with the same SOP Instance UID and other bytes.

A version that can give no result gives way to one that may. A later version that changes no result is the same image.
Every other one waits in quarantine for a person. Pixels are decoded in a child process with limits of its own,
because a decoder may crash.
"""

import errno
import threading
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.state.studies import Instance, StoredVersion
from glam_deploy.decoding.view_reader import Stopped, ViewReader
from glam_deploy.dicom.versions import differing_elements
from glam_deploy.errors import Caller, GlamError
from glam_deploy.records import Mammogram


class Verdict(Enum):
    """What becomes of the later version."""

    SAME = "same"
    """It changes no result: another encoding of the same image. It is not stored again."""
    BETTER = "better"
    """The stored version can give no result: the later one takes its place."""
    OTHER = "other"
    """A person decides."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict and its reason, a phrase without identifiers."""

    verdict: Verdict
    reason: str


class VersionJudge:
    """Compares versions, one pair at a time; safe to share between threads."""

    def __init__(self, config: Config, data: DataFolder) -> None:
        self._config, self._data = config, data
        self._lock, self._stop = threading.Lock(), threading.Event()

    def close(self) -> None:
        """End a comparison that is under way."""
        self._stop.set()

    def judge(self, stored: StoredVersion, later: Instance, path: Path) -> Judgement:
        """The verdict on the version `later` in the file `path`.

        Raises OSError if no process can be started, or if `close` ends the comparison.
        """
        old = self._data.root / stored.path
        if (stored.study_uid, stored.sop_class) != (later.study_uid, later.sop_class):
            return _other("another study or SOP class")
        if not stored.is_mammogram:
            return _other("objects other than mammograms are not compared")
        if not old.exists():
            return _other("the first one was removed after its retention time")
        try:
            with (
                self._lock,
                closing(ViewReader(longest_s=self._config.worker.longest_read_s, stop=self._stop)) as reader,
            ):
                return self._compare(reader, stored, old, later, path)
        except Stopped:
            raise InterruptedError(errno.EINTR, "the receiver stops") from None

    def _compare(self, reader: ViewReader, stored: StoredVersion, old: Path, later: Instance, new: Path) -> Judgement:
        if later.state != "candidate":
            same = (stored.state, stored.reason) == (later.state, later.reason) and _differing(old, new) == ()
            return Judgement(verdict=Verdict.SAME, reason="") if same else _other(f"it is {later.state}")
        found = self._read(reader, new)
        if isinstance(found, str):
            return _other(f"its pixels cannot be used ({found})")
        if stored.without_result:
            return Judgement(verdict=Verdict.BETTER, reason=stored.without_result)
        before = self._read(reader, old)
        if isinstance(before, str):
            return Judgement(verdict=Verdict.BETTER, reason=before)
        return judge_readable(before, found, old, new)

    def _read(self, reader: ViewReader, path: Path) -> Mammogram | str:
        """The mammogram, or why it cannot be read."""
        try:
            return reader.read(path, for_processing=self._config.accept.for_processing)
        except GlamError as error:
            return error.message_for(Caller.APPLIANCE)


def judge_readable(stored: Mammogram, later: Mammogram, old: Path, new: Path) -> Judgement:
    """The verdict SAME or OTHER on two versions that can both be read, of the files `old` and `new`."""
    if stored.pixels.shape != later.pixels.shape or (stored.pixels != later.pixels).any():
        return _other("other pixels")
    differing = _differing(old, new)
    if differing is None:
        return _other("equal pixels, but a header that cannot be compared")
    if differing:
        return _other(f"equal pixels, but other {', '.join(differing)}")
    return Judgement(verdict=Verdict.SAME, reason="")


def _differing(old: Path, new: Path) -> tuple[str, ...] | None:
    """Keywords of the elements that differ; None if they cannot be compared."""
    try:
        return differing_elements(old, new)
    except GlamError:
        return None


def _other(reason: str) -> Judgement:
    return Judgement(verdict=Verdict.OTHER, reason=reason)
