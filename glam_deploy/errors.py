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

A message says what was wrong, the value, what was expected and what to do. It holds no patient identifier.
`exit_code` is what the command line ends with: 1 inputs failed, 2 wrong usage, 3 this machine lacks something,
4 parity, integrity or a gate failed, or an engine could not be built or run.
"""

import traceback
from pathlib import Path


class GlamError(Exception):
    """Base of all; never raised itself."""

    exit_code = 1


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


def fault(error: BaseException) -> str:
    """What happened and where, without the exception's own text, in which a library may quote a header."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "glam_deploy" in frame.filename] or frames
    where = f" in {ours[-1].name}, line {ours[-1].lineno} of {Path(ours[-1].filename).name}" if ours else ""
    what = f" ({error.name})" if isinstance(error, ImportError) else ""
    return f"{type(error).__name__}{what}{where}"
