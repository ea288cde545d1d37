"""What `doctor` looks at, one after the other. Nothing is made or changed, whoever calls it."""

import os
import pwd
import stat
import tempfile
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from glam_deploy.cli.doctor_certificates import certificates
from glam_deploy.cli.doctor_findings import Finding, Processes, fails, note, ok
from glam_deploy.cli.doctor_network import listeners, senders, target_findings, web
from glam_deploy.errors import GlamError, UsageError
from glam_deploy.installation import page
from glam_deploy.shell import quoted

if TYPE_CHECKING:
    from glam_deploy.appliance.config import Config
    from glam_deploy.appliance.data import DataFolder

NETWORK_DISKS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "ceph", "glusterfs")
"""Kinds of file system on which SQLite's write-ahead log does not work (it needs shared memory)."""


def findings(config: "Config") -> Iterator[Finding]:
    """Everything, each as soon as it is known."""
    from glam_deploy.appliance.data import DataFolder
    from glam_deploy.appliance.state.events import SILENT_S

    data = DataFolder(root=config.data)
    if os.geteuid() == 0:
        remedy = "run it under an account of its own, as packaging/glam-deploy.service does"
        yield note("user", "this is root: what a sender finds a fault in can do everything on this machine", remedy)
    folder = _folder(data)
    yield folder
    yield from _disk(config, data)
    # SQLite would leave files in it, which the service could not use if they are another user's
    known: Processes = (yield from _database(config, data)) if folder.state == "ok" else {}
    processes = {name: each for name, each in known.items() if each.age < SILENT_S}
    yield from _running(known, processes)
    yield from _network(config)
    yield from certificates(config)
    yield from listeners(config, processes)
    yield from web(config, processes)
    yield from senders(config, data)
    yield from target_findings(config, processes)


# the data folder


def _folder(data: "DataFolder") -> Finding:
    what, root = "data folder", data.root
    if not root.exists():
        return _not_there(what, root)
    if not root.is_dir():
        return fails(what, f"{root} is no folder", "name one in `data`, or one that the first start may make")
    facts = root.stat()
    if facts.st_uid != os.geteuid():
        told = f"{root} belongs to {_user(facts.st_uid)}, this is {_user(os.geteuid())}"
        return fails(what, told, "call doctor and serve as the user of the service")
    if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        return fails(what, f"{root} cannot be written", f"chmod 700 {quoted(root)}; is the disk mounted read-only?")
    if facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return fails(
            what, f"other users may look into {root}, which holds images of patients", f"chmod 700 {quoted(root)}"
        )
    return ok(what, f"{root}, of {_user(facts.st_uid)} alone")


def _not_there(what: str, root: Path) -> Finding:
    above = next(folder for folder in root.parents if folder.exists())
    if not os.access(above, os.W_OK):
        return fails(what, f"{root} is not there, and this user may not write in {above}", "make it, and own it")
    return note(what, f"{root} is not there yet", "the first start makes it, for the user of the service alone")


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _disk(config: "Config", data: "DataFolder") -> Iterator[Finding]:
    place = next(folder for folder in (data.root, *data.root.parents) if folder.exists())
    room = os.statvfs(place)
    free, reserve = room.f_bavail * room.f_frsize, config.receive.reserve_bytes
    told = f"{_size(free)} free, instances are refused below {_size(reserve)}"
    if free < reserve:
        yield fails("disk", told, "make room, lower receive.reserve_bytes, or shorten the times in [retain]")
    elif free < 2 * reserve:
        yield note("disk", told, "soon full: make room, or shorten the times in [retain]")
    else:
        yield ok("disk", told)
    if (kind := _file_system(place)) in NETWORK_DISKS:
        yield fails("disk", f"{place} lies on {kind}", "name a folder on a local disk: state.db cannot work there")


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB"


def _file_system(place: Path) -> str:
    """Its kind, by the longest mount point that `place` lies below; "" where the system does not tell."""
    with suppress(OSError):
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text("utf-8").splitlines()]
        holding = [(point, kind) for point, kind in mounts if place.absolute().is_relative_to(point)]
        return max(holding, key=lambda mount: len(mount[0]), default=("", ""))[1]
    return ""


# what state.db tells


def _database(config: "Config", data: "DataFolder") -> Generator[Finding, None, Processes]:
    """Returns every process that ever said something."""
    from glam_deploy.appliance.state import inspection, overview, parcels
    from glam_deploy.appliance.state.steady import steady_clock

    what = "database"
    if not data.database.exists():
        yield note(what, "there is none yet", "the first start makes it")
        return {}
    try:
        with overview.reading(data.database) as connection:
            if damage := inspection.damage(connection):
                yield fails(what, f"{data.database} is damaged ({damage})", _restore())
            else:
                yield ok(what, f"{data.database} is sound")
            yield from _clock(inspection.newest_at(connection))
            yield from _strangers(parcels.strangers(connection, [target.name for target in config.targets]))
            return overview.components(connection, steady_clock(connection)())
    except (*overview.UNREADABLE, UsageError) as error:
        if inspection.is_damage(error):
            yield fails(what, f"{data.database} is damaged ({error})", _restore())
        else:
            told = f"it cannot be read as it is ({type(error).__name__})"
            yield note(what, told, "start the appliance, then look again")
        return {}


def _clock(newest: float) -> Iterator[Finding]:
    ahead = newest - time.time()
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if ahead > 60:
        remedy = "set it, and keep it right with NTP: times in audit and results follow it"
        yield fails("clock", f"{now} is {ahead:.0f} s before the last thing that happened", remedy)
    else:
        yield ok("clock", f"{now}: is it right?")


def _strangers(waiting: Mapping[str, int]) -> Iterator[Finding]:
    for name, count in waiting.items():
        remedy = f"name it again in [[targets]], or give them up: glam-deploy queue discard --target {quoted(name)}"
        yield note(f"target {name}", f"{count} result sets wait for it, and the configuration does not name it", remedy)


def _running(known: Processes, processes: Processes) -> Iterator[Finding]:
    """`processes`: those of `known` that have said something lately."""
    from glam_deploy.appliance.serve import ROLES

    missing = [role for role in ROLES if role not in processes]
    if len(missing) == len(ROLES):
        last = min((known[role].age for role in ROLES if role in known), default=None)
        told = "none runs" if last is None else f"none runs, or none can write: the last word came {last:.0f} s ago"
        yield note("processes", told, "glam-deploy serve starts them; where they run, is the disk full?")
        return
    for role in missing:
        told = f"has said nothing for {known[role].age:.0f} s: it has ended or hangs" if role in known else "never ran"
        yield fails("processes", f"{role} {told}", "see the log; glam-deploy serve starts it again by itself")
    for role in ROLES:
        if role in processes and processes[role].state == "failing":
            reason = processes[role].detail.get("reason", "it does not say why")
            yield fails("processes", f"{role}: {reason}", "see the log")
    yield ok("processes", ", ".join(f"{role} {processes[role].state}" for role in ROLES if role in processes))


# the network


def _network(config: "Config") -> Iterator[Finding]:
    bundle = _bundle(config)
    yield bundle
    if bundle.state == "ok":  # the engine would only repeat what is wrong with it
        yield _engine(config)


def _bundle(config: "Config") -> Finding:
    from glam_deploy.bundle import open_bundle

    try:
        bundle = open_bundle(config.worker.bundle)
        bundle.check()
    except (GlamError, OSError) as error:
        return fails("bundle", str(error), "copy it again from where it was made, or correct worker.bundle")
    return ok("bundle", f"{bundle.id[:12]}, {len(bundle.files)} files of {bundle.folder} are unchanged")


def _engine(config: "Config") -> Finding:
    """Opened as the worker would, but for its folder of compiled models."""
    from glam_deploy.appliance.work.predictor import load_predictor

    try:
        with tempfile.TemporaryDirectory() as folder:
            told = load_predictor(config.model_copy(update={"data": Path(folder)})).provenance
    except GlamError as error:
        return fails("engine", str(error), "until it can be opened, received studies wait")
    name, gate = told["engine"]["name"], told["gate"]
    if gate == "ungated":
        remedy = "hold it against the reference with glam-deploy gate, and take worker.ungated away"
        return note("engine", f"{name}, without a passed gate: nobody knows that it finds the same lesions", remedy)
    return ok("engine", f"{name}, {'the reference itself' if gate == 'reference' else f'gate {gate}'}")


def _restore() -> str:
    return f"stop, and restore it from a backup, or start with an empty data folder ({page('appliance.md')}, Backup)"
