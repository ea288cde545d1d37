"""`glam-deploy fetch`: ask for studies of the archive, show what is being fetched, retry it, or give it up."""

import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date, datetime
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glam_deploy.cli import console
from glam_deploy.cli.check_config import read_config
from glam_deploy.cli.options import FilePath, config_option, json_option
from glam_deploy.cli.queue import account_name, open_queue
from glam_deploy.errors import UsageError, counted
from glam_deploy.installation import page
from glam_deploy.regular import open_regular

if TYPE_CHECKING:
    from sqlite3 import Connection, Row

    from glam_deploy.appliance.audit import Audit
    from glam_deploy.appliance.fetch.selection import Selection
    from glam_deploy.appliance.state.overview import Component

SHOWN = 50
"""Items that `fetch list` prints without --all."""
STATES = ("wanted", "fetching", "fetched", "dead", "cancelled")
day_type = click.DateTime(["%Y-%m-%d"])
items_argument = click.argument("items", nargs=-1, metavar="[ITEM...]")


@click.group("fetch")
def command() -> None:
    """Fetch studies from the archive of [fetch]: by date, or by a list.

    These commands change what is wanted; the process `fetcher` of `serve` does the work, when nothing more urgent
    waits. An ITEM is its number in `fetch list`, a day, an accession number, a Study Instance UID or a pseudonym.
    """


@command.command("add")
@config_option
@click.option("--from", "first", type=day_type, metavar="YYYY-MM-DD", help="Studies of this day and later ones.")
@click.option("--to", "last", type=day_type, metavar="YYYY-MM-DD", help="Up to this day, included [default: today].")
@click.option(
    "--list",
    "list_path",
    type=FilePath(dir_okay=False),
    metavar="FILE",
    help="CSV file with a column StudyInstanceUID or AccessionNumber.",
)
@click.option("--again", is_flag=True, help="Also what has been fetched, or has failed for good.")
def add_command(
    config_path: Path, first: datetime | None, last: datetime | None, list_path: Path | None, again: bool
) -> None:
    """Ask for the mammography of a range of days, or of the studies in a list.

    What is asked for a second time is fetched once.
    """
    from glam_deploy.appliance.fetch.selection import days

    if (first is None) == (list_path is None) or (last is not None and first is None):
        raise UsageError("expected either --from and --to, or --list")
    _require_archive(config_path)
    with open_queue(config_path) as (connection, audit):
        if first is not None:
            until = last.date() if last else date.today()
            _add(connection, audit, {"day": days(first.date(), until)}, again=again)
        elif list_path is not None:
            wanted = _read(list_path)
            _add(connection, audit, {"study": wanted.studies, "accession": wanted.accessions}, again=again)


def _require_archive(config_path: Path) -> None:
    if read_config(config_path).fetch is None:
        raise UsageError(
            f"there is no archive to fetch from: add the table [fetch] to the configuration ({page('fetch.md')})"
        )


def _read(path: Path) -> "Selection":
    from glam_deploy.appliance.fetch.selection import MOST_BYTES, read_list

    try:
        with open_regular(path) as file, TextIOWrapper(file, encoding="utf-8-sig", newline="") as lines:
            if (size := os.fstat(file.fileno()).st_size) > MOST_BYTES:
                raise UsageError(f"the list {path} has {size} bytes, expected up to {MOST_BYTES}: split it")
            found = read_list(lines)
    except OSError as error:
        raise UsageError(f"the list {path} cannot be read ({error.strerror}): give a CSV file with --list") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"the list {path} is not UTF-8 text: save it as UTF-8, in Excel as the file type CSV UTF-8"
        ) from error
    if not found.studies and not found.accessions:
        raise UsageError(f"the list {path} has no studies below its first line")
    return found


def _add(connection: "Connection", audit: "Audit", wanted: dict[str, list[str]], *, again: bool) -> None:
    from glam_deploy.appliance.state import fetches

    for kind, values in wanted.items():
        if not values:
            continue
        added = fetches.add(connection, kind, values, audit.pseudonym, again=again)  # type: ignore[arg-type]
        audit.write("fetch_added", kind=kind, new=added.new, again=added.again, by=account_name())
        words = {"day": "day", "study": "study UID", "accession": "accession number"}
        known = f", {added.known} known before" if added.known else ""
        repeated = f", {added.again} again" if added.again else ""
        console.out.print(f"{counted(added.new, f'new {words[kind]}')}{repeated}{known}", soft_wrap=True)


@command.command("list")
@config_option
@click.option("--state", type=click.Choice(STATES), metavar="NAME", help=f"Only these: {', '.join(STATES)}.")
@click.option("--all", "everything", is_flag=True, help="Every item, also those that are fetched or cancelled.")
@json_option("Every item, for programs.")
def list_command(config_path: Path, state: str | None, everything: bool, as_json: bool) -> None:
    """Show what is wanted and how far it is.

    Without options: counts, and the first 50 items that are not fetched.
    """
    from glam_deploy.appliance.state import fetches

    with open_queue(config_path) as (connection, _):
        component = _component(connection)
        counts = fetches.counts(connection)
        states = [state] if state else STATES if everything or as_json else fetches.UNFINISHED
        found = _items(connection, states, most=None if everything or as_json else SHOWN)
    if as_json:
        detail = {"state": component.state, **component.detail} if component else None
        click.echo(json.dumps({"states": counts, "fetcher": detail, "items": [dict(row) for row in found]}, indent=2))
        return
    console.out.print(", ".join(f"{count} {name}" for name, count in counts.items()), soft_wrap=True)
    console.out.print(_fetcher_text(component), soft_wrap=True)
    for row in found:
        _print_item(row)
    if (more := sum(counts[name] for name in states) - len(found)) > 0:
        console.out.print(f"and {more} more: --all lists them", soft_wrap=True)


def _component(connection: "Connection") -> "Component | None":
    from glam_deploy.appliance.state import overview
    from glam_deploy.appliance.state.database import monotonic_clock

    return overview.components(connection, monotonic_clock(connection)()).get("fetcher")


def _items(connection: "Connection", states: Sequence[str], *, most: int | None) -> list["Row"]:
    from glam_deploy.appliance.state import fetches

    found: list[Row] = []
    while most is None or len(found) < most:
        rows = fetches.items(connection, states, after=found[-1]["id"] if found else 0)
        if not rows:
            break
        found += rows
    return found[:most]


def _fetcher_text(component: "Component | None") -> str:
    from glam_deploy.appliance.state.database import HEARTBEAT_TIMEOUT_S

    if component is None:
        return "the fetcher has never run: start glam-deploy serve"
    if component.age > HEARTBEAT_TIMEOUT_S:
        return f"the fetcher does not run: its last heartbeat was {component.age:.0f} s ago"
    reason = component.detail.get("reason")
    return f"the fetcher is {component.state}{f': {reason}' if reason else ''}"


def _print_item(row: "Row") -> None:
    name = f"{row['name'][:4]}-{row['name'][4:6]}-{row['name'][6:]}" if row["kind"] == "day" else row["name"]
    what = {"study": "objects"}.get(row["kind"], "studies")
    found = f", {row['found']} {what}" if row["found"] is not None else ""
    tried = f", {counted(row['attempts'], 'attempt')}" if row["attempts"] else ""
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["finished_at"] or row["created_at"]))
    console.out.print(f"{row['id']}  {row['kind']} {name}  {row['state']}{found}{tried}  {at}", soft_wrap=True)
    if row["reason"]:
        console.out.print(f"    {row['reason']}", soft_wrap=True)


@command.command("retry")
@config_option
@items_argument
@click.option("--dead", is_flag=True, help="All items that have failed for good.")
def retry_command(config_path: Path, items: Sequence[str], dead: bool) -> int:
    """Try items again at once, however long the archive was down. Attempts are counted from 0."""
    from glam_deploy.appliance.state import fetches

    with open_queue(config_path) as (connection, audit):
        numbers = _select(connection, audit, items, fetches.STATES[3:4] if dead else ())
        return _apply(connection, audit, numbers, "retried", fetches.retry)


@command.command("cancel")
@config_option
@items_argument
@click.option("--all", "everything", is_flag=True, help="All items that are not fetched.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
def cancel_command(config_path: Path, items: Sequence[str], everything: bool, yes: bool) -> int:
    """Fetch items no more. Images that are here already stay, and are processed."""
    from glam_deploy.appliance.state import fetches

    with open_queue(config_path) as (connection, audit):
        numbers = _select(connection, audit, items, fetches.UNFINISHED if everything else ())
        if numbers and not yes and not click.confirm(f"cancel {counted(len(numbers), 'item')}?", err=True):
            console.err.print("nothing was cancelled")
            return 1
        return _apply(connection, audit, numbers, "cancelled", fetches.cancel)


def _select(connection: "Connection", audit: "Audit", items: Sequence[str], states: Sequence[str]) -> list[int]:
    """Numbers of the named items, and of all in `states`."""
    if not items and not states:
        raise UsageError("no item is given: expected an ITEM of `fetch list`, or an option for all of them")
    numbers = [row["id"] for row in _items(connection, states, most=None)] if states else []
    return list(dict.fromkeys([*(_number(connection, audit, item) for item in items), *numbers]))


def _number(connection: "Connection", audit: "Audit", item: str) -> int:
    from glam_deploy.appliance.state import fetches

    found = fetches.matching(connection, _plain_day(item), audit.pseudonym)
    if len(found) != 1:
        raise UsageError(
            f"{item!r} is ambiguous, it matches the items {', '.join(map(str, found))}: give a number"
            if found
            else f"there is no item {item!r}: expected a number, day or name of `fetch list`, or a Study Instance UID"
        )
    return found[0]


def _plain_day(item: str) -> str:
    """A day in the form of the table; any other text unchanged."""
    with suppress(ValueError):
        return f"{datetime.strptime(item, '%Y-%m-%d'):%Y%m%d}"
    return item


def _apply(
    connection: "Connection", audit: "Audit", numbers: Sequence[int], done: str, transition: Callable[[Any, int], None]
) -> int:
    """Apply the transition to all items; exit code 1 if none was changed."""
    count, reasons = 0, []
    for number in numbers:
        try:
            transition(connection, number)
        except UsageError as error:
            reasons.append(str(error))
            continue
        audit.write(f"fetch_{done}", item=number, by=account_name())
        count += 1
    console.out.print(f"{counted(count, 'item')} {done}", soft_wrap=True)
    for reason in reasons:
        console.err.print(reason, soft_wrap=True)
    return 0 if count else 1
