"""Findings of `doctor` about the copy of `[standby]`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from glam_deploy.cli.doctor_findings import Finding, Processes, fails, note, ok
from glam_deploy.installation import page

if TYPE_CHECKING:
    from glam_deploy.appliance.config import Config

WHAT = "standby"
OLD_COPIES = 6
"""Copies that may be missed, each of `every_s` and a minute, before the copy counts as old."""


def standby(config: "Config", known: Processes) -> Iterator[Finding]:
    """`known`: the last heartbeat of every process and of the copy."""
    from glam_deploy.appliance.backup.replication import COMPONENT, fence_of

    fence = fence_of(config)
    if fence is None:
        return
    last = known.get(COMPONENT)
    if reason := fence.hold():
        yield fails(WHAT, reason, f"{page('operations.md')}, Two nodes: nothing is delivered until then")
    elif last is None:
        yield note(WHAT, f"nothing has been copied to {fence.copy.root} yet", "the appliance does when it runs")
    elif last.state != "ready":
        yield fails(
            WHAT, str(last.detail.get("reason", "the copy failed")), "correct it: the second node has an old copy"
        )
    elif last.age > OLD_COPIES * (config.standby.every_s + 60):
        yield fails(WHAT, f"the copy in {fence.copy.root} is {last.age:.0f} s old", "see the log of the keeper")
    else:
        yield ok(WHAT, f"the copy in {fence.copy.root} is {last.age:.0f} s old")
