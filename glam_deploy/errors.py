"""Every error that glam-deploy raises on purpose.

GlamError
├── InputError            an image cannot be used
│   ├── DicomError        a DICOM object is broken, contradictory or against the acceptance rules
│   └── NotForThisNetwork a sound object that the network was never made for: skipped, with the reason
├── UsageError            a command, option or argument is wrong
├── CheckpointError       a file of weights cannot be loaded
├── BundleError           a bundle is damaged, incomplete or too new
├── BackendError
│   ├── BackendUnavailable   this machine lacks what was asked for
│   ├── BackendBuildError    a graph could not be turned into an engine
│   └── BackendRunError      an engine failed, or computed numbers that are not finite
├── PeerError             another node of the network cannot be reached, or turns us away
│   ├── PeerBroke            it let us in, and then broke off or fell silent
│   └── PeerDeclined         it answers, but not to this kind of request
├── ParityError           a graph or engine disagrees with its reference
└── InternalError         a fault of glam-deploy itself, met while working on one input

A message says what was wrong, the value, what was expected and what to do. It holds no patient identifier. What to do
may depend on who asked: see `Remedy` and `GlamError.told`.
`exit_code` is what the command line ends with: 1 inputs failed, 2 wrong usage, 3 this machine lacks something,
4 parity, integrity or a gate failed, or an engine could not be built or run.
"""

import traceback
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Self


class Caller(Enum):
    """Who reads an error, and so what can be done from there."""

    PYTHON = "a Python program"
    RUN = "glam-deploy run"
    GATE = "glam-deploy gate"
    CALIBRATION = "glam-deploy export --calibration"
    APPLIANCE = "glam-deploy serve and run-dir"


class Remedy(Enum):
    """What to do about an error where that depends on the caller; `GlamError.told` words it."""

    NAME_VIEW = "say which view it is"
    OTHER_VIEW = "say another laterality"
    FLIP = "say that the image is stored mirrored"
    NO_FLIP = "do not say that the image is stored mirrored"
    CORRECT_TAGS = "correct the DICOM tags of laterality and orientation"
    FOR_PROCESSING = "allow For Processing images"
    STANDARDIZED = "say that the input is standardized"
    RAW = "say that the input is a view as it left the detector"


_VIEWS = "one of L-CC, R-CC, L-MLO, R-MLO"
_AT_SOURCE = "have ImageLaterality and PatientOrientation corrected where the image comes from, and send it again"
_STORED = "store the image upright, a left breast facing right, or a DICOM object with its PatientOrientation"
_MODIFY = "correct ImageLaterality or PatientOrientation in the object, for example with dcmodify of DCMTK"
_TAKES_RAW = "give the view as it left the detector; a standardized array is not taken here"

WORDING: Mapping[Remedy, Mapping[Caller, str]] = MappingProxyType(
    {
        Remedy.NAME_VIEW: {
            Caller.PYTHON: f"pass view=, {_VIEWS}",
            Caller.RUN: f"name it with --view, {_VIEWS}",
            Caller.GATE: f"name it with --view, {_VIEWS}",
            Caller.CALIBRATION: "write it into the name of a PNG, TIFF or npy file, as in 0_L-CC.png, or into the tags "
            f"of a DICOM object ({_VIEWS})",
            Caller.APPLIANCE: "have ImageLaterality and ViewCodeSequence corrected where the image comes from, and "
            "send it again",
        },
        Remedy.OTHER_VIEW: {
            Caller.PYTHON: f"pass the right view=, {_VIEWS}",
            Caller.RUN: f"give the right --view, {_VIEWS}",
            Caller.GATE: f"give the right --view, {_VIEWS}",
            Caller.CALIBRATION: f"correct the view in the file name, {_VIEWS}",
            Caller.APPLIANCE: _AT_SOURCE,
        },
        Remedy.FLIP: {
            Caller.PYTHON: "say horizontal_flip=True",
            Caller.RUN: "add --horizontal-flip",
            Caller.GATE: _STORED,
            Caller.CALIBRATION: _STORED,
            Caller.APPLIANCE: _AT_SOURCE,
        },
        Remedy.NO_FLIP: {
            Caller.PYTHON: "say horizontal_flip=False",
            Caller.RUN: "leave --horizontal-flip off",
            Caller.GATE: _STORED,
            Caller.CALIBRATION: _STORED,
            Caller.APPLIANCE: _AT_SOURCE,
        },
        Remedy.CORRECT_TAGS: dict.fromkeys(Caller, _MODIFY) | {Caller.APPLIANCE: _AT_SOURCE},
        Remedy.FOR_PROCESSING: {
            Caller.PYTHON: "allow it with for_processing=True",
            Caller.RUN: "allow it with --for-processing",
            Caller.GATE: "choose For Presentation images for the gate",
            Caller.CALIBRATION: "choose For Presentation images for the calibration",
            Caller.APPLIANCE: "allow it with accept.for_processing in the configuration or --for-processing of run-dir",
        },
        Remedy.STANDARDIZED: {
            Caller.PYTHON: "pass the array from numpy.load to the pipeline, without view=",
            Caller.RUN: "add --standardized",
            Caller.GATE: "add --standardized",
            Caller.CALIBRATION: _TAKES_RAW,
            Caller.APPLIANCE: _TAKES_RAW,
        },
        Remedy.RAW: {
            Caller.PYTHON: f"pass view= with it, {_VIEWS}",
            Caller.RUN: f"leave --standardized off and name the view with --view, {_VIEWS}",
            Caller.GATE: f"leave --standardized off and name the view with --view, {_VIEWS}",
            Caller.CALIBRATION: _TAKES_RAW,
            Caller.APPLIANCE: _TAKES_RAW,
        },
    }
)


class GlamError(Exception):
    """Base of all; never raised itself.

    `str` of it is what a Python caller reads. Another edge asks `told` for its own wording of the remedies.
    """

    exit_code = 1

    def __init__(self, message: str = "", *remedies: Remedy) -> None:
        """`message` says what is wrong and what was expected; `remedies`, any of which helps, end it."""
        super().__init__(message)
        self.remedies = remedies

    def __str__(self) -> str:
        return self.told(Caller.PYTHON)

    def told(self, caller: Caller) -> str:
        """The message, ended by what `caller` can do about it."""
        message = super().__str__()
        advice = " or ".join(dict.fromkeys(WORDING[remedy][caller] for remedy in self.remedies))
        return f"{message}: {advice}" if advice else message

    def worded(self, caller: Caller) -> Self:
        """The same error, whose `str` is what `told` says to `caller`; its traceback is kept."""
        return type(self)(self.told(caller)).with_traceback(self.__traceback__)


class InputError(GlamError):
    """An image cannot be used as it is."""


class DicomError(InputError):
    """A DICOM object is broken, contradicts itself or is against the acceptance rules."""


class NotForThisNetwork(InputError):
    """A sound object that GLAM was never made for (tomosynthesis, a magnification view): skipped, never guessed at."""


class UsageError(GlamError):
    """A command, option or argument is wrong."""

    exit_code = 2


class CheckpointError(GlamError):
    """A file of weights cannot be loaded into the network."""


class BundleError(GlamError):
    """A bundle is damaged, incomplete, or newer than this release."""

    exit_code = 4


class BackendError(GlamError):
    """Base of all that concerns an engine."""


class BackendUnavailable(BackendError):
    """This machine lacks the package, device or file that the engine needs."""

    exit_code = 3


class BackendBuildError(BackendError):
    """A graph could not be turned into an engine."""

    exit_code = 4


class BackendRunError(BackendError):
    """An engine failed while running, or its numbers are not finite."""

    exit_code = 4


class PeerError(GlamError):
    """Another node of the network cannot be reached, or turns us away: nothing is said of what was to be sent."""

    exit_code = 3


class PeerBroke(PeerError):
    """The other node let us in, and then broke off or fell silent: perhaps because of what it was being sent."""


class PeerDeclined(PeerError):
    """The other node answers, but not to this kind of request: it does not offer the service, or not to us."""


class ParityError(GlamError):
    """A graph or an engine disagrees with its reference by more than the stated tolerance."""

    exit_code = 4


class InternalError(GlamError):
    """A fault of glam-deploy itself, met while working on one input; the others go on."""


def disk_reason(error: OSError) -> str:
    """Why a file cannot be read, without its name: "Permission denied"."""
    return error.strerror or "the system does not say why"


def fault(error: BaseException) -> str:
    """What happened and where, without the exception's own text, in which a library may quote a header."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "glam_deploy" in frame.filename] or frames
    where = f" in {ours[-1].name}, line {ours[-1].lineno} of {Path(ours[-1].filename).name}" if ours else ""
    what = f" ({error.name})" if isinstance(error, ImportError) else ""
    return f"{type(error).__name__}{what}{where}"
