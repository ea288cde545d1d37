"""The log of a process: a line an event on standard error, without a patient's name, number or date."""

import logging
import sys
import threading
import traceback
import warnings
from pathlib import Path

_QUOTING = ("pydicom", "pynetdicom", "highdicom", "openjpeg", "httpx", "httpcore", "urllib3")
"""Libraries whose own log may quote what patients are called, or where their pictures are."""


def start_log(role: str) -> None:
    """From now on, in this process: `logging` and what ends a thread go to standard error, and no warning does."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format=f"%(asctime)s {role} %(levelname)s %(message)s", force=True
    )
    logging.getLogger("glam_deploy").setLevel(logging.INFO)
    for name in _QUOTING:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    warnings.simplefilter("ignore")
    threading.excepthook = lambda fall: _log_fall(fall.exc_value)


def fault(error: BaseException) -> str:
    """What happened and where, without the exception's own text, in which a library may quote a header."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "glam_deploy" in frame.filename] or frames
    where = f" in {ours[-1].name}, line {ours[-1].lineno} of {Path(ours[-1].filename).name}" if ours else ""
    what = f" ({error.name})" if isinstance(error, ImportError) else ""
    return f"{type(error).__name__}{what}{where}"


def _log_fall(error: BaseException | None) -> None:
    if error:
        logging.getLogger(__name__).error("a thread ended by %s", fault(error))
