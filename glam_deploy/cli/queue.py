"""`glam-deploy queue`: what waits, what is stuck, and a person's decisions about it."""

import getpass
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glam_deploy.cli import console
from glam_deploy.cli.config_file import config_option, read_config
from glam_deploy.errors import UsageError

if TYPE_CHECKING:
    from sqlite3 import Connection, Row

    from glam_deploy.appliance.audit import Audit
    from glam_deploy.appliance.data import DataFolder
    from glam_deploy.appliance.state.story import Story, StudyLine

UNFINISHED = ("receiving", "waiting", "working", "sending", "failed", "undelivered")
"""Stages in which something is left to do, or to decide."""

STAGES = (*UNFINISHED, "done", "ignored")

as_json_option = click.option("--json", "as_json", is_flag=True, help="For machines.")
study_argument = click.argument("studies", nargs=-1, required=True, metavar="STUDY...")
some_studies_argument = click.argument("studies", nargs=-1, metavar="[STUDY...]")
target_option = click.option("--target", metavar="NAME", help="What is undelivered to this target, and no jobs.")


@click.group("queue")
def command() -> None:
    """Show what waits and what is stuck; try it again, or give it up.

    A STUDY is its pseudonym, as logs and the status page call it (its first 4 characters or more where no other one
    begins so), or its Study Instance UID.
    """


@command.command("list")
@config_option
@click.option("--stage", type=click.Choice(STAGES), metavar="NAME", help=f"Only these: {', '.join(STAGES)}.")
@click.option("--all", "everything", is_flag=True, help="Also what is done.")
@as_json_option
def list_command(config_path: Path, stage: str | None, everything: bool, as_json: bool) -> None:
    """Show studies that are not done yet, newest first."""
    wanted = [stage] if stage else STAGES if everything else UNFINISHED
    with closing(_connection(_data(config_path))) as connection:
        found = _lines(connection, wanted)
    if as_json:
        _say_json([asdict(line) for line in found])
        return
    for line in found:
        _tell_line(line)
    if not found:
        console.out.print("nothing waits and nothing is stuck")


@command.command("show")
@config_option
@study_argument
@as_json_option
def show_command(config_path: Path, studies: Sequence[str], as_json: bool) -> None:
    """Show all that has happened to a study."""
    with closing(_connection(_data(config_path))) as connection:
        found = [_story(connection, word) for word in studies]
    if as_json:
        _say_json([_plain(story) for story in found])
        return
    for story in found:
        _tell(story)


@command.command("retry")
@config_option
@some_studies_argument
@target_option
def retry_command(config_path: Path, studies: Sequence[str], target: str | None) -> int:
    """Try again what is dead or waits for its target.

    Attempts are counted from 0, and the target is tried at once, however long it was down. With --target: result sets
    for that target alone, of all studies or of those named.
    """
    from glam_deploy.appliance.state import jobs, parcels

    with _deciding(config_path) as (connection, audit):
        stuck = _stuck(connection, studies, target, ("dead", "pending"))
        _tell_strangers(config_path, stuck)
        return _decide(connection, audit, stuck, "retried", {"job": jobs.retry, "parcel": parcels.retry})


@command.command("discard")
@config_option
@some_studies_argument
@target_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def discard_command(config_path: Path, studies: Sequence[str], target: str | None, yes: bool) -> int:
    """Give up what is dead, for good.

    Nothing more is made or sent of it, and the audit says so. With --target: what is dead at that target or waits for
    it, of all studies or of those named; for a target that is gone. Files go when the retention time is over, as those
    of every study that is done.
    """
    from glam_deploy.appliance.state import jobs, parcels

    with _deciding(config_path) as (connection, audit):
        stuck = _stuck(connection, studies, target, ("dead", "pending") if target else ("dead",))
        if stuck and not yes and not click.confirm(f"give up {_counted(stuck)}?", err=True):
            console.err.print("nothing was discarded")
            return 1
        return _decide(connection, audit, stuck, "discarded", {"job": jobs.discard, "parcel": parcels.discard})


Transition = Callable[[Any, int], None]
"""Of the job or parcel with this number; takes a connection."""


@dataclass(frozen=True, kw_only=True)
class Stuck:
    """A job or parcel that a person may decide about."""

    kind: str
    """job or parcel."""
    id: int
    study_uid: str
    pseudonym: str
    target: str | None
    """Of a parcel."""


def _stuck(connection: "Connection", studies: Sequence[str], target: str | None, states: Sequence[str]) -> list[Stuck]:
    """Dead jobs and parcels in `states`, of these studies; with `target` its parcels alone, of these or of all."""
    if target is None and not studies:
        raise UsageError("nothing is named: expected a STUDY of `queue list`, or --target NAME")
    # all of them before any is decided about: a wrong name must leave everything as it is
    found = [one for story in [_story(connection, word) for word in studies] for one in _of_story(story, states)]
    if target is None:
        return found
    theirs = _at_target(connection, target)
    return [one for one in found if one in theirs] if studies else theirs


def _of_story(story: "Story", states: Sequence[str]) -> Iterator[Stuck]:
    for kind, rows, wanted in (("job", story.jobs, ("dead",)), ("parcel", story.parcels, states)):
        for row in rows:
            if row["state"] in wanted:
                target = row["target"] if kind == "parcel" else None
                yield Stuck(
                    kind=kind,
                    id=row["id"],
                    study_uid=story.study_uid,
                    pseudonym=story.line.pseudonym,
                    target=target,
                )


def _at_target(connection: "Connection", target: str) -> list[Stuck]:
    from glam_deploy.appliance.state import overview, parcels

    known = [each.target for each in overview.targets(connection)]
    if target not in known:
        raise UsageError(
            f"no results were ever meant for a target {target!r}: expected one of {', '.join(known) or 'none, so far'}"
        )
    rows = parcels.undelivered(connection, target)
    return [Stuck(kind="parcel", **dict(row)) for row in rows]


def _tell_strangers(config_path: Path, stuck: Sequence[Stuck]) -> None:
    known = [target.name for target in read_config(config_path).targets]
    for name in sorted({one.target for one in stuck if one.target and one.target not in known}):
        console.err.print(f"the configuration names no target {name}: nobody sends there until it does")


@contextmanager
def _deciding(config_path: Path) -> Iterator[tuple["Connection", "Audit"]]:
    from glam_deploy.appliance.audit import open_audit

    data = _data(config_path)
    with closing(_connection(data)) as connection:
        yield connection, open_audit(data)


def _user() -> str:
    """Who decides: the account's name, or its number where it has none (containers of OpenShift)."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _decide(
    connection: "Connection", audit: "Audit", stuck: Sequence[Stuck], done: str, transitions: Mapping[str, Transition]
) -> int:
    """Do it to all of them; 1 where there was none."""
    count = 0
    for one in stuck:
        with suppress(UsageError):  # delivered, or decided by somebody else, since it was looked for
            transitions[one.kind](connection, one.id)
            audit.write(f"{one.kind}_{done}", study=one.study_uid, id=one.id, by=_user())
            console.out.print(f"{one.pseudonym}  {one.kind} {one.id} {done}", soft_wrap=True)
            count += 1
    if not count:
        console.err.print(f"nothing was {done}: there is nothing of it to decide about")
    return 0 if count else 1


def _counted(stuck: Sequence[Stuck]) -> str:
    jobs = sum(one.kind == "job" for one in stuck)
    counts = {"dead jobs": jobs, "undelivered result sets": len(stuck) - jobs}
    return " and ".join(f"{count} {what}" for what, count in counts.items() if count)


def _data(config_path: Path) -> "DataFolder":
    from glam_deploy.appliance.data import DataFolder

    data = DataFolder(root=read_config(config_path).data)
    if data.root.is_dir():
        data.require_owner()
    if not data.database.exists():
        raise UsageError(f"{data.database} is not there yet: start the appliance with this configuration first")
    return data


def _connection(data: "DataFolder") -> "Connection":
    from glam_deploy.appliance.state.database import open_database

    return open_database(data.database)


def _lines(connection: "Connection", stages: Iterable[str]) -> list["StudyLine"]:
    """Every study in these stages, each once, newest first."""
    from glam_deploy.appliance.state import story

    found: dict[str, StudyLine] = {}
    for stage in stages:
        page = 0
        while lines := story.studies(connection, stage, page):
            found |= {line.pseudonym: line for line in lines}
            page += 1
    return sorted(found.values(), key=lambda line: line.opened_at, reverse=True)


def _story(connection: "Connection", word: str) -> "Story":
    from glam_deploy.appliance.state import story

    found = story.find(connection, word.lower())
    if len(found) != 1:
        names = ", ".join(line.pseudonym for line in found)
        raise UsageError(
            f"{word!r} is the beginning of several studies ({names}): give more of it"
            if found
            else f"there is no study {word!r}: expected a pseudonym of `queue list`, or a Study Instance UID"
        )
    told = story.story(connection, found[0].pseudonym)
    assert told
    return told


def _tell_line(line: "StudyLine") -> None:
    """In two lines, so that the pseudonym is whole in a narrow terminal."""
    views = f"  {line.views}" if line.views else ""
    console.out.print(f"{line.pseudonym}  {line.stage}  {_clock(line.touched_at)}{views}", soft_wrap=True)
    if line.reason:
        console.out.print(f"    {line.reason}", soft_wrap=True)


def _tell(story: "Story") -> None:
    out = console.out
    out.print(f"{story.line.pseudonym}  {story.line.stage}", soft_wrap=True)
    for row in story.instances:
        told = row["outcome"] or row["state"]
        why = row["view_reason"] or row["reason"]
        out.print(f"  instance {row['arrival']}  {row['view'] or '-'}  {told}{_because(why)}", soft_wrap=True)
    for row in reversed(story.jobs):
        out.print(f"  job {row['id']}  {row['state']}{_tries(row)}{_because(row['reason'])}", soft_wrap=True)
    for row in reversed(story.parcels):
        arrived = f"{row['arrived']} of {row['objects']} objects"
        text = (
            f"  parcel {row['id']} to {row['target']}  {row['state']}, {arrived}{_tries(row)}{_because(row['reason'])}"
        )
        out.print(text, soft_wrap=True)
    for row in story.events:
        out.print(f"  {_clock(row['at'])}  {row['what']}{_because(row['detail'])}", soft_wrap=True)


def _because(reason: str | None) -> str:
    return f": {reason}" if reason else ""


def _tries(row: "Row") -> str:
    return f", {row['attempts']} attempts" if row["attempts"] else ""


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _plain(story: "Story") -> dict[str, Any]:
    rows = {name: [dict(row) for row in getattr(story, name)] for name in ("instances", "jobs", "parcels", "events")}
    return {**asdict(story.line), "study_uid": story.study_uid, **rows}


def _say_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2))
