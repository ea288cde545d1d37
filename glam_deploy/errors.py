"""All errors that glam-deploy raises.

GlamError
├── InputError            an image cannot be used
│   ├── DicomError        a DICOM object is damaged, contradictory or violates the acceptance rules
│   │   └── IncompleteObject  the end of a DICOM object, or a part of its pixels, is missing
│   └── NotForThisNetwork a valid object of a kind that the network was not made for: skipped with a reason
├── UsageError            a command, option or argument is wrong
├── CheckpointError       a file of weights cannot be loaded
├── BundleError           a bundle is damaged, incomplete or too new
├── BackendError
│   ├── BackendUnavailable   this machine does not have a required package, device or file
│   ├── BackendBuildError    an engine could not be built from a graph
│   └── BackendRunError      an engine failed, or computed numbers that are not finite
│       └── GpuLost             a GPU failed, and this process can use no GPU any more
├── PeerError             another network node cannot be reached, or denies access
│   ├── PeerBroke            the node accepted the connection, and then ended it or stopped responding
│   └── PeerDeclined         the node responds, but does not support or allow this request
├── ParityError           a graph or engine disagrees with its reference
└── InternalError         an internal error of glam-deploy while processing one input

A message states what was wrong, the value, what was expected and what to do. It contains no patient identifier. What to
do may depend on the caller: see `Remedy` and `GlamError.message_for`.
`exit_code` is the exit code of the command line: 1 inputs failed, 2 wrong usage, 3 this machine does not have something
that is required, 4 parity, integrity or a gate failed, an engine could not be built or run, or the bundle lacks the
graphs that an engine needs.
"""

import errno
import traceback
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Self, TypeVar

T = TypeVar("T")
U = TypeVar("U")
E = TypeVar("E", bound=BaseException)


class Caller(Enum):
    """The program or command that reports an error, on which the possible remedies depend."""

    PYTHON = "a Python program"
    RUN = "glam-deploy run"
    GATE = "glam-deploy gate"
    CALIBRATION = "glam-deploy export --calibration"
    EVALUATE = "glam-deploy evaluate"
    APPLIANCE = "glam-deploy serve"
    RUN_DIR = "glam-deploy run-dir"
    SERVER = "a client of a model server"
    ARCHIVE = "glam-deploy archive"


class Remedy(Enum):
    """Remedy of an error whose text depends on the caller; `WORDING` has the texts."""

    NAME_VIEW = "state the view"
    VIEW_OF_PICTURE = "state the view of a file without tags"
    OTHER_VIEW = "state another laterality"
    FLIP = "state that the image is stored mirrored"
    NO_FLIP = "do not state that the image is stored mirrored"
    CORRECT_TAGS = "correct the DICOM tags of laterality and orientation"
    FOR_PROCESSING = "allow For Processing images"
    STANDARDIZED = "state that the input is standardized"
    RAW = "state that the input is a raw view"
    UNGATED = "use an engine without a gate"
    OTHER_BUNDLE = "name another bundle"
    EQUAL_GPUS = "name GPUs of one model only"
    FLAVOUR = "choose a flavour of TensorRT"
    EXPORT_AGAIN = "export the image again"
    READ_LONGER = "allow more time for reading"


_VIEWS = "one of L-CC, R-CC, L-MLO, R-MLO"
_VIEW_IN_NAME = (
    "write it into the name of a PNG, TIFF or npy file, as in 0_L-CC.png, or into the tags of a DICOM object "
    f"({_VIEWS})"
)
_AT_SOURCE = "correct ImageLaterality and PatientOrientation at the source of the image, and send it again"
_VIEW_AT_SOURCE = "correct ImageLaterality and ViewCodeSequence at the source of the image, and send it again"
_AS_DICOM = "send the DICOM object of the view, whose tags state it"
_STORED = "store the image upright, with a left breast facing right, or as a DICOM object with PatientOrientation"
_EXPORT_AGAIN = "export it again, if possible in another transfer syntax"
_MODIFY = "correct ImageLaterality or PatientOrientation in the object, for example with dcmodify of DCMTK"
_TAKES_RAW = "give the view as it left the detector; a standardized array is not accepted here"

_SENT = (Caller.APPLIANCE, Caller.RUN_DIR, Caller.SERVER)
"""Callers whose images were sent by somebody else."""
_NAMED_VIEW: Mapping[Caller, str] = {
    Caller.PYTHON: f"pass view=, {_VIEWS}",
    Caller.RUN: f"name it with --view, {_VIEWS}",
    Caller.GATE: f"name it with --view, {_VIEWS}",
    Caller.CALIBRATION: _VIEW_IN_NAME,
    Caller.EVALUATE: f"write it into the column view of the list, {_VIEWS}",
    Caller.ARCHIVE: _VIEW_IN_NAME,
}

WORDING: Mapping[Remedy, Mapping[Caller, str]] = MappingProxyType(
    {
        Remedy.NAME_VIEW: {**dict.fromkeys(Caller, _VIEW_AT_SOURCE), **_NAMED_VIEW},
        Remedy.VIEW_OF_PICTURE: {**dict.fromkeys(Caller, _AS_DICOM), **_NAMED_VIEW},
        Remedy.OTHER_VIEW: {
            Caller.PYTHON: f"pass the correct view=, {_VIEWS}",
            Caller.RUN: f"give the correct --view, {_VIEWS}",
            Caller.GATE: f"give the correct --view, {_VIEWS}",
            Caller.CALIBRATION: f"correct the view in the file name, {_VIEWS}",
            Caller.EVALUATE: f"correct the column view of the list, {_VIEWS}",
            Caller.APPLIANCE: _AT_SOURCE,
            Caller.RUN_DIR: _AT_SOURCE,
            Caller.SERVER: _AT_SOURCE,
            Caller.ARCHIVE: f"correct the view in the file name, or {_MODIFY}",
        },
        Remedy.FLIP: dict.fromkeys(Caller, _STORED)
        | dict.fromkeys(_SENT, _AT_SOURCE)
        | {Caller.PYTHON: "pass horizontal_flip=True", Caller.RUN: "add --horizontal-flip"},
        Remedy.NO_FLIP: dict.fromkeys(Caller, _STORED)
        | dict.fromkeys(_SENT, _AT_SOURCE)
        | {Caller.PYTHON: "pass horizontal_flip=False", Caller.RUN: "omit --horizontal-flip"},
        Remedy.CORRECT_TAGS: dict.fromkeys(Caller, _MODIFY) | dict.fromkeys(_SENT, _AT_SOURCE),
        Remedy.FOR_PROCESSING: {
            Caller.PYTHON: "allow it with for_processing=True",
            Caller.RUN: "allow it with --for-processing",
            Caller.GATE: "choose For Presentation images for the gate",
            Caller.CALIBRATION: "choose For Presentation images for the calibration",
            Caller.EVALUATE: "choose For Presentation images for the evaluation",
            Caller.APPLIANCE: "allow it with `for_processing = true` in the table [accept] of the configuration",
            Caller.RUN_DIR: "allow it with --for-processing",
            Caller.SERVER: "send the For Presentation image; this service takes no For Processing images",
            Caller.ARCHIVE: "allow it with --for-processing",
        },
        Remedy.STANDARDIZED: {
            Caller.PYTHON: "pass the array from numpy.load to the pipeline, without view=",
            Caller.RUN: "add --standardized",
            Caller.GATE: "add --standardized",
            Caller.CALIBRATION: _TAKES_RAW,
            Caller.EVALUATE: _TAKES_RAW,
            Caller.APPLIANCE: _TAKES_RAW,
            Caller.RUN_DIR: _TAKES_RAW,
            Caller.SERVER: "send the standardized array as the input IMAGE",
            Caller.ARCHIVE: _TAKES_RAW,
        },
        Remedy.RAW: {
            Caller.PYTHON: f"pass view= with it, {_VIEWS}",
            Caller.RUN: f"omit --standardized and name the view with --view, {_VIEWS}",
            Caller.GATE: f"omit --standardized and name the view with --view, {_VIEWS}",
            Caller.CALIBRATION: _TAKES_RAW,
            Caller.EVALUATE: _TAKES_RAW,
            Caller.APPLIANCE: _TAKES_RAW,
            Caller.RUN_DIR: _TAKES_RAW,
            Caller.SERVER: "send the view as a DICOM object, as the input DICOM",
            Caller.ARCHIVE: _TAKES_RAW,
        },
        Remedy.UNGATED: dict.fromkeys(Caller, "add --ungated")
        | {
            Caller.PYTHON: "pass ungated=True",
            Caller.GATE: "with `ungated`, in the commands that make results",
            Caller.CALIBRATION: "with `ungated`, in the commands that make results",
            Caller.APPLIANCE: "set `ungated = true` in the table [worker] of the configuration",
            Caller.SERVER: "the operator of this service can make its repository again with `ungated`",
        },
        Remedy.OTHER_BUNDLE: dict.fromkeys(Caller, "give the path of another with --bundle or GLAM_BUNDLE")
        | {
            Caller.PYTHON: "pass the path of another",
            Caller.CALIBRATION: "give the path of another",
            Caller.APPLIANCE: "set `bundle` in the table [worker] of the configuration to the path of another",
            Caller.SERVER: "the operator of this service can make its repository again from another",
        },
        Remedy.EQUAL_GPUS: dict.fromkeys(Caller, "give GPUs of one model in --device")
        | {
            Caller.PYTHON: "pass GPUs of one model in device=",
            Caller.CALIBRATION: "use GPUs of one model",
            Caller.EVALUATE: "use GPUs of one model",
            Caller.ARCHIVE: "use GPUs of one model",
            Caller.APPLIANCE: "name GPUs of one model as `device` in the table [worker] of the configuration",
            Caller.SERVER: "the operator of this service can choose GPUs of one model",
        },
        Remedy.FLAVOUR: dict.fromkeys(Caller, "choose one with --flavour")
        | {
            Caller.PYTHON: "choose one with flavour=",
            Caller.CALIBRATION: "uninstall one of them",
            Caller.EVALUATE: "uninstall one of them",
            Caller.APPLIANCE: "uninstall one of them in the environment of the appliance",
            Caller.SERVER: "the operator of this service can uninstall one of them",
        },
        Remedy.EXPORT_AGAIN: dict.fromkeys(Caller, _EXPORT_AGAIN),
        Remedy.READ_LONGER: dict.fromkeys(Caller, _EXPORT_AGAIN)
        | {
            Caller.APPLIANCE: "raise `longest_read_s` in the table [worker] of the configuration, or export it again",
            Caller.ARCHIVE: "if the machine was busy, try it again with --retry-failed; else export it again",
        },
    }
)


class GlamError(Exception):
    """Base class of all errors, never raised itself.

    `str` gives the message with remedies for a Python program, `message_for` that with remedies for another caller.
    """

    exit_code = 1

    def __init__(self, message: str = "", *remedies: Remedy) -> None:
        """`message` states what is wrong and what was expected; `remedies` are alternatives, appended to it."""
        super().__init__(message)
        self.remedies = remedies

    def __str__(self) -> str:
        return self.message_for(Caller.PYTHON)

    def message_for(self, caller: Caller) -> str:
        """The message, followed by the remedies for `caller`."""
        message = super().__str__()
        advice = " or ".join(dict.fromkeys(WORDING[remedy][caller] for remedy in self.remedies))
        return f"{message}: {advice}" if advice else message

    def with_message_for(self, caller: Caller) -> Self:
        """A copy of the error whose `str` is `message_for(caller)`, with the same traceback."""
        return type(self)(self.message_for(caller)).with_traceback(self.__traceback__)


class InputError(GlamError):
    """An image cannot be used as it is."""


class DicomError(InputError):
    """A DICOM object is damaged, contradictory or violates the acceptance rules."""


class IncompleteObject(DicomError):
    """The end of a DICOM object, or a part of its pixels, is missing: it was cut when it was written or sent."""


class NotForThisNetwork(InputError):
    """A valid object of a kind that GLAM was not made for (tomosynthesis, a magnification view): it is skipped."""


class UsageError(GlamError):
    """A command, option or argument is wrong."""

    exit_code = 2


class CheckpointError(GlamError):
    """A file of weights cannot be loaded into the network."""


class BundleError(GlamError):
    """A bundle is damaged, incomplete, or newer than this release."""

    exit_code = 4


class BackendError(GlamError):
    """Base class of all errors of engines."""


class BackendUnavailable(BackendError):
    """This machine does not have a package, device or file that the engine requires."""

    exit_code = 3


class BackendBuildError(BackendError):
    """An engine could not be built from a graph."""

    exit_code = 4


class BackendRunError(BackendError):
    """An engine failed while running, or its numbers are not finite."""

    exit_code = 4


class GpuLost(BackendRunError):
    """A call of the CUDA driver or of a GPU library has failed: no further results until a new process is started."""


class PeerError(GlamError):
    """Another network node cannot be reached, or denies access, independent of the objects to be sent."""

    exit_code = 3


class PeerBroke(PeerError):
    """The node accepted the connection, and then ended it or stopped responding, perhaps because of the object sent."""


class PeerDeclined(PeerError):
    """The node responds, but does not support or allow this kind of request."""


class ParityError(GlamError):
    """A graph or an engine disagrees with its reference by more than the stated tolerance."""

    exit_code = 4


class InternalError(GlamError):
    """An internal error of glam-deploy while processing one input; other inputs are still processed."""


def counted(count: int, noun: str) -> str:
    """A number with its noun in the singular or plural, for messages: "1 image", "4 images"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def disk_reason(error: OSError) -> str:
    """Why a file cannot be read, without its name: "Permission denied"."""
    return error.strerror or "the system gives no reason"


def unreadable(error: OSError) -> str:
    """Why a file cannot be read, and a remedy: "(Permission denied): check its path and rights"."""
    return f"({disk_reason(error)}): {_READ_REMEDIES.get(error.errno or 0, 'check its path and rights')}"


_READ_REMEDIES: Mapping[int, str] = MappingProxyType(
    {errno.ENAMETOOLONG: "shorten the names of its folders", errno.ESTALE: "run again when it rests"}
)


def unwritable(error: OSError) -> str:
    """Why a folder or file cannot be written, and a remedy: "(No space left on device): free disk space"."""
    return f"({error.strerror or error}): {_WRITE_REMEDIES.get(error.errno or 0, _WRITE_REMEDY)}"


_WRITE_REMEDY = "free disk space, or change the permissions"
_MOUNTED = "it is a mount point; give a folder inside it"
_NO_FOLDER = "move the file away that is in the place of a folder"
_WRITE_REMEDIES: Mapping[int, str] = MappingProxyType(
    {
        errno.ENOSPC: "free disk space",
        errno.EBADF: "it is closed, redirect it",
        errno.EDQUOT: "free disk space within the quota",
        errno.EROFS: "mount the file system writable",
        errno.EACCES: "give this user the right to write there",
        errno.EPERM: "give this user the right to write there",
        errno.EEXIST: _NO_FOLDER,
        errno.ENOTDIR: _NO_FOLDER,
        errno.ENOENT: "check that the folders above it, and the current folder, exist",
        errno.EXDEV: _MOUNTED,
        errno.EBUSY: _MOUNTED,
    }
)
"""Number of an error of the system -> what makes the folder writable."""


def fault(error: BaseException) -> str:
    """Type and location of an exception, without its message, in which a library may quote a header."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "glam_deploy" in frame.filename] or frames
    where = f" in {ours[-1].name}, line {ours[-1].lineno} of {Path(ours[-1].filename).name}" if ours else ""
    module = f" ({error.name})" if isinstance(error, ImportError) else ""
    return f"{type(error).__name__}{module}{where}"


def internal_error(error: Exception) -> InternalError:
    """The error of an exception that is a fault of this program, without the exception's message."""
    return InternalError(f"{fault(error)}. This is a fault of glam-deploy; please report it.")


def without_frames(error: E) -> E:
    """The same error without its traceback and those of its causes and contexts.

    A traceback refers to frames, and these to their images. Where a frame also holds the error, as that of a function
    which returns errors does, the images stay in memory until a garbage collection.
    """
    open_: list[BaseException | None] = [error]
    seen = set[int]()
    while open_:
        one = open_.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            open_ += [one.__cause__, one.__context__]
    return error


def attempt(
    step: Callable[[T], U], given: T | GlamError, *, unexpected: Callable[[Exception], GlamError] = internal_error
) -> U | GlamError:
    """The result or the error of a step on one of several items, so that the others go on.

    `given` as the error of an earlier step is returned as it is. `unexpected` makes the error of an exception that is a
    fault of this program; it has the traceback. The returned error has none, so that it holds no image.
    """
    if isinstance(given, GlamError):
        return given
    try:
        return step(given)
    except GlamError as error:
        return without_frames(error)
    except Exception as error:
        made = unexpected(error)
        without_frames(error)
        return made
