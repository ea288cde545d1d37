"""`glam-deploy check-config`, and reading of the configuration for the appliance's other commands."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from glam_deploy.cli import console
from glam_deploy.cli.options import config_option, json_option
from glam_deploy.errors import UsageError
from glam_deploy.installation import quoted, require
from glam_deploy.ports import PRIVILEGED_PORT, may_listen_at
from glam_deploy.regular import hidden, other_kind, others_can_read
from glam_deploy.toml_text import TomlFault, read_toml

if TYPE_CHECKING:
    from glam_deploy.appliance.config import Config, Web
    from glam_deploy.appliance.data import DataFolder


_MAY_BE_ABSENT = re.compile(r"(targets\.\d+|standby)\.folder")
"""Keys of folders that may be on a disk that is not mounted now: what goes there waits."""
_SECRET_FILE = re.compile(r"(secret|token|password)_file$|tls\.key$")


@click.command("check-config")
@config_option
@json_option("Every key and its value, including those left out.")
def command(config_path: Path, as_json: bool) -> int:
    """Check the appliance's configuration and print what it means. Starts nothing.

    Exit code 2 if a key is wrong; every wrong key is named. Exit code 1 if a file is missing that the configuration
    names. `doctor` also checks the network, the bundle and the disk.
    """
    config = read_config(config_path)
    from glam_deploy.appliance.web.access import check_web

    check_web(config.web, missing_ok=True)
    missing = [*missing_files(config)]
    if as_json:
        click.echo(config.model_dump_json(indent=2))
        return int(bool(missing))
    for line in (
        *describe(config),
        *_unknown_senders(config),
        *_without_effect(config),
        *_notes(config),
        *missing,
        *_privileged_ports(config),
    ):
        console.out.print(line, soft_wrap=True)
    but = f", but {len(missing)} missing, without which `serve` cannot work" if missing else ""
    console.out.print(f"{config_path} is valid{but}", soft_wrap=True)
    return int(bool(missing))


def describe(config: "Config") -> Iterator[str]:
    """The meaning of the configuration, line by line, except for missing files."""
    yield f"data       {config.data}"
    yield from _receiving(config)
    yield from _access(config.web)
    yield f"assemble   {_assembly_rule(config)}"
    yield f"worker     bundle {config.worker.bundle}, engine {config.worker.engine}"
    if config.bundle.trusted_keys:
        yield f"bundle     must be signed with {' or '.join(map(str, config.bundle.trusted_keys))}"
    if config.bundle.digest:
        yield f"bundle     must have the digest {config.bundle.digest}"
    threshold = config.results.triage_threshold
    flag = "" if threshold is None else f", triage flag at a malignant score of {threshold:g}"
    yield f"results    {', '.join(config.results.kinds) or 'none'}{flag}"
    for target in config.targets:
        only = "" if target.objects is None else f", gets {', '.join(target.objects)} only"
        yield f"target     {target.name}: {target.place}{only}"
    for number, route in enumerate(config.routes, start=1):
        targets = config.targets_of(route)
        to = "not processed" if targets is None else f"to {', '.join(targets) or 'no target'}"
        yield f"route      {number}: {route}: {to}"
    if config.standby.folder:
        yield f"standby    a copy in {config.standby.folder}, every {config.standby.every_s:g} s"
    yield from _fetching(config)
    if not config.targets:
        yield "target     none: results stay in the data folder"
    for entry in config.notify:
        yield f"notify     {entry.name}: {entry.kind} to {entry.place}, {', '.join(entry.events)}"


def _fetching(config: "Config") -> Iterator[str]:
    if fetch := config.fetch:
        how = "DICOMweb" if fetch.url else "C-MOVE" if fetch.moves else "C-GET"
        times = f", {', '.join(fetch.windows)}" if fetch.windows else ", at any time"
        to = "" if fetch.targets is None else f", results to {', '.join(fetch.targets) or 'no target'}"
        yield f"fetch      from {fetch.place} by {how}{times}{to}"
    if config.priority.stat_senders:
        yield f"urgent     exams of {', '.join(config.priority.stat_senders)}"


def _receiving(config: "Config") -> Iterator[str]:
    receive = config.receive
    if receive.port is not None:
        yield f"receive    {receive.ae_title} at {receive.host}:{receive.port}"
    if receive.tls:
        yield f"receive    {receive.ae_title} at {receive.host}:{receive.tls.port} with TLS"
    for sender in receive.senders:
        yield f"sender     {sender.ae_title} from {', '.join(map(str, sender.hosts))}"
    if not receive.senders:
        yield "sender     none: every DICOM association is rejected until [[receive.senders]] has an entry"


def _access(web: "Web") -> Iterator[str]:
    url = f"{'https' if web.tls else 'http'}://{web.host}:{web.port}/"
    yield f"web        {url}{', accepts STOW-RS' if web.stow else ''}"
    if web.public_url:
        yield f"web        in browsers {web.public_url}/, by {', '.join(map(str, web.trusted_proxies)) or 'no proxy'}"
    if oidc := web.oidc:
        for role, groups in (("viewer", oidc.viewer), ("operator", oidc.operator)):
            values = " or ".join(groups) or "no value: nobody"
            yield f"login      {role}: {oidc.roles_claim} of {oidc.issuer} has {values}"
        yield f"login      register there: redirect URI {web.redirect_uri}"
        yield f"login      register there: post-logout redirect URI {web.after_logout_uri}"


def _assembly_rule(config: "Config") -> str:
    rules = config.assemble
    at_once = "at once with all four views, " if rules.four_views else ""
    quiet = f"after {rules.quiet_s:g} s without a new image"
    return f"a study is complete {at_once}{quiet}, or {rules.cap_s:g} s after its first image"


def _unknown_senders(config: "Config") -> Iterator[str]:
    """Rules for senders that may not send."""
    for key, title in config.unknown_senders():
        yield f"note       {key} names {title}, which is in no [[receive.senders]] and may not send"


def _without_effect(config: "Config") -> Iterator[str]:
    """Settings that are valid, but with which nothing can arrive, be delivered, or be put off longer."""
    receive, dispatch = config.receive, config.dispatch
    if receive.port is None and receive.tls is None and not config.web.stow and config.fetch is None:
        yield "note       nothing can arrive: receive.port, receive.tls and web.stow are off, and [fetch] is missing"
    if config.targets and not config.results.kinds:
        yield "note       the targets get nothing: every kind of [results] is off"
    if dispatch.first_retry_s > dispatch.longest_retry_s:
        yield (
            f"note       dispatch.first_retry_s = {dispatch.first_retry_s:g} is above longest_retry_s = "
            f"{dispatch.longest_retry_s:g}, which every retry waits"
        )


def _notes(config: "Config") -> Iterator[str]:
    """What gives others more than was probably meant."""
    for network in config.web.trusted_proxies:
        if not network.prefixlen:
            yield (
                f"note       web.trusted_proxies has {network}, every address: any client can pretend to be another "
                "one there, so name the proxy's own address"
            )
    for key, path in _paths(json.loads(config.model_dump_json()), ""):
        if _MAY_BE_ABSENT.fullmatch(key) and not hidden(Path(path)) and not Path(path).exists():
            yield f"note       {key} = {path} does not exist: mount its disk, or make it; what goes there waits"
        if _SECRET_FILE.search(key) and others_can_read(Path(path)):
            yield f"note       {key} = {path}: other users can read the secret: chmod 600 {quoted(path)}"


def missing_files(config: "Config") -> Iterator[str]:
    """Files that the configuration names and that do not exist now or are something else, and folders likewise."""
    from glam_deploy.bundle.manifest import ENSEMBLE, MANIFEST

    yield from _data_folder(config.data)
    bundle = config.worker.bundle
    with suppress(OSError):  # a folder that this user may not look into
        if bundle.exists() and not any((bundle / name).is_file() for name in (MANIFEST, ENSEMBLE)):
            yield f"MISSING    worker.bundle = {bundle}: it holds neither {MANIFEST} nor {ENSEMBLE}, expected a bundle"
    for key, path in _paths(json.loads(config.model_dump_json(exclude={"data"})), ""):
        if reason := hidden(Path(path)):
            yield f"MISSING    {key} = {path}: it cannot be reached ({reason}): run this as the user of the appliance"
        elif not Path(path).exists() and not _MAY_BE_ABSENT.fullmatch(key):
            yield f"MISSING    {key} = {path}"
        elif _SECRET_FILE.search(key) and (kind := other_kind(Path(path))):
            yield f"MISSING    {key} = {path}: {kind}"


def _data_folder(root: Path) -> Iterator[str]:
    from glam_deploy.appliance.data import DataFolder

    with suppress(OSError):  # a folder of the service's own user, which need not be this one
        if obstacle := DataFolder(root=root).obstacle():
            yield f"MISSING    data = {root}: it {obstacle.what}; {obstacle.remedy}"


def _privileged_ports(config: "Config") -> Iterator[str]:
    """Ports that this user may not listen at, on this machine."""
    receive = config.receive
    ports = {"receive.port": receive.port, "web.port": config.web.port}
    ports |= {"receive.tls.port": receive.tls.port} if receive.tls else {}
    for key, port in ports.items():
        if port and not may_listen_at(port):
            yield f"PORT       {key} = {port}: {PRIVILEGED_PORT}"


def _paths(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _paths(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            yield from _paths(inner, f"{key}.{n}")
    elif isinstance(value, str) and value.startswith("/"):
        yield key, value


def read_config(path: Path) -> "Config":
    """The checked configuration in the file `path`.

    Raises UsageError for errors in it, BackendUnavailable if packages of the appliance are missing.
    """
    require_appliance()
    from glam_deploy.appliance.config import parse_config

    name = f"the configuration {path}"
    try:
        text = read_toml(path)
    except TomlFault as error:
        raise UsageError(f"{name} is not valid TOML: {error}") from error
    except OSError as error:
        raise UsageError(f"{name} cannot be read ({error.strerror}): set the path with --config") from error
    return parse_config(text, folder=path.absolute().parent, name=name)


def data_in_use(config: "Config") -> "DataFolder":
    """The data folder of an appliance that was started before.

    Raises UsageError if there is none yet, or if it belongs to another user.
    """
    from glam_deploy.appliance.data import DataFolder

    data = DataFolder(root=config.data)
    data.require_owner()
    if obstacle := data.obstacle():
        raise UsageError(f"the data folder {data.root} {obstacle.what}: {obstacle.remedy}")
    if not data.database.exists():
        raise UsageError(f"{data.database} does not exist yet: start the appliance with this configuration first")
    return data


def require_appliance() -> None:
    """Raises BackendUnavailable if packages of the appliance are missing."""
    require("dicom", "appliance", user="the appliance")
