"""Checks of `doctor` on the entries of [[notify]]: each is connected to, without a message."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from glam_deploy.cli.doctor_findings import Finding, Processes, fails, note, ok, unknown_host
from glam_deploy.errors import GlamError
from glam_deploy.installation import quoted
from glam_deploy.regular import others_can_read

if TYPE_CHECKING:
    from glam_deploy.appliance.config import Config, Notify

TIMEOUT_S = 10.0


def notify_findings(config: "Config", processes: Processes) -> Iterator[Finding]:
    """Findings on each entry, by a connection now and by the dispatcher's state."""
    from glam_deploy.appliance.config.notify import secret_files

    for entry in config.notify:
        yield _receiver(entry, min(config.dispatch.timeout_s, TIMEOUT_S))
        yield from (_readable_by_others(entry, path) for path in secret_files(entry) if others_can_read(path))
        reported = processes.get(f"target:{entry.name}")
        if reported and reported.state != "ready":
            found = f"the dispatcher reports {reported.state}: {reported.detail.get('reason', 'no reason given')}"
            remedy = f"glam-deploy queue list; after the repair: glam-deploy queue retry --target {entry.name}"
            yield fails(_name(entry), found, remedy)


def _receiver(entry: "Notify", timeout_s: float) -> Finding:
    from glam_deploy.appliance.notify.client import client_of

    if unknown := unknown_host(_name(entry), entry):
        return unknown
    try:
        found = client_of(entry, timeout_s).check()
    except GlamError as error:  # its text names the receiver
        return fails(
            _name(entry),
            str(error),
            "notifications wait while it cannot be reached; refused ones are dead after all attempts: queue retry",
        )
    return ok(_name(entry), f"{entry.kind} at {entry.place}: {found}; told of {', '.join(entry.events)}")


def _readable_by_others(entry: "Notify", path: Path) -> Finding:
    return note(_name(entry), f"other users can read the secret in {path}", f"chmod 600 {quoted(path)}")


def _name(entry: "Notify") -> str:
    return f"notify {entry.name}"
