"""`glam-deploy init`: the files of a new installation of the appliance."""

import grp
import ipaddress
import os
import pwd
import re
import secrets
import socket
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import click

from glam_deploy.cli import console
from glam_deploy.cli.check_config import require_appliance
from glam_deploy.cli.init_files import Account, Installation, NewFile, Peer, rendered
from glam_deploy.cli.options import FilePath
from glam_deploy.errors import UsageError, unwritable
from glam_deploy.installation import documentation, quoted
from glam_deploy.processes import python_command

SERVICE = "glam-deploy"
"""Name of the unit, of the service's user, and of its folder below /var/lib."""
_PACS = re.compile(r"(?P<title>[^@]{1,16})@(?P<host>[^@]+):(?P<port>\d{1,5})")


@click.command("init")
@click.argument("folder", type=FilePath(file_okay=False), metavar="DIR")
@click.option("--acknowledge-license", is_flag=True, help="Weights are for research only; results not for diagnosis.")
@click.option("--bundle", type=FilePath(), help="The bundle's folder [default: DIR/bundle].")
@click.option(
    "--data",
    type=FilePath(),
    help="The data folder [default: /var/lib/glam-deploy as root, else DIR/data].",
)
@click.option("--user", metavar="NAME", help="Of the service [default: glam-deploy as root, else this user].")
@click.option(
    "--pacs",
    metavar="TITLE@ADDRESS:PORT",
    default="PACS@127.0.0.1:4242",
    show_default=True,
    help="Sends images and gets the results.",
)
@click.option("--port", default=11112, show_default=True, help="To receive DICOM at.")
@click.option("--web-port", default=8042, show_default=True, help="Of the status page.")
@click.option("--pacs-web-port", default=8043, show_default=True, help="HTTP port of the test PACS in orthanc.json.")
def command(
    folder: Path,
    acknowledge_license: bool,
    bundle: Path | None,
    data: Path | None,
    user: str | None,
    pacs: str,
    port: int,
    web_port: int,
    pacs_web_port: int,
) -> None:
    """Write the files with which the appliance starts, into the new or empty folder DIR.

    glam.toml, web.token, a unit for systemd, and for containers compose.yaml and orthanc.json with a test PACS. Nothing
    is overwritten, and nothing is started. The next steps are printed.
    """
    if not acknowledge_license:
        raise UsageError(
            "the weights are for research only and have a licence of their own, and results are not for diagnosis: add "
            "--acknowledge-license if you acknowledge that"
        )
    require_appliance()
    is_root = os.geteuid() == 0
    folder = folder.absolute()
    made = Installation(
        folder=folder,
        data=(data or (Path("/var/lib", SERVICE) if is_root else folder / "data")).absolute(),
        bundle=(bundle or folder / "bundle").absolute(),
        program=program(),
        account=account(user or (SERVICE if is_root else pwd.getpwuid(os.geteuid()).pw_name)),
        pacs=peer(pacs),
        port=port,
        web_port=web_port,
        pacs_web_port=pacs_web_port,
    )
    require_free_ports({"--port": port, "--web-port": web_port})
    files = list(rendered(documentation() / "packaging", made, secrets.token_hex(32)))
    require_valid(files, folder)
    write(made, files)
    for line in next_steps(made):
        console.out.print(line, soft_wrap=True)


def program() -> tuple[str, ...]:
    """The command that runs this installation."""
    python = python_command("-m", "glam_deploy")
    script = Path(python[0]).with_name(SERVICE)
    return (str(script),) if script.exists() else tuple(python)


def account(name: str) -> Account:
    """Raises UsageError if there is no such user."""
    try:
        found = pwd.getpwnam(name)
    except KeyError as error:
        raise UsageError(
            f"there is no user {name!r}, under which the service would run: useradd --system --home-dir "
            f"/var/lib/{SERVICE} --shell /usr/sbin/nologin {quoted(name)}, or name another one with --user"
        ) from error
    try:
        group = grp.getgrgid(found.pw_gid).gr_name
    except KeyError:
        group = str(found.pw_gid)
    return Account(name=name, group=group, uid=found.pw_uid, gid=found.pw_gid)


def peer(text: str) -> Peer:
    """Raises click.BadParameter for another form, and values that the configuration would refuse."""
    from glam_deploy.appliance.config.section import AE_TITLE

    found = _PACS.fullmatch(text)
    if not found:
        raise _wrong_pacs(f"{text!r}: expected TITLE@ADDRESS:PORT, as PACS@10.1.2.3:104")
    title, host, port = found["title"], found["host"].removeprefix("[").removesuffix("]"), int(found["port"])
    if not re.fullmatch(AE_TITLE, title):
        raise _wrong_pacs(
            f"the AE title is {title!r}, expected 1 to 16 ASCII characters, without backslash and without a space at "
            "either end"
        )
    try:
        ipaddress.ip_address(host)
    except ValueError as error:
        raise _wrong_pacs(
            f"the address is {host!r}, expected an IP address such as 10.1.2.3, by which a sender is recognized: "
            "`getent hosts NAME` gives that of a name. In glam.toml, targets.host may then be changed to the name"
        ) from error
    if not 0 < port < 1 << 16:
        raise _wrong_pacs(f"the port is {port}, expected 1 to 65535")
    return Peer(ae_title=title, host=host, port=port)


def _wrong_pacs(reason: str) -> click.BadParameter:
    return click.BadParameter(reason, param_hint="--pacs")


def require_valid(files: Iterable[NewFile], folder: Path) -> None:
    """Raises UsageError if the configuration would be refused."""
    from glam_deploy.appliance.config import parse_config

    for file in files:
        if file.name == "glam.toml":
            parse_config(file.text, folder=folder)


def require_free_ports(ports: dict[str, int]) -> None:
    """Raises UsageError if another program listens at one of these ports of loopback."""
    for option, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except (OSError, OverflowError) as error:
                reason = error.strerror if isinstance(error, OSError) else "expected 1 to 65535"
                raise UsageError(
                    f"{option} {port} cannot be used here ({reason}); Debian's Orthanc, for one, listens at 4242 and "
                    f"8042: name another port with {option}"
                ) from error


def write(made: Installation, files: Iterable[NewFile]) -> None:
    """Write all files, or none. Raises UsageError if one exists, or if a folder cannot be written."""
    there = [made.folder / file.name for file in files if os.path.lexists(made.folder / file.name)]
    if there:
        raise UsageError(f"{there[0]} exists, and nothing is overwritten: give a new folder, or move the file away")
    written: list[Path] = []
    try:
        _make_folder(made.folder, 0o755, written)
        for file in files:
            _write_file(made.folder / file.name, file, written)
        _give(made.folder / "web.token", made.account)
        for folder in (made.data, made.test_pacs_data):
            if not folder.exists():
                _make_folder(folder, 0o700, written)
                _give(folder, made.account)
    except BaseException as error:
        _remove(written)
        if not isinstance(error, OSError):
            raise
        raise UsageError(
            f"{error.filename or made.folder} cannot be written {unwritable(error)}, or give another folder. Nothing "
            "was written"
        ) from error


def _make_folder(folder: Path, mode: int, written: list[Path]) -> None:
    """Create a folder and those above it; adds what was created to `written`."""
    for each in (*reversed(folder.parents), folder):
        if not each.exists():
            each.mkdir(mode if each == folder else 0o777)
            written.append(each)


def _write_file(path: Path, file: NewFile, written: list[Path]) -> None:
    """Create a file, durably; adds it to `written`."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:  # noqa: PTH123
        written.append(path)
        os.fchmod(out.fileno(), file.mode)
        out.write(file.text)
        out.flush()
        os.fsync(out.fileno())


def _remove(written: Iterable[Path]) -> None:
    """Remove these files and empty folders, the latest first."""
    for path in reversed([*written]):
        with suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink()


def _give(path: Path, user: Account) -> None:
    """Make the service's user the owner, as root; another user's files are the service's already."""
    if os.geteuid() == 0:
        os.chown(path, user.uid, user.gid)


def next_steps(made: Installation) -> Iterable[str]:
    """What is left to do, as lines."""
    run, config = " ".join(map(quoted, made.program)), f"--config {quoted(made.config)}"
    yield f"{made.folder} has glam.toml, web.token, {SERVICE}.service, compose.yaml and orthanc.json. Next:"
    if not made.bundle.exists():
        yield f"- copy the bundle to {made.bundle}, readable by {made.account.name}"
    yield f"- check senders and targets in {made.config}: {run} check-config {config}"
    yield "- start it, in one of three ways:"
    yield f"    by hand, as {made.account.name}: {run} serve {config}"
    yield (
        f"    as a service: cp {quoted(made.folder / f'{SERVICE}.service')} /etc/systemd/system/ && systemctl "
        f"enable --now {SERVICE}"
    )
    yield f"    in a container, with a test PACS: podman-compose -f {quoted(made.folder / 'compose.yaml')} up"
    yield f"- ask whether it can work: {run} doctor {config}"
