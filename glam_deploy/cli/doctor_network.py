"""What `doctor` looks at on the network: our own ports, who may send, and the targets."""

import errno
import json
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING

from glam_deploy.cli.doctor_certificates import are_usable, first_certificate, may_call_itself, shown_certificate
from glam_deploy.cli.doctor_findings import Finding, Processes, fails, note, ok
from glam_deploy.errors import GlamError, UsageError

if TYPE_CHECKING:
    from glam_deploy.appliance.config import Config, Sender, Target, Tls
    from glam_deploy.appliance.data import DataFolder

TIMEOUT_S = 10.0

# ports


def listeners(config: "Config", processes: Processes) -> Iterator[Finding]:
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
            yield fails(what, "the receiver does not listen there", "restart it: the configuration has changed")
        else:
            yield _own_echo(config, what, ports[name], receive.tls if name == "dicom-tls" else None)


def _free(what: str, host: str, port: int) -> Finding:
    """Of a program that does not run: may it listen there?"""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            taken = "another program has it" if error.errno == errno.EADDRINUSE else str(error.strerror)
            return fails(what, f"{host}: {taken}", "stop that program, or choose another address or port")
    return ok(what, f"{host}: free")


def _answers(what: str, host: str, port: int) -> Finding:
    try:
        socket.create_connection((_reachable(host), port), TIMEOUT_S).close()
    except OSError as error:
        return fails(what, f"nobody answers at {host} ({error.strerror or type(error).__name__})", "see the log")
    return ok(what, f"{host}: answers")


def _reachable(host: str) -> str:
    """The address at which a program on this machine finds a listener."""
    with suppress(OSError):
        host = str(socket.getaddrinfo(host, None)[0][4][0])
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _own_echo(config: "Config", what: str, port: int, tls: "Tls | None") -> Finding:
    """A C-ECHO as one of the senders that may come from this machine, where one may."""
    from glam_deploy.appliance.dispatch.links import tls_files
    from glam_deploy.dicom.net.peer import Peer
    from glam_deploy.dicom.net.sender import echo

    receive, host = config.receive, _reachable(config.receive.host)
    answer = _shows(what, receive.host, port, tls) if tls else _answers(what, receive.host, port)
    if answer.state != "ok":
        return answer
    here = [sender for sender in receive.senders if any(ip_address(host) in network for network in sender.hosts)]
    if obstacle := _why_no_echo(here, host, tls):
        return ok(what, f"{answer.found}; no C-ECHO was tried, for {obstacle}")
    calling, files = here[0].ae_title, tls_files(tls) if tls else None
    peer = Peer(
        ae_title=receive.ae_title, host=host, port=port, calling_ae_title=calling, tls=files, timeout_s=TIMEOUT_S
    )
    try:
        echo(peer)
    except GlamError as error:
        return fails(what, f"C-ECHO from {calling}: {error}", "see the log and the audit of the receiver")
    return ok(what, f"{receive.ae_title} at {receive.host} answers a C-ECHO{' over TLS' * bool(tls)} from {calling}")


def _why_no_echo(here: "Sequence[Sender]", host: str, tls: "Tls | None") -> str:
    """What lets us not call ourselves, and is no fault; "" where nothing does."""
    if not here:
        return "no sender may come from this machine"
    if tls and not may_call_itself(tls, host):
        return f"our certificate need not be signed by {tls.authority} and name {host}, and is not"
    return ""


def _shows(what: str, host: str, port: int, tls: "Tls") -> Finding:
    """Whether a listener of ours shows the certificate that lies in the file now."""
    try:
        shown = shown_certificate(_reachable(host), port, tls, TIMEOUT_S)
    except OSError as error:
        return fails(what, f"no TLS connection to {host} ({error.strerror or type(error).__name__})", "see the log")
    if shown != first_certificate(tls.certificate):
        remedy = "restart the appliance: certificates are read at the start"
        return fails(what, f"{host}: it shows another certificate than lies in {tls.certificate}", remedy)
    return ok(what, f"{host}: answers with the certificate in {tls.certificate}")


def web(config: "Config", processes: Processes) -> Iterator[Finding]:
    from glam_deploy.appliance.web.rules import check_web

    site = config.web
    port = processes["web"].detail.get("port", site.port) if "web" in processes else site.port
    what = f"web port {port}"
    try:
        check_web(site)
    except UsageError as error:
        yield fails("web", str(error), "correct [web]")
    if "web" not in processes:
        yield _free(what, site.host, site.port)
    elif site.tls:
        yield _shows(what, site.host, port, site.tls)
    else:
        yield _answers(what, site.host, port)


# other nodes


def senders(config: "Config", data: "DataFolder") -> Iterator[Finding]:
    if not config.receive.senders:
        yield note("senders", "none", "every DICOM association is rejected until [[receive.senders]] names one")
    for sender in config.receive.senders:
        hosts = ", ".join(map(str, sender.hosts))
        yield ok("sender", f"{sender.ae_title} from {hosts}; it must call {config.receive.ae_title}")
    for (who, reason), times in _rejections(data).most_common(5):
        yield note("turned away", f"{who}, {times} times today: {reason}", _remedy(reason))


def _remedy(reason: str) -> str:
    """What helps a peer that was turned away for this reason, as the listener words it."""
    if "receive.max_associations" in reason:
        return "if it needs as many at once: raise receive.max_associations; else let it send over fewer"
    if "without a request" in reason:
        return "a health check or a port scan does so; if it is a sender: see its own log"
    return "if it should come in: correct [[receive.senders]], or its own configuration"


def _rejections(data: "DataFolder") -> Counter[tuple[str, str]]:
    """Who was turned away today, and why, with how often."""
    found: Counter[tuple[str, str]] = Counter()
    with suppress(OSError, ValueError):
        for text in (data.audit / f"{time.strftime('%Y-%m-%d', time.gmtime())}.jsonl").read_text("utf-8").splitlines():
            if '"association_rejected"' in text:
                line = json.loads(text)
                found[line["sender"], line["reason"]] += line.get("times", 1)
    return found


def target_findings(config: "Config", processes: Processes) -> Iterator[Finding]:
    for target in config.targets:
        yield _target(config, target)
        said = processes.get(f"target:{target.name}")
        if said and said.state != "ready":
            found = f"the dispatcher says {said.state}: {said.detail.get('reason', 'it does not say why')}"
            remedy = "glam-deploy queue list; after the repair: glam-deploy queue retry --target " + target.name
            yield fails(f"target {target.name}", found, remedy)
    if not config.targets:
        yield note("targets", "none", "results stay in the data folder until [[targets]] names one")


def _target(config: "Config", target: "Target") -> Finding:
    from glam_deploy.appliance.dispatch.links import link_to
    from glam_deploy.appliance.dispatch.loops import LOOPS, leads_back

    what = f"target {target.name}"
    place = target.stow_url or f"{target.ae_title} at {target.host} port {target.port}"
    seen = f"we are {target.calling_ae_title}{_seen_from(target.host)} there" if target.host else "for DICOMweb"
    if leads_back(target, config):
        return fails(what, f"{place}: {LOOPS}", "name the archive, or take the target away")
    if target.tls and not are_usable(target.tls):
        return fails(what, f"{place} is not asked: its certificates cannot be used", "correct them first")
    try:
        link_to(target, min(config.dispatch.timeout_s, TIMEOUT_S)).ask()
    except GlamError as error:  # it names the place
        return fails(
            what,
            str(error),
            f"does it run, and does it let us in? {seen}" if target.host else "does it run, and does it let us in?",
        )
    return ok(what, f"{place} answers; {seen}")


def _seen_from(host: str) -> str:
    """The address of this machine from which a connection to `host` goes out; nothing is sent to find it."""
    with suppress(OSError), socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as way:
        way.connect((host, 104))
        return f" from {way.getsockname()[0]}"
    return ""
