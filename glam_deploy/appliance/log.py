"""The log of a process: a line an event on standard error, without a patient's name, number or date."""

import logging
import sys
import threading
import warnings

from glam_deploy.errors import fault

_QUOTING = ("pydicom", "pynetdicom", "highdicom", "openjpeg", "httpx", "httpcore", "urllib3")
"""Libraries whose own log may quote what patients are called, or where their pictures are."""


class LastResort(logging.Handler):
    """Warnings and errors on standard error in a process where nobody has set logging up.

    Python's own (`logging.lastResort`) no longer does it, because the package's logger has a NullHandler.
    """

    def emit(self, record: logging.LogRecord) -> None:
        if not logging.getLogger().handlers and logging.lastResort:
            logging.lastResort.handle(record)


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


def _log_fall(error: BaseException | None) -> None:
    if error:
        logging.getLogger(__name__).error("a thread ended by %s", fault(error))
