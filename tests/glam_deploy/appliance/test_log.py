"""The log of a process: a full disk is logged at once and then every minute, and libraries that may quote are mute."""

import logging
import subprocess
import sys

from glam_deploy.appliance.process import RECURRENCE_S, RECURRING, RecurrenceFilter


def test_a_recurring_error_is_logged_once_a_minute_and_others_always() -> None:
    now, lines = [100.0], list[str]()

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler, log = Lines(), logging.Logger("test")
    handler.addFilter(RecurrenceFilter(clock=lambda: now[0]))
    log.addHandler(handler)
    for second in range(int(2 * RECURRENCE_S)):
        now[0] = 100.0 + second
        log.error("state.db cannot be written (%s)", f"error {second}", extra=RECURRING)
    assert lines == ["state.db cannot be written (error 0)", "state.db cannot be written (error 60)"]
    log.error("the audit log cannot be written", extra=RECURRING)
    log.error("another")
    log.error("another")
    assert lines[2:] == ["the audit log cannot be written", "another", "another"]


def test_a_library_that_is_imported_later_is_mute_too() -> None:
    """pydicom sets the level of its logger then, and quotes values: identifiers that a hospital made up."""
    program = """if True:
        from glam_deploy.appliance.process import configure_logging
        configure_logging("dispatcher")
        from pydicom import Dataset
        from pydicom.uid import UID
        Dataset().StudyInstanceUID = "CANARY-of-the-hospital"
        import logging
        logging.getLogger("pynetdicom.acse").critical("CANARY")
        logging.getLogger("glam_deploy.test").error("own words")
    """
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "CANARY" not in said.stderr and "dispatcher ERROR own words" in said.stderr
