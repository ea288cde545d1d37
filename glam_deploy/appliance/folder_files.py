"""The mammograms in a folder of `run-dir`: one file for each SOP Instance UID, and why other files are not used.

A folder has no order in time, so that of two different images under one SOP Instance UID none is known to be the right
one. Both fail then: results refer to an image by this UID, and a viewer could show them on the other image.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.identity import with_valid_uids
from glam_deploy.appliance.versions import Verdict, judge_readable
from glam_deploy.appliance.work.predictor import Predictor
from glam_deploy.dicom.read import read_view
from glam_deploy.dicom.received import Received, examine
from glam_deploy.dicom.uids import digest
from glam_deploy.dicom.versions import contradicting_elements
from glam_deploy.errors import (
    BackendRunError,
    Caller,
    DicomError,
    GlamError,
    InputError,
    NotForThisNetwork,
    unreadable,
)
from glam_deploy.images import image_files
from glam_deploy.input_files import find_inputs, head_of, is_dicom
from glam_deploy.outputs.writer import is_result
from glam_deploy.records import Mammogram
from glam_deploy.unchanged import Snapshot, holding


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A mammogram of the folder, as a DICOM file."""

    sha256: str
    """Of the file; of all files where several contradict each other."""
    snapshot: Snapshot
    received: Received

    @property
    def path(self) -> Path:
        return self.snapshot.path


@dataclass(frozen=True, kw_only=True)
class UnusedFile:
    """A file that gets no result, and the reason."""

    file: str
    """Relative to the folder of inputs."""
    status: str
    """"skipped" or "failed"."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class FolderFiles:
    """The files of a folder. Each is in one of the two lists, with its outcome or before it."""

    mammograms: Sequence[SourceFile]
    """At most one for each study and SOP Instance UID; "refused" where the files of a UID contradict each other."""
    unused: Sequence[UnusedFile]


@dataclass(frozen=True, kw_only=True)
class _Unusable:
    """Why a file gives no result."""

    status: str
    """As `UnusedFile.status`."""
    reason: str


def examine_folder(folder: Path, predictor: Predictor, config: Config) -> FolderFiles:
    """Choose the file of each mammogram in `folder`.

    Of files with the same SOP Instance UID, those with the bytes of another one are skipped, and so are those with the
    same image in another encoding, and damaged copies of an image that another file has intact. If none can be read,
    each fails with its own reason. Files with different images under one UID all fail. Raises UsageError if the folder
    holds no file that may be an image.
    """
    return _FolderReader(folder, predictor, config).files()


class _FolderReader:
    def __init__(self, folder: Path, predictor: Predictor, config: Config) -> None:
        self._folder, self._predictor = folder, predictor
        self._for_processing = config.accept.for_processing
        self._mammograms: list[SourceFile] = []
        self._unused: list[UnusedFile] = []

    def files(self) -> FolderFiles:
        by_uid: dict[str, list[SourceFile]] = {}
        for path in find_inputs([self._folder]):
            if is_result(path):
                continue
            found = self._examined(path)
            if isinstance(found, _Unusable):
                self._leave(path, found.status, found.reason)
            else:
                by_uid.setdefault(found.received.sop_uid, []).append(found)
        for same_uid in by_uid.values():
            self._choose([*self._without_duplicates(same_uid)])
        return FolderFiles(mammograms=self._mammograms, unused=self._unused)

    def _examined(self, path: Path) -> SourceFile | _Unusable:
        """The mammogram in a file, if it is one that can be identified."""
        try:
            path.stat()
            if path.suffix.lower() in image_files.SUFFIXES:
                return _Unusable(status="skipped", reason="the file is not DICOM")
            if not is_dicom(head_of(path)):
                return _Unusable(status="failed", reason=_foreign_content(path))
            snapshot = Snapshot.of(path)
            with snapshot.holding():
                received = with_valid_uids(examine(path, for_processing=self._for_processing, caller=Caller.RUN_DIR))
            snapshot.require_unchanged()
            if not received.is_mammogram:
                return _Unusable(status="skipped", reason=received.reason)
        except GlamError as error:
            return _unusable(error)
        except OSError as error:
            reason = f"the file cannot be read {unreadable(error)}"
            return _Unusable(status="failed", reason=reason)
        return SourceFile(sha256=snapshot.sha256, snapshot=snapshot, received=received)

    def _leave(self, path: Path, status: str, reason: str) -> None:
        self._unused.append(UnusedFile(file=self._name(path), status=status, reason=reason))

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._folder))

    def _without_duplicates(self, files: Iterable[SourceFile]) -> Iterator[SourceFile]:
        """The first file of each content."""
        first: dict[str, SourceFile] = {}
        for file in files:
            if (owner := first.setdefault(file.sha256, file)) is file:
                yield file
            else:
                self._leave(file.path, "skipped", f"a duplicate: it has the same bytes as {self._name(owner.path)}")

    def _choose(self, versions: Sequence[SourceFile]) -> None:
        """Take one of the files with the same SOP Instance UID and different bytes, or refuse all of them."""
        if len(versions) == 1:
            self._mammograms += versions
            return
        failures: dict[Path, _Unusable] = {}
        with holding(file.snapshot for file in versions):
            conflict = self._conflict(versions, failures)
        if conflict:
            self._refuse(versions, conflict)
            return
        used = next((file for file in versions if file.path not in failures), versions[0])
        self._mammograms.append(used)
        for file in versions:
            if file is not used:
                self._leave_version(file, failures.get(file.path), used, is_intact=used.path not in failures)

    def _leave_version(self, file: SourceFile, failure: _Unusable | None, used: SourceFile, *, is_intact: bool) -> None:
        """Leave a copy of the image in the file `used`."""
        name = self._name(used.path)
        if failure is None:
            self._leave(file.path, "skipped", f"it holds the same image as {name}, in another encoding")
        elif is_intact:
            self._leave(file.path, "skipped", f"a damaged copy of {name}, which is used instead: {failure.reason}")
        else:
            self._leave(file.path, failure.status, failure.reason)

    def _conflict(self, versions: Sequence[SourceFile], failures: dict[Path, _Unusable]) -> str:
        """In what the versions contradict each other; "" if they are copies of one image.

        `failures` gets those that give no result.
        """
        readable: tuple[SourceFile, Mammogram] | None = None
        for file in versions:
            found = self._read(file)
            if isinstance(found, _Unusable):
                failures[file.path] = found
            elif readable is None:
                readable = file, found
            else:
                judgement = judge_readable(readable[1], found, readable[0].path, file.path)
                if judgement.verdict is not Verdict.SAME:
                    return judgement.reason
        reference = readable[0] if readable else versions[0]
        others = (file for file in versions if file is not reference)
        differing = {keyword for file in others for keyword in _contradictions(reference, file)}
        return f"other {', '.join(sorted(differing))}" if differing else ""

    def _read(self, file: SourceFile) -> Mammogram | _Unusable:
        """The mammogram, if the network can take it."""
        if file.received.state != "candidate":
            status = "skipped" if file.received.state == "skipped" else "failed"
            return _Unusable(status=status, reason=file.received.reason)
        try:
            mammogram = read_view(file.path, for_processing=self._for_processing)
            self._predictor.prepare(mammogram)
        except BackendRunError:
            raise
        except GlamError as error:
            return _unusable(error)
        return mammogram

    def _refuse(self, versions: Sequence[SourceFile], conflict: str) -> None:
        """Let all versions fail: one of each study in the study's reports, the others as unused files."""
        reason = _conflict_reason(versions, conflict)
        views = {file.received.view for file in versions}
        studies: dict[str, SourceFile] = {}
        for file in versions:
            if studies.setdefault(file.received.study_uid, file) is not file:
                self._leave(file.path, "failed", reason)
        for file in studies.values():
            view = file.received.view if len(views) == 1 else None
            self._mammograms.append(
                SourceFile(
                    sha256=digest(*(each.sha256 for each in versions)),
                    snapshot=file.snapshot,
                    received=replace(file.received, state="refused", view=view, reason=reason),
                )
            )


def _foreign_content(path: Path) -> str:
    """Why a file that does not begin as a DICOM file is not read, with a remedy."""
    try:
        kind = image_files.image_kind(path, head_of(path))
    except InputError as error:
        return error.message_for(Caller.RUN_DIR)
    return f"the content is {kind}, expected DICOM: send the DICOM object of the image"


def _unusable(error: GlamError) -> _Unusable:
    status = "skipped" if isinstance(error, NotForThisNetwork) else "failed"
    return _Unusable(status=status, reason=error.message_for(Caller.RUN_DIR))


def _contradictions(reference: SourceFile, file: SourceFile) -> Sequence[str]:
    """Keywords of the elements that both files state, with different values."""
    try:
        return contradicting_elements(reference.path, file.path)
    except DicomError:  # the end of a header is missing
        one, other = reference.received, file.received
        pairs = {
            "StudyInstanceUID": (one.study_uid, other.study_uid),
            "SeriesInstanceUID": (one.series_uid, other.series_uid),
            "SOPClassUID": (one.sop_class, other.sop_class),
            "PatientID": (one.patient.strip("\0"), other.patient.strip("\0")),
            "ImageLaterality or ViewCodeSequence": (one.view, other.view),
        }
        return [keyword for keyword, (value, found) in pairs.items() if value and found and value != found]


def _conflict_reason(versions: Sequence[SourceFile], conflict: str) -> str:
    """Why files of one UID have no result; for reports too, so that it contains no file name."""
    views = sorted({str(file.received.view) for file in versions if file.received.view})
    stated = f" (views {', '.join(views)})" if views else ""
    return (
        f"{len(versions)} files contradict each other under one SOP Instance UID{stated}: {conflict}. None is used, "
        "because results refer to an image by this UID: give each image a UID of its own at the source, or leave only "
        "the right file in the folder"
    )
