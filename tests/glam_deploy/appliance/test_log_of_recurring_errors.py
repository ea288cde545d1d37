"""A full disk is logged at once and then every minute, however many threads meet it how often."""

import logging

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
