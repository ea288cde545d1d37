"""`glam-deploy queue`: list unfinished studies, show one, retry or discard, accept a later version of an image."""

import getpass
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from glam_deploy.cli import console
from glam_deploy.cli.check_config import data_in_use, read_config
from glam_deploy.cli.options import config_option, json_option
from glam_deploy.errors import UsageError

if TYPE_CHECKING:
    from sqlite3 import Connection, Row

    from glam_deploy.appliance.audit import Audit
    from glam_deploy.appliance.data import DataFolder
    from glam_deploy.appliance.state.study_detail import StudyDetail, StudySummary

UNFINISHED = ("receiving", "waiting", "working", "sending", "failed", "undelivered")
"""Stages with something left to do or to decide."""

STAGES = (*UNFINISHED, "done", "ignored")

as_json_option = json_option("For programs.")
study_argument = click.argument("studies", nargs=-1, required=True, metavar="STUDY...")
some_studies_argument = click.argument("studies", nargs=-1, metavar="[STUDY...]")
target_option = click.option("--target", metavar="NAME", help="Only what this target or receiver lacks; no jobs.")


@click.group("queue")
def command() -> None:
    """List what waits or failed; retry it, or give it up.

    A STUDY is its pseudonym, as in logs and on the status page (its first 4 characters or more, if they are unique), or
    its Study Instance UID.
    """


@command.command("list")
@config_option
@click.option("--stage", type=click.Choice(STAGES), metavar="NAME", help=f"Only these: {', '.join(STAGES)}.")
@click.option("--all", "everything", is_flag=True, help="Include finished studies.")
@as_json_option
def list_command(config_path: Path, stage: str | None, everything: bool, as_json: bool) -> None:
    """List studies that are not done, newest first."""
    wanted = [stage] if stage else STAGES if everything else UNFINISHED
    with closing(_connection(_data(config_path))) as connection:
        found = _lines(connection, wanted)
    if as_json:
        _print_json([asdict(line) for line in found])
        return
    for line in found:
        _print_summary(line)
    if not found:
        console.out.print("no unfinished studies")


@command.command("show")
@config_option
@study_argument
@as_json_option
def show_command(config_path: Path, studies: Sequence[str], as_json: bool) -> None:
    """Show everything recorded about a study."""
    with closing(_connection(_data(config_path))) as connection:
        found = [_detail(connection, word) for word in studies]
    if as_json:
        _print_json([_detail_json(detail) for detail in found])
        return
    for detail in found:
        _print_detail(detail)


@command.command("retry")
@config_option
@some_studies_argument
@target_option
def retry_command(config_path: Path, studies: Sequence[str], target: str | None) -> int:
    """Retry dead jobs, and results and notifications that are dead or wait for their target.

    Attempts are counted from 0, and the target is tried at once, however long it was down. With --target: only results
    for that target, or notifications to that entry of [[notify]], of all studies or of those named.
    """
    from glam_deploy.appliance.state import deliveries, jobs, notifications

    transitions = {"job": jobs.retry, "delivery": deliveries.retry, "notification": notifications.retry}
    with open_queue(config_path) as (connection, audit):
        items = _select(connection, studies, target, ("dead", "pending"))
        _warn_unconfigured(config_path, items)
        return _apply(connection, audit, items, "retried", transitions)


@command.command("discard")
@config_option
@some_studies_argument
@target_option
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def discard_command(config_path: Path, studies: Sequence[str], target: str | None, yes: bool) -> int:
    """Give up dead jobs, results and notifications for good.

    Nothing more of them is made or sent, and the audit log records it. With --target: results that are dead or wait for
    that target, of all studies or of those named; use it for a target that no longer exists. Files are removed after
    the retention time, as for every finished study.
    """
    from glam_deploy.appliance.state import deliveries, jobs, notifications

    transitions = {"job": jobs.discard, "delivery": deliveries.discard, "notification": notifications.discard}
    with open_queue(config_path) as (connection, audit):
        items = _select(connection, studies, target, ("dead", "pending") if target else ("dead",))
        if items and not yes and not click.confirm(f"discard {_counted(items)}?", err=True):
            console.err.print("nothing was discarded")
            return 1
        return _apply(connection, audit, items, "discarded", transitions)


@command.command("accept-correction")
@config_option
@study_argument
@click.option(
    "--version", "numbers", type=int, multiple=True, metavar="N", help="Only these, as `queue show` lists them."
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def accept_command(config_path: Path, studies: Sequence[str], numbers: Sequence[int], yes: bool) -> int:
    """Let a later version of an image, which is in quarantine, take the place of the stored one.

    Without --version: the latest quarantined version of each image of the study. The version before goes to quarantine,
    results that were not delivered are withdrawn, and the study is processed again; its reports replace the earlier
    ones. --version can also restore a version that was replaced.
    """
    from glam_deploy.appliance import corrections
    from glam_deploy.appliance.spool import Spool

    with open_queue(config_path) as (connection, audit):
        versions = [each for word in studies for each in corrections.acceptable(_detail(connection, word), numbers)]
        unknown = set(numbers) - {each["id"] for each in versions}
        if unknown:
            raise UsageError(f"these studies have no version {min(unknown)}: `queue show STUDY` lists the versions")
        if versions and not yes and not click.confirm(f"accept {_described(versions)}?", err=True):
            versions = []
        with closing(Spool(read_config(config_path), _data(config_path), audit)) as spool:
            for each in versions:
                corrections.accept(spool, audit, each, by=account_name())
                console.out.print(f"version {each['id']} of {each['view'] or 'an image'} accepted", soft_wrap=True)
    if not versions:
        console.err.print("nothing was accepted: no version in quarantine waits for a decision, or none was confirmed")
    return 0 if versions else 1


def _described(versions: Sequence["Row"]) -> str:
    return ", ".join(f"version {row['id']} of {row['view'] or 'an image'} ({row['reason']})" for row in versions)


Transition = Callable[[Any, int], None]
"""Changes the job, delivery or notification with this number; takes a connection."""


@dataclass(frozen=True, kw_only=True)
class QueueItem:
    """A job, delivery or notification that can be retried or discarded."""

    kind: str
    """"job", "delivery" or "notification"."""
    id: int
    study_uid: str
    pseudonym: str
    target: str | None
    """Target of a delivery, receiver of a notification; None for a job."""


_AUDIT_KINDS: Mapping[str, str] = MappingProxyType({"job": "job", "delivery": "parcel", "notification": "notification"})
"""Beginning of the audit event code by kind of item; the codes are kept because log rules of hospitals use them."""


def _select(
    connection: "Connection", studies: Sequence[str], target: str | None, states: Sequence[str]
) -> list[QueueItem]:
    """Dead jobs, and deliveries and notifications in `states`, of these studies; with `target` only those to it, of
    these studies or of all.
    """
    if target is None and not studies:
        raise UsageError("no study is given: expected a STUDY of `queue list`, or --target NAME")
    # all are looked up before any is changed: a wrong name must change nothing
    found = [item for detail in [_detail(connection, word) for word in studies] for item in _items_of(detail, states)]
    if target is None:
        return found
    of_target = _at_target(connection, target)
    return [item for item in found if item in of_target] if studies else of_target


def _items_of(detail: "StudyDetail", states: Sequence[str]) -> Iterator[QueueItem]:
    rows_of = {"job": detail.jobs, "delivery": detail.deliveries, "notification": detail.notifications}
    for kind, rows in rows_of.items():
        for row in rows:
            if row["state"] in (("dead",) if kind == "job" else states):
                target = None if kind == "job" else row["target"]
                yield QueueItem(
                    kind=kind,
                    id=row["id"],
                    study_uid=detail.study_uid,
                    pseudonym=detail.line.pseudonym,
                    target=target,
                )


def _at_target(connection: "Connection", target: str) -> list[QueueItem]:
    from glam_deploy.appliance.state import deliveries, notifications, overview

    known = [each.target for each in overview.targets(connection)]
    if target not in known:
        expected = f"expected one of {', '.join(known)}" if known else "no target has had results yet"
        raise UsageError(f"there were never results for a target {target!r}: {expected}; check --target")
    found = {"delivery": deliveries.undelivered, "notification": notifications.undelivered}
    return [QueueItem(kind=kind, **dict(row)) for kind, rows in found.items() for row in rows(connection, target)]


def _warn_unconfigured(config_path: Path, items: Sequence[QueueItem]) -> None:
    known = read_config(config_path).receivers
    for name, kind in sorted({(item.target, item.kind) for item in items if item.target and item.target not in known}):
        table = "targets" if kind == "delivery" else "notify"
        console.err.print(f"target {name} is not configured: nothing is sent to it until [[{table}]] has it")


@contextmanager
def open_queue(config_path: Path) -> Iterator[tuple["Connection", "Audit"]]:
    """The database, and the audit log, of the appliance with this configuration."""
    from glam_deploy.appliance.audit import open_audit

    data = _data(config_path)
    with closing(_connection(data)) as connection:
        yield connection, open_audit(data)


def account_name() -> str:
    """Name of the account, or its number if it has none (containers of OpenShift)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _apply(
    connection: "Connection",
    audit: "Audit",
    items: Sequence[QueueItem],
    done: str,
    transitions: Mapping[str, Transition],
) -> int:
    """Apply the transition to all items; exit code 1 if none was changed."""
    count = 0
    for item in items:
        with suppress(UsageError):  # delivered, or changed by another user, since it was looked up
            transitions[item.kind](connection, item.id)
            audit.write(f"{_AUDIT_KINDS[item.kind]}_{done}", study=item.study_uid, id=item.id, by=account_name())
            console.out.print(f"{item.pseudonym}  {item.kind} {item.id} {done}", soft_wrap=True)
            count += 1
    if not count:
        console.err.print(f"nothing was {done}: there is no dead job and nothing undelivered")
    return 0 if count else 1


def _counted(items: Sequence[QueueItem]) -> str:
    names = {"job": "dead jobs", "delivery": "undelivered result sets", "notification": "undelivered notifications"}
    counts = {name: sum(item.kind == kind for item in items) for kind, name in names.items()}
    return " and ".join(f"{count} {what}" for what, count in counts.items() if count)


def _data(config_path: Path) -> "DataFolder":
    return data_in_use(read_config(config_path))


def _connection(data: "DataFolder") -> "Connection":
    from glam_deploy.appliance.state.database import open_database

    return open_database(data.database)


def _lines(connection: "Connection", stages: Iterable[str]) -> list["StudySummary"]:
    """Every study in these stages, each once, newest first."""
    from glam_deploy.appliance.state import study_detail

    found: dict[str, StudySummary] = {}
    for stage in stages:
        page = 0
        while lines := study_detail.studies(connection, stage, page):
            found |= {line.pseudonym: line for line in lines}
            page += 1
    return sorted(found.values(), key=lambda line: line.opened_at, reverse=True)


def _detail(connection: "Connection", word: str) -> "StudyDetail":
    from glam_deploy.appliance.state import study_detail

    found = study_detail.find_studies(connection, word.lower())
    if len(found) != 1:
        names = ", ".join(line.pseudonym for line in found)
        raise UsageError(
            f"{word!r} is ambiguous, it matches {names}: give more characters"
            if found
            else f"there is no study {word!r}: expected a pseudonym of `queue list`, or a Study Instance UID"
        )
    state = study_detail.study_detail(connection, found[0].pseudonym)
    assert state
    return state


def _print_summary(line: "StudySummary") -> None:
    """Print a study in two lines, so that its pseudonym is not cut in a narrow terminal."""
    views = f"  {line.views}" if line.views else ""
    lost = f"  {line.lost} without result" if line.lost else ""
    stage = _stage_text(line)
    console.out.print(f"{line.pseudonym}  {stage}  {_clock(line.touched_at)}{views}{lost}", soft_wrap=True)
    if line.reason:
        console.out.print(f"    {line.reason}", soft_wrap=True)


def _stage_text(line: "StudySummary") -> str:
    return f"{line.stage}  {line.priority}" if line.priority else line.stage


def _print_detail(detail: "StudyDetail") -> None:
    out = console.out
    out.print(f"{detail.line.pseudonym}  {_stage_text(detail.line)}", soft_wrap=True)
    for row in detail.instances:
        state = "rejected" if row["rejected"] else row["outcome"] or row["state"]
        reason = row["view_reason"] or row["reason"]
        out.print(f"  instance {row['arrival']}  {row['view'] or '-'}  {state}{_with_reason(reason)}", soft_wrap=True)
    for row in detail.versions:
        out.print(f"  version {row['id']}  {row['view'] or '-'}  quarantine: {row['reason']}", soft_wrap=True)
    for row in reversed(detail.jobs):
        out.print(
            f"  job {row['id']}  {row['state']}{_attempts_text(row)}{_with_reason(row['reason'])}", soft_wrap=True
        )
    for row in reversed(detail.deliveries):
        arrived = f"{row['arrived']} of {row['objects']} objects"
        text = f"  delivery {row['id']} to {row['target']}  {row['state']}, {arrived}{_attempts_text(row)}"
        out.print(f"{text}{_with_reason(row['reason'])}", soft_wrap=True)
        for part in detail.parts:
            if part.delivery == row["id"]:
                out.print(f"    {part}", soft_wrap=True)
    for row in reversed(detail.notifications):
        text = f"  notification {row['id']} to {row['target']}, {row['event']}  {row['state']}{_attempts_text(row)}"
        out.print(f"{text}{_with_reason(row['reason'])}", soft_wrap=True)
    for row in detail.events:
        out.print(f"  {_clock(row['at'])}  {row['what']}{_with_reason(row['detail'])}", soft_wrap=True)


def _with_reason(reason: str | None) -> str:
    return f": {reason}" if reason else ""


def _attempts_text(row: "Row") -> str:
    return f", {row['attempts']} attempts" if row["attempts"] else ""


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _detail_json(detail: "StudyDetail") -> dict[str, object]:
    tables = {
        "instances": detail.instances,
        "versions": detail.versions,
        "jobs": detail.jobs,
        "parcels": detail.deliveries,  # key and columns as in earlier releases
        "notifications": detail.notifications,
        "events": detail.events,
    }
    tables_json = {key: [dict(row) for row in table] for key, table in tables.items()}
    objects = [asdict(part) for part in detail.parts]
    return {**asdict(detail.line), "study_uid": detail.study_uid, **tables_json, "objects": objects}


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))
