"""What `doctor` looks at, one after the other. Nothing is made or changed, whoever calls it."""

import errno
import json
import os
import pwd
import socket
import stat
import tempfile
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glam_deploy.errors import GlamError, UsageError

if TYPE_CHECKING:
    from glam_deploy.appliance.config import Config, Target
    from glam_deploy.appliance.data import DataFolder

FAILS = "FAILS"

NETWORK_DISKS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "9p", "ceph", "glusterfs")
"""Kinds of file system on which SQLite's write-ahead log does not work (it needs shared memory)."""

FRESH_S = 15.0
"""A process that has said nothing for so long does not run."""

TIMEOUT_S = 10.0

Processes = Mapping[str, Any]
"""Name -> component, of those that have said something lately."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line for the person who asks."""

    state: str
    """ok, note (nothing wrong, but look) or FAILS."""
    what: str
    found: str
    remedy: str = ""


def _ok(what: str, found: str) -> Finding:
    return Finding(state="ok", what=what, found=found)


def _note(what: str, found: str, remedy: str) -> Finding:
    return Finding(state="note", what=what, found=found, remedy=remedy)


def _fails(what: str, found: str, remedy: str) -> Finding:
    return Finding(state=FAILS, what=what, found=found, remedy=remedy)


def findings(config: "Config") -> Iterator[Finding]:
    """Everything, each as soon as it is known."""
    from glam_deploy.appliance.data import DataFolder

    data = DataFolder(root=config.data)
    folder = _folder(data)
    yield folder
    yield from _disk(config, data)
    # SQLite would leave files in it, which the service could not use if they are another user's
    processes: Processes = (yield from _database(data)) if folder.state == "ok" else {}
    yield from _running(processes)
    yield from _bundle(config)
    yield from _engine(config)
    yield from _listeners(config, processes)
    yield from _web(config, processes)
    yield from _senders(config, data)
    for target in config.targets:
        yield from _target(config, target)
    if not config.targets:
        yield _note("targets", "none", "results stay in the data folder until [[targets]] names one")


# the data folder


def _folder(data: "DataFolder") -> Finding:
    what, root = "data folder", data.root
    if not root.exists():
        above = next(folder for folder in root.parents if folder.exists())
        if not os.access(above, os.W_OK):
            return _fails(what, f"{root} is not there, and this user may not write in {above}", "make it, and own it")
        return _note(what, f"{root} is not there yet", "the first start makes it, for the user of the service alone")
    facts = root.stat()
    if facts.st_uid != os.geteuid():
        told = f"{root} belongs to {_user(facts.st_uid)}, this is {_user(os.geteuid())}"
        return _fails(what, told, "call doctor and serve as the user of the service")
    if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        return _fails(what, f"{root} cannot be written", f"chmod 700 {root}; is the disk mounted read-only?")
    if facts.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return _fails(what, f"other users may look into {root}, which holds images of patients", f"chmod 700 {root}")
    return _ok(what, f"{root}, of {_user(facts.st_uid)} alone")


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
        yield _fails("disk", told, "make room, lower receive.reserve_bytes, or shorten the times in [retain]")
    elif free < 2 * reserve:
        yield _note("disk", told, "soon full: make room, or shorten the times in [retain]")
    else:
        yield _ok("disk", told)
    if (kind := _file_system(place)) in NETWORK_DISKS:
        yield _fails("disk", f"{place} lies on {kind}", "name a folder on a local disk: state.db cannot work there")


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


def _database(data: "DataFolder") -> Generator[Finding, None, Processes]:
    """Returns the processes that run."""
    from glam_deploy.appliance.state import inspection, overview
    from glam_deploy.appliance.state.events import SILENT_S
    from glam_deploy.appliance.state.steady import steady_clock

    what = "database"
    if not data.database.exists():
        yield _note(what, "there is none yet", "the first start makes it")
        return {}
    try:
        with overview.reading(data.database) as connection:
            if damage := inspection.damage(connection):
                yield _fails(what, f"{data.database} is damaged ({damage})", "stop, and restore it from a backup")
            else:
                yield _ok(what, f"{data.database} is sound")
            yield from _clock(inspection.newest_at(connection))
            known = overview.components(connection, steady_clock(connection)())
            return {name: each for name, each in known.items() if each.age < SILENT_S}
    except (*overview.UNREADABLE, UsageError) as error:
        yield _note(
            what, f"it cannot be read as it is ({type(error).__name__})", "start the appliance, then look again"
        )
        return {}


def _clock(newest: float) -> Iterator[Finding]:
    ahead = newest - time.time()
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    if ahead > 60:
        remedy = "set it, and keep it right with NTP: times in audit and results follow it"
        yield _fails("clock", f"{now} is {ahead:.0f} s before the last thing that happened", remedy)
    else:
        yield _ok("clock", f"{now}: is it right?")


def _running(processes: Processes) -> Iterator[Finding]:
    from glam_deploy.appliance.serve import ROLES

    missing = [role for role in ROLES if role not in processes]
    if len(missing) == len(ROLES):
        yield _note("processes", "none runs", "glam-deploy serve starts them")
        return
    for role in missing:
        yield _fails("processes", f"{role} does not run", "see the log; glam-deploy serve starts it again by itself")
    for role in ROLES:
        if role in processes and processes[role].state == "failing":
            reason = processes[role].detail.get("reason", "it does not say why")
            yield _fails("processes", f"{role}: {reason}", "see the log")
    yield _ok("processes", ", ".join(f"{role} {processes[role].state}" for role in ROLES if role in processes))


# the network


def _bundle(config: "Config") -> Iterator[Finding]:
    from glam_deploy.bundle import open_bundle

    try:
        bundle = open_bundle(config.worker.bundle)
        bundle.check()
    except (GlamError, OSError) as error:
        yield _fails("bundle", str(error), "copy it again from where it was made")
    else:
        yield _ok("bundle", f"{bundle.id[:12]}, {len(bundle.files)} files of {bundle.folder} are unchanged")


def _engine(config: "Config") -> Iterator[Finding]:
    """Opened as the worker would, but for its folder of compiled models."""
    from glam_deploy.appliance.work.predictor import load_predictor

    try:
        with tempfile.TemporaryDirectory() as folder:
            told = load_predictor(config.model_copy(update={"data": Path(folder)})).provenance
    except GlamError as error:
        yield _fails("engine", str(error), "until it can be opened, received studies wait")
        return
    name, gate = told["engine"]["name"], told["gate"]
    if gate == "ungated":
        remedy = "hold it against the reference with glam-deploy gate, and take worker.ungated away"
        yield _note("engine", f"{name}, without a passed gate: nobody knows that it finds the same lesions", remedy)
    else:
        yield _ok("engine", f"{name}, {'the reference itself' if gate == 'reference' else f'gate {gate}'}")


# ports


def _listeners(config: "Config", processes: Processes) -> Iterator[Finding]:
    receive, receiver = config.receive, processes.get("receiver")
    ports = receiver.detail.get("ports", {}) if receiver else {}
    wanted = {"dicom": receive.port, "dicom-tls": receive.tls.port if receive.tls else None}
    for name, port in wanted.items():
        if port is None:
            continue
        what = f"{name} port {ports.get(name, port)}"
        if receiver is None:
            yield _free(what, receive.host, port)
        elif name not in ports:
            yield _fails(what, "the receiver does not listen there", "restart it: the configuration has changed")
        elif name == "dicom":
            yield _own_echo(config, what, ports[name])
        else:
            yield _answers(what, receive.host, ports[name])
    if receive.tls:
        yield from _own_certificate(config)


def _free(what: str, host: str, port: int) -> Finding:
    """Of a program that does not run: may it listen there?"""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            taken = "another program has it" if error.errno == errno.EADDRINUSE else str(error.strerror)
            return _fails(what, f"{host}: {taken}", "stop that program, or choose another address or port")
    return _ok(what, f"{host}: free")


def _answers(what: str, host: str, port: int) -> Finding:
    try:
        socket.create_connection((_reachable(host), port), TIMEOUT_S).close()
    except OSError as error:
        return _fails(what, f"nobody answers at {host} ({error.strerror or type(error).__name__})", "see the log")
    return _ok(what, f"{host}: answers")


def _reachable(host: str) -> str:
    """Where a program on this machine finds a listener."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _own_echo(config: "Config", what: str, port: int) -> Finding:
    """A C-ECHO as one of the senders that may come from this machine."""
    from glam_deploy.dicom.net.peer import Peer
    from glam_deploy.dicom.net.sender import echo

    receive, host = config.receive, _reachable(config.receive.host)
    here = [sender for sender in receive.senders if any(ip_address(host) in network for network in sender.hosts)]
    if not here:
        answer = _answers(what, receive.host, port)
        if answer.state == FAILS:
            return answer
        return _ok(what, f"{answer.found}; no C-ECHO was tried, for no sender may come from this machine")
    calling = here[0].ae_title
    try:
        echo(Peer(ae_title=receive.ae_title, host=host, port=port, calling_ae_title=calling, timeout_s=TIMEOUT_S))
    except GlamError as error:
        return _fails(what, f"C-ECHO from {calling}: {error}", "see the log and the audit of the receiver")
    return _ok(what, f"{receive.ae_title} at {receive.host} answers a C-ECHO from {calling}")


def _own_certificate(config: "Config") -> Iterator[Finding]:
    from glam_deploy.dicom.net.listener import tls_context
    from glam_deploy.dicom.net.peer import TlsFiles

    assert config.receive.tls
    files = config.receive.tls
    try:
        tls_context(TlsFiles(certificate=files.certificate, key=files.key, authority=files.authority))
    except UsageError as error:
        yield _fails("certificate", str(error), "correct [receive.tls]")
    else:
        yield _ok("certificate", f"{files.certificate} and its key can be used")


def _web(config: "Config", processes: Processes) -> Iterator[Finding]:
    from glam_deploy.appliance.web.rules import check_web

    web = config.web
    what = f"web port {web.port}"
    try:
        check_web(web)
    except UsageError as error:
        yield _fails("web", str(error), "correct [web]")
    yield _answers(what, web.host, web.port) if "web" in processes and web.port else _free(what, web.host, web.port)


# other nodes


def _senders(config: "Config", data: "DataFolder") -> Iterator[Finding]:
    if not config.receive.senders:
        yield _note("senders", "none", "every DICOM association is rejected until [[receive.senders]] names one")
    for sender in config.receive.senders:
        hosts = ", ".join(map(str, sender.hosts))
        yield _ok("sender", f"{sender.ae_title} from {hosts}; it must call {config.receive.ae_title}")
    for (who, reason), times in _rejections(data).most_common(5):
        remedy = "if it should come in: correct [[receive.senders]], or its own configuration"
        yield _note("turned away", f"{who}, {times} times today: {reason}", remedy)


def _rejections(data: "DataFolder") -> Counter[tuple[str, str]]:
    """Who was turned away today, and why, with how often."""
    found: Counter[tuple[str, str]] = Counter()
    with suppress(OSError, ValueError):
        for text in (data.audit / f"{time.strftime('%Y-%m-%d', time.gmtime())}.jsonl").read_text("utf-8").splitlines():
            if '"association_rejected"' in text:
                line = json.loads(text)
                found[line["sender"], line["reason"]] += line.get("times", 1)
    return found


def _target(config: "Config", target: "Target") -> Iterator[Finding]:
    from glam_deploy.appliance.dispatch.links import link_to

    what = f"target {target.name}"
    place = target.stow_url or f"{target.ae_title} at {target.host} port {target.port}"
    seen = f"we are {target.calling_ae_title}{_seen_from(target.host)} there" if target.host else "over DICOMweb"
    try:
        link_to(target, min(config.dispatch.timeout_s, TIMEOUT_S)).ask()
    except GlamError as error:
        yield _fails(what, f"{place}: {error}", f"does it run, and does it know us? {seen}" if target.host else "")
    else:
        yield _ok(what, f"{place} answers; {seen}")


def _seen_from(host: str) -> str:
    """The address of this machine from which a connection to `host` goes out; nothing is sent to find it."""
    with suppress(OSError), socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.connect((host, 104))
        return f" from {way.getsockname()[0]}"
    return ""
