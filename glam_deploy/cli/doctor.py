"""`glam-deploy doctor`: its checks, in order, and the table of their findings. They create and change nothing."""

import json
import os
import pwd
import stat
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Column, Table
from rich.text import Text

from glam_deploy.cli import console
from glam_deploy.cli.check_config import read_config
from glam_deploy.cli.doctor_access import access
from glam_deploy.cli.doctor_certificates import certificates
from glam_deploy.cli.doctor_findings import FAILS, Finding, Processes, fails, note, ok
from glam_deploy.cli.doctor_network import archive_findings, listeners, senders, target_findings, web
from glam_deploy.cli.doctor_notify import notify_findings
from glam_deploy.cli.doctor_standby import standby
from glam_deploy.cli.options import config_option, json_option
from glam_deploy.errors import Caller, GlamError, UsageError
from glam_deploy.installation import page, quoted
from glam_deploy.regular import hidden

if TYPE_CHECKING:
    from glam_deploy.appliance.config import Config
    from glam_deploy.appliance.data import DataFolder

NETWORK_DISKS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "ceph", "glusterfs")
"""File systems on which SQLite's write-ahead log does not work, because it needs shared memory."""
LEAST_FREE = 64 << 20
"""Free bytes below which the disk counts as full, whatever the reserve: for one mammogram and the log of state.db."""
_STYLES = {"ok": "green", "note": "yellow", FAILS: "bold red"}


@click.command("doctor")
@config_option
@json_option("For programs.")
@click.option("--ready", is_flag=True, help="Only whether the appliance is ready, as /health/ready.")
def command(config_path: Path, as_json: bool, ready: bool) -> int:
    """Check whether the appliance can run here: data, disk, clock, bundle, engine, decoder, ports, access, targets.

    Sends C-ECHO to the own listener, and C-ECHO or QIDO-RS to every target and to the archive of [fetch]; asks the
    login provider for its metadata. Changes nothing, and may run beside the appliance. Exit code 1 if a check fails.
    """
    config = read_config(config_path)
    if ready:
        return _print_readiness(config, as_json)
    with console.working("checking"):
        found = list(findings(config))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in found], indent=2))
    else:
        console.out.print(_table(found))
    return int(any(finding.state == FAILS for finding in found))


def _print_readiness(config: "Config", as_json: bool) -> int:
    """Print whether the appliance is ready, by its heartbeats, or why not; the exit code."""
    from glam_deploy.appliance.backup.replication import fence_of
    from glam_deploy.appliance.data import DataFolder
    from glam_deploy.appliance.web.monitoring import assess

    fence = fence_of(config)
    taken_over = fence.taken_over() if fence else ""
    reasons = [
        *filter(None, [taken_over]),
        *assess(DataFolder(root=config.data), config.receive.reserve_bytes).reasons,
    ]
    if as_json:
        click.echo(json.dumps({"ready": not reasons, "reasons": reasons}))
    else:
        click.echo("\n".join(reasons) or "ready")
    return int(bool(reasons))


def _table(found: list[Finding]) -> Table:
    table = Table("", "what", Column("found, and what to do", overflow="fold"), show_lines=True)
    for finding in found:
        text = Text(finding.found)
        if finding.remedy:
            text.append(f"\n{finding.remedy}", style="italic")
        table.add_row(Text(finding.state, style=_STYLES[finding.state]), Text(finding.what), text)
    return table


def findings(config: "Config") -> Iterator[Finding]:
    """All findings, each as soon as it is known."""
    from glam_deploy.appliance.data import DataFolder
    from glam_deploy.appliance.state.database import HEARTBEAT_TIMEOUT_S

    data = DataFolder(root=config.data)
    if os.geteuid() == 0:
        remedy = "run it under an account of its own, as packaging/glam-deploy.service does"
        yield note("user", "running as root: an exploited fault would have all rights on this machine", remedy)
    folder = _folder(data)
    yield folder
    yield from _identity(data) if folder.state == "ok" else ()
    yield from _disk(config, data)
    # SQLite leaves files there, which the service could not use if another user owned them
    known: Processes = (yield from _database(config, data)) if folder.state == "ok" else {}
    processes = {name: each for name, each in known.items() if each.age < HEARTBEAT_TIMEOUT_S}
    running = _running_roles(config, data)
    yield from _processes(config, known, processes, running)
    yield from standby(config, known)
    yield from _network(config)
    yield _decoder(config)
    yield from certificates(config)
    yield from listeners(config, processes, running)
    yield from web(config, processes, running)
    yield from access(config, processes)
    yield from senders(config, data)
    yield from target_findings(config, processes)
    yield from notify_findings(config, processes)
    yield from archive_findings(config, processes)


# the data folder


def _folder(data: "DataFolder") -> Finding:
    try:
        data.require_owner()
    except UsageError as error:
        return fails("data folder", str(error), "run doctor and serve as the user of the service")
    return _own_folder(data) if data.root.exists() else _missing_folder(data.root)


def _own_folder(data: "DataFolder") -> Finding:
    what, root = "data folder", data.root
    if root.is_dir() and not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        return fails(what, f"{root} cannot be written", f"chmod 700 {quoted(root)}; is the disk mounted read-only?")
    if obstacle := data.obstacle():
        return fails(what, f"{root} {obstacle.what}", obstacle.remedy)
    if root.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return fails(what, f"other users can read {root}, which holds images of patients", f"chmod 700 {quoted(root)}")
    return ok(what, f"{root}, accessible to {_user(os.geteuid())} only")


def _missing_folder(root: Path) -> Finding:
    what = "data folder"
    above = next(folder for folder in root.parents if folder.exists())
    if not os.access(above, os.W_OK):
        return fails(
            what, f"{root} does not exist, and this user cannot write to {above}", "create it as this user's folder"
        )
    return note(what, f"{root} does not exist yet", "the first start creates it, accessible to the service's user only")


def _identity(data: "DataFolder") -> Iterator[Finding]:
    """Findings on the files by which results and the audit log are this appliance's."""
    from glam_deploy.appliance.audit import known_key
    from glam_deploy.appliance.device import known_device_uid

    for known in (known_key, known_device_uid):
        try:
            known(data)
        except UsageError as error:
            yield fails("identity", str(error), "stop the appliance before it")


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _disk(config: "Config", data: "DataFolder") -> Iterator[Finding]:
    place = next(folder for folder in (data.root, *data.root.parents) if not hidden(folder) and folder.exists())
    room = os.statvfs(place)
    free, reserve = room.f_bavail * room.f_frsize, config.receive.reserve_bytes
    text = f"{_size(free)} free, instances are refused below {_size(reserve)}"
    if free < LEAST_FREE:
        text = f"{_size(free)} free: too little for an image and state.db, which need {_size(LEAST_FREE)}"
        yield fails("disk", text, "free space, or shorten the times in [retain]")
    elif free < reserve:
        yield fails("disk", text, "free space, lower receive.reserve_bytes, or shorten the times in [retain]")
    elif free < 2 * max(reserve, LEAST_FREE):
        yield note("disk", text, "soon full: free space, or shorten the times in [retain]")
    else:
        yield ok("disk", text)
    if (kind := _file_system(place)) in NETWORK_DISKS:
        yield fails(
            "disk", f"{place} is on {kind}", "use a folder on a local disk: state.db does not work on this file system"
        )


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB" if count >= 1 << 30 else f"{count / (1 << 20):.0f} MiB"


def _file_system(place: Path) -> str:
    """Type of the file system of `place`, by its longest mount point; "" if unknown."""
    with suppress(OSError):
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
        holding = [(point, kind) for point, kind in mounts if place.absolute().is_relative_to(point)]
        return max(holding, key=lambda mount: len(mount[0]), default=("", ""))[1]
    return ""


# state.db


def _database(config: "Config", data: "DataFolder") -> Generator[Finding, None, Processes]:
    """Findings on state.db; returns the last heartbeat of every process."""
    from glam_deploy.appliance.state import deliveries, notifications, overview
    from glam_deploy.appliance.state.database import earlier_version, is_current, monotonic_clock

    what = "database"
    if not data.database.exists():
        yield note(what, "it does not exist yet", "the first start creates it")
        return {}
    version: int | None = None
    try:
        with overview.open_read_only(data.database) as connection:
            version = earlier_version(connection)
            if damage := overview.integrity_error(connection):
                yield fails(what, f"{data.database} is damaged ({damage})", _restore())
            else:
                yield ok(what, f"{data.database} is sound")
            if version is not None:
                yield _unconverted(data, version)
            yield from _clock(overview.latest_timestamp(connection))
            names = [target.name for target in config.targets]
            yield from _unconfigured("targets", "result sets", deliveries.unconfigured_targets(connection, names))
            if is_current(connection):  # else the first start of this release converts it
                entries = [entry.name for entry in config.notify]
                waiting = notifications.unconfigured_targets(connection, entries)
                yield from _unconfigured("notify", "notifications", waiting)
            return overview.components(connection, monotonic_clock(connection)())
    except (*overview.READ_ERRORS, UsageError) as error:
        if overview.is_corruption(error):
            yield fails(what, f"{data.database} is damaged ({error})", _restore())
        elif version is None:
            text = f"it cannot be read in its present state ({error})"
            yield note(what, text, "start the appliance, then run doctor again")
        return {}


def _unconverted(data: "DataFolder", version: int) -> Finding:
    text = f"{data.database} is of an earlier release (version {version}), so that not all of it is read here"
    remedy = f"start the appliance, which converts it and keeps {data.database.name}.version-{version} beside it"
    return note("database", text, f"{remedy}; then run doctor again")


def _clock(newest: float) -> Iterator[Finding]:
    ahead = newest - time.time()
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if ahead > 60:
        remedy = "set the clock, and synchronize it with NTP: times in audit and results follow it"
        yield fails("clock", f"{now} is {ahead:.0f} s before the latest recorded event", remedy)
    else:
        yield ok("clock", f"{now}: compare it with the correct time")


def _unconfigured(table: str, what: str, waiting: Mapping[str, int]) -> Iterator[Finding]:
    """Findings on targets or receivers that are not configured; `waiting`: name -> number of what waits for it."""
    for name, count in waiting.items():
        remedy = f"add it to [[{table}]], or discard them: glam-deploy queue discard --target {quoted(name)}"
        yield note(f"target {name}", f"{count} {what} wait for it, but it is not configured", remedy)


def _running_roles(config: "Config", data: "DataFolder") -> frozenset[str]:
    """Roles that a process of this appliance has now, also one that cannot write a heartbeat."""
    from glam_deploy.appliance.data import has_process
    from glam_deploy.appliance.supervisor import configured_roles

    return frozenset(role for role in configured_roles(config) if has_process(data, role))


def _processes(config: "Config", known: Processes, processes: Processes, running: frozenset[str]) -> Iterator[Finding]:
    """`processes`: those of `known` with a recent heartbeat; `running`: as of `_running_roles`."""
    from glam_deploy.appliance.supervisor import configured_roles

    roles = configured_roles(config)
    if not running and not any(role in processes for role in roles):
        last = min((known[role].age for role in roles if role in known), default=None)
        text = "none runs" if last is None else f"none runs: the last heartbeat was {last:.0f} s ago"
        yield note("processes", text, "start glam-deploy serve")
        return
    for role in roles:
        if role not in processes:
            yield _silent(role, known[role].age if role in known else None, role in running)
    for role in roles:
        if role in processes and processes[role].state == "failing":
            reason = processes[role].detail.get("reason", "no reason given")
            yield fails("processes", f"{role}: {reason}", "see the log")
    if any(role in processes for role in roles):
        yield ok("processes", ", ".join(f"{role} {processes[role].state}" for role in roles if role in processes))


def _silent(role: str, age: float | None, is_running: bool) -> Finding:
    """A role without a recent heartbeat; `age`: of its last one, in seconds."""
    since = "yet" if age is None else f"for {age:.0f} s"
    if is_running:
        remedy = "see the log, and whether the disk is full: it starts, hangs, or cannot write state.db"
        return fails("processes", f"{role} runs, but has written no heartbeat {since}", remedy)
    text = "never ran" if age is None else f"has written no heartbeat {since}: it has ended"
    return fails("processes", f"{role} {text}", "see the log; glam-deploy serve restarts it")


# the network


def _network(config: "Config") -> Iterator[Finding]:
    bundle = _bundle(config)
    yield bundle
    if bundle.state == "ok":  # otherwise the engine check would repeat the bundle's fault
        yield _engine(config)


def _bundle(config: "Config") -> Finding:
    from glam_deploy.bundle import open_members, read_trust

    try:
        trust = read_trust(config.bundle.trusted_keys, config.bundle.digest)
        bundles = open_members(config.worker.bundle, trust)
        for bundle in bundles:
            bundle.check()
    except (GlamError, OSError) as error:
        return fails("bundle", _reason(error), "copy it again from its source, or correct worker.bundle")
    count, ids = sum(len(bundle.files) for bundle in bundles), ", ".join(bundle.id[:12] for bundle in bundles)
    proven = "signed with a trusted key" if trust.keys else "no signature demanded"
    return ok("bundle", f"{ids}, {count} files of {config.worker.bundle} are unchanged, {proven}")


def _reason(error: GlamError | OSError) -> str:
    return error.message_for(Caller.APPLIANCE) if isinstance(error, GlamError) else str(error)


def _engine(config: "Config") -> Finding:
    """Loads the engine as the worker would, except for its folder of compiled models."""
    from glam_deploy.appliance.work.predictor import load_predictor

    try:
        with tempfile.TemporaryDirectory() as folder:
            text = load_predictor(config.model_copy(update={"data": Path(folder)})).provenance
    except GlamError as error:
        return fails("engine", error.message_for(Caller.APPLIANCE), "received studies wait until it can be loaded")
    name, gate = text["engine"]["name"], text["gate"]
    if gate == "ungated":
        remedy = "compare it with the reference by glam-deploy gate, then remove worker.ungated"
        return note("engine", f"{name}, without a passed gate: not validated against the reference", remedy)
    return ok("engine", f"{name}, {'the reference itself' if gate == 'reference' else f'gate {gate}'}")


def _decoder(config: "Config") -> Finding:
    """Starts a process for decoders, as the worker does."""
    from glam_deploy.decoding.view_reader import NotStarted, ViewReader

    what = "decoder"
    try:
        with closing(ViewReader(longest_s=config.worker.longest_read_s)) as reader:
            missing = reader.wait_until_ready().missing
    except NotStarted as error:
        remedy = "raise the limits of memory and processes of this user; received studies wait until then"
        return fails(what, str(error.strerror), remedy)
    if missing:
        remedy = (
            "use Linux 5.13 or later with CONFIG_SECURITY_LANDLOCK (landlock is in /sys/kernel/security/lsm) and "
            "CONFIG_SECCOMP_FILTER, in a container or service that allows landlock_create_ruleset, landlock_add_rule, "
            "landlock_restrict_self and prctl with PR_SET_SECCOMP"
        )
        return note(what, f"limits of memory and time, but {missing}", remedy)
    return ok(what, "a process with limits of memory, time and files, and with a filter of system calls")


def _restore() -> str:
    return f"stop the appliance; restore it from a backup or use an empty data folder ({page('appliance.md')}, Backup)"
