"""Network checks of `doctor`: the own ports, the senders, and the targets."""

import errno
import json
import socket
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from glam_deploy.addresses import parsed_address
from glam_deploy.cli.doctor_certificates import are_usable, first_certificate, may_call_itself, shown_certificate
from glam_deploy.cli.doctor_findings import Finding, Processes, fails, note, ok, unknown_host
from glam_deploy.cli.doctor_rejections import rejections
from glam_deploy.errors import GlamError
from glam_deploy.ports import listen_remedy

if TYPE_CHECKING:
    from glam_deploy.appliance.config import Config, KeyPair, Target, Tls
    from glam_deploy.appliance.data import DataFolder

TIMEOUT_S = 10.0

# ports


def listeners(config: "Config", processes: Processes, running: Container[str]) -> Iterator[Finding]:
    """Findings on the DICOM ports: free if the receiver does not run, else answering.

    `running`: roles that a process has, with a recent heartbeat or not.
    """
    receive, receiver = config.receive, processes.get("receiver")
    configured = {"dicom": receive.port, "dicom-tls": receive.tls.port if receive.tls else None}
    wanted = {name: port for name, port in configured.items() if port is not None}
    ports = receiver.detail.get("ports", {}) if receiver else wanted
    for name, port in wanted.items():
        what = f"{name} port {ports.get(name, port)}"
        if receiver is None and "receiver" not in running:
            yield _free(what, receive.host, port)
        elif name not in ports:
            yield fails(
                what, "the receiver does not listen there", "restart the appliance: the configuration has changed"
            )
        else:
            yield _own_echo(config, what, ports[name], receive.tls if name == "dicom-tls" else None)


def _free(what: str, host: str, port: int) -> Finding:
    """Whether a listener that does not run could bind its address."""
    error = _bind_error(host, port)
    if error is None:
        return ok(what, f"{host}: free")
    reason = "another program uses it" if error.errno == errno.EADDRINUSE else error.strerror
    return fails(what, f"{host}: {reason}", listen_remedy(error))


def _bind_error(host: str, port: int) -> OSError | None:
    """Why an address cannot be bound now; None if it can."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            return error
    return None


def _check_answers(what: str, host: str, port: int) -> Finding:
    try:
        socket.create_connection((_reachable(host), port), TIMEOUT_S).close()
    except OSError as error:
        return fails(what, f"no answer at {host} ({error.strerror or type(error).__name__})", "see the log")
    return ok(what, f"{host}: answers")


def _reachable(host: str) -> str:
    """The address at which a program on this machine reaches a listener."""
    with suppress(OSError):
        host = str(socket.getaddrinfo(host, None)[0][4][0])
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _own_echo(config: "Config", what: str, port: int, tls: "Tls | None") -> Finding:
    """A C-ECHO as one of the senders that may connect from this machine, if there is one.

    Nothing that counts as a rejected association: an increase of their number may raise an alarm.
    """
    from glam_deploy.appliance.targets import tls_files
    from glam_deploy.dicom.net.bounded_socket import FAREWELL
    from glam_deploy.dicom.net.peer import Peer
    from glam_deploy.dicom.net.sender import echo

    receive, host = config.receive, _reachable(config.receive.host)
    local_senders = [
        sender for sender in receive.senders if any(parsed_address(host) in network for network in sender.hosts)
    ]
    if not local_senders:
        return _check_bound(what, receive.host, port)
    if tls:
        answer = _check_presented(what, receive.host, port, tls, FAREWELL)
        if answer.state != "ok":
            return answer
        if not may_call_itself(tls, host):
            obstacle = f"the own certificate is not signed by {tls.authority} or does not name {host}"
            return ok(what, f"{answer.found}; no C-ECHO sent: {obstacle}, which it need not")
    calling, files = local_senders[0].ae_title, tls_files(tls) if tls else None
    peer = Peer(
        ae_title=receive.ae_title, host=host, port=port, calling_ae_title=calling, tls=files, timeout_s=TIMEOUT_S
    )
    try:
        echo(peer)
    except GlamError as error:
        return fails(what, f"C-ECHO from {calling}: {error}", "see the log and the audit of the receiver")
    return ok(what, f"{receive.ae_title} at {receive.host} answers a C-ECHO{' over TLS' * bool(tls)} from {calling}")


def _check_bound(what: str, host: str, port: int) -> Finding:
    """Whether a program listens at an address from which a connection of this machine would be rejected."""
    if (error := _bind_error(host, port)) is None:
        return fails(what, f"nothing listens at {host}", "see the log")
    state = "in use" if error.errno == errno.EADDRINUSE else f"not contacted ({error.strerror})"
    return ok(what, f"{host}: {state}; no C-ECHO sent: no sender may connect from this machine")


def _check_presented(what: str, host: str, port: int, tls: "KeyPair", farewell: bytes = b"") -> Finding:
    """Whether a listener presents the certificate that is now in its file."""
    try:
        shown = shown_certificate(_reachable(host), port, tls, TIMEOUT_S, farewell)
    except OSError as error:
        return fails(what, f"no TLS connection to {host} ({error.strerror or type(error).__name__})", "see the log")
    if shown != first_certificate(tls.certificate):
        remedy = "restart the appliance, which reads certificates at its start"
        return fails(what, f"{host}: it presents another certificate than the one in {tls.certificate}", remedy)
    return ok(what, f"{host}: answers with the certificate in {tls.certificate}")


def web(config: "Config", processes: Processes, running: Container[str]) -> Iterator[Finding]:
    """Findings on the web port: free if the web process does not run, else answering; `running` as of `listeners`."""
    site = config.web
    port = processes["web"].detail.get("port", site.port) if "web" in processes else site.port
    what = f"web port {port}"
    if "web" not in processes and "web" not in running:
        yield _free(what, site.host, site.port)
    elif site.tls:
        yield _check_presented(what, site.host, port, site.tls)
    else:
        yield _check_answers(what, site.host, port)


# other nodes


def senders(config: "Config", data: "DataFolder") -> Iterator[Finding]:
    """Findings on the configured senders and on the associations that were rejected today."""
    if not config.receive.senders:
        yield note("senders", "none", "every DICOM association is rejected until [[receive.senders]] has an entry")
    for sender in config.receive.senders:
        hosts = ", ".join(map(str, sender.hosts))
        yield ok("sender", f"{sender.ae_title} from {hosts}; it must call {config.receive.ae_title}")
    for key, title in config.unknown_senders():
        text = f"{key} names {title}, which is in no [[receive.senders]] and may not send"
        yield note("senders", text, "add it there, or correct the rule: AE titles of senders must match in case")
    yield from rejections(data)


def target_findings(config: "Config", processes: Processes) -> Iterator[Finding]:
    """Findings on each target, by a connection now and by the dispatcher's state."""
    for target in config.targets:
        yield unknown_host(f"target {target.name}", target) or _target(config, target)
        reported = processes.get(f"target:{target.name}")
        if reported and reported.state != "ready":
            found = f"the dispatcher reports {reported.state}: {reported.detail.get('reason', 'no reason given')}"
            remedy = "glam-deploy queue list; after the repair: glam-deploy queue retry --target " + target.name
            yield fails(f"target {target.name}", found, remedy)
    if not config.targets:
        yield note("targets", "none", "results stay in the data folder until [[targets]] has an entry")


def archive_findings(config: "Config", processes: Processes) -> Iterator[Finding]:
    """Findings on the archive of [fetch], by a connection now and by the fetcher's state."""
    fetch, what = config.fetch, "archive"
    if fetch is None:
        return
    if unknown := unknown_host(what, fetch):
        yield unknown
        return
    if fetch.tls and not are_usable(fetch.tls):
        text = f"{fetch.place}: not contacted, because its certificates cannot be used"
        yield fails(what, text, "correct them first")
        return
    from glam_deploy.appliance.fetch.archive import archive_client

    limited = fetch.model_copy(update={"timeout_s": min(fetch.timeout_s, TIMEOUT_S)})
    try:
        missing = archive_client(config, limited).missing()
    except GlamError as error:  # its text names the archive
        yield fails(what, str(error), "check that it runs, and lets this appliance query and retrieve")
        return
    if missing:
        text = f"{fetch.place} answers, but does not accept from {fetch.calling_ae_title}: {', '.join(missing)}"
        yield fails(what, text, "allow it there, or set another `retrieve` in [fetch]")
    else:
        how = "DICOMweb" if fetch.url else "C-MOVE" if fetch.moves else "C-GET"
        yield ok(what, f"{fetch.place} answers, for {how}")
    reported = processes.get("fetcher")
    if reported and reported.state != "ready":
        reason = reported.detail.get("reason", "no reason given")
        yield fails(
            what, f"the fetcher is {reported.state}: {reason}", "after the repair: glam-deploy fetch retry ITEM"
        )


def _target(config: "Config", target: "Target") -> Finding:
    from glam_deploy.appliance.targets import LOOP_REASON, is_own_address, target_client

    what, place = f"target {target.name}", target.place
    if is_own_address(target, config):
        return fails(what, f"{place}: {LOOP_REASON}", "set the archive's address, or remove the target")
    if target.folder:
        return _folder_target(what, target.folder)
    called_as = f"called as {target.calling_ae_title}{_seen_from(target.host)}" if target.host else "for DICOMweb"
    if target.tls and not are_usable(target.tls):
        return fails(what, f"{place}: not contacted, because its certificates cannot be used", "correct them first")
    kinds = config.kinds_for(target)
    try:
        client = target_client(target, min(config.dispatch.timeout_s, TIMEOUT_S))
        client.check_reachable()
        refused = client.not_accepted(kinds)
    except GlamError as error:  # its text names the target
        return fails(
            what,
            str(error),
            f"check that it runs and accepts this appliance ({called_as})",
        )
    if refused:
        classes = ", ".join(dict.fromkeys(refused.values()))
        text = f"{place} answers, but does not accept from {target.calling_ae_title}: {classes}"
        return fails(what, text, f"allow it there, {_without(refused, kinds)}")
    accepts = "" if target.stow_url else f" and accepts {', '.join(kinds) or 'C-ECHO'}"
    return ok(what, f"{place} answers{accepts}; {called_as}")


def _folder_target(what: str, folder: Path) -> Finding:
    from glam_deploy.dicom.net.folder import require_usable

    try:
        require_usable(folder)
    except GlamError as error:
        return fails(what, str(error), "run doctor as the user of the service")
    return ok(what, f"{folder} can be written")


def _without(refused: Mapping[str, str], kinds: Sequence[str]) -> str:
    """The keys of a target with which a delivery needs nothing of `refused` (`TargetClient.not_accepted`)."""
    left = [kind for kind in kinds if kind not in refused]
    keys = [f"objects = {json.dumps(left)}"] if left and len(left) < len(kinds) else []
    keys += [f"{service} = false" for service in ("query", "commitment") if service in refused]
    return f"or set {', '.join(keys)} for this target" if keys else "or remove the target"


def _seen_from(host: str) -> str:
    """The local address of a connection to `host`; nothing is sent to find it."""
    with (
        suppress(OSError),
        socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as probe,
    ):
        probe.connect((host, 104))
        return f" from {probe.getsockname()[0]}"
    return ""
