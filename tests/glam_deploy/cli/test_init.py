"""`init`: what it writes starts as it is, in the way of the unit, and receives an exam; it overwrites nothing."""

import errno
import json
import os
import pwd
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pacs.exams import write_exam
from pynetdicom import AE
from pynetdicom.sop_class import DigitalMammographyXRayImageStorageForPresentation  # type: ignore[attr-defined]
from support.commands import PATHS, Cli, Said
from support.compose import services
from support.orthanc import free_port
from support.tiny_bundle import write_tiny_bundle
from support.until import until

from glam_deploy.cli import init, init_files
from glam_deploy.records import View

ME = pwd.getpwuid(os.geteuid()).pw_name


def run_init(cli: Cli, folder: Path, *options: object) -> Said:
    ports = ("--port", free_port(), "--web-port", free_port())
    return cli("init", folder, "--acknowledge-license", "--user", ME, "--data", folder / "data", *ports, *options)


def unit_of(folder: Path) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", (folder / "glam-deploy.service").read_text(), re.MULTILINE))


def test_what_it_writes_is_accepted(cli: Cli, tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "bundle")
    folder = tmp_path / "made"
    said = run_init(cli, folder, "--bundle", tmp_path / "bundle", "--pacs", "ARCHIVE@10.1.2.3:104")
    assert (said.code, said.err) == (0, "")
    assert (folder / "web.token").stat().st_mode & 0o777 == 0o600
    assert (folder / "data").stat().st_mode & 0o777 == 0o700
    checked = cli("check-config", "--config", folder / "glam.toml")
    assert (checked.code, checked.err) == (0, "")
    for told in (
        f"{folder}/data",
        "ARCHIVE from 10.1.2.3",
        "ARCHIVE at 10.1.2.3 port 104",
        f"bundle {tmp_path}/bundle",
    ):
        assert told in checked.out
    assert f"check-config --config {folder}/glam.toml" in said.out
    assert "copy the bundle" not in said.out


def test_the_next_steps_name_what_is_missing(cli: Cli, tmp_path: Path) -> None:
    said = run_init(cli, tmp_path / "made")
    assert f"copy the bundle to {tmp_path}/made/bundle" in said.out
    assert cli("check-config", "--config", tmp_path / "made/glam.toml").code == 1


@pytest.mark.parametrize("name", ["glam.toml", "web.token", "glam-deploy.service", "compose.yaml", "orthanc.json"])
def test_nothing_is_overwritten(cli: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    said = run_init(cli, tmp_path)
    assert (said.code, said.out) == (2, "")
    assert f"{tmp_path}/{name} exists, and nothing is overwritten" in said.err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


def dangling_link(folder: Path, _: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    (folder / "compose.yaml").symlink_to("nowhere")


def full_disk(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """From the third file on."""
    calls = []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    patch.setattr(os, "fsync", full)


def data_below_a_file(folder: Path, _: pytest.MonkeyPatch) -> None:
    folder.parent.joinpath("file").write_text("")


@pytest.mark.parametrize(
    ("obstacle", "told"),
    [
        (dangling_link, "compose.yaml exists"),
        (full_disk, "cannot be written (No space left on device): free disk space, or"),
        (data_below_a_file, "cannot be written (Not a directory): move the file away"),
    ],
)
def test_all_files_are_written_or_none(
    obstacle: Callable[[Path, pytest.MonkeyPatch], None],
    told: str,
    cli: Cli,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "above/made"
    folder.parent.mkdir()
    with monkeypatch.context() as patch:
        obstacle(folder, patch)
        before = sorted(tmp_path.rglob("*"))
        options = ("--data", folder.parent / "file/data") if obstacle is data_below_a_file else ()
        said = run_init(cli, folder, *options)
    assert (said.code, said.out) == (2, "")
    assert told in said.err
    assert sorted(tmp_path.rglob("*")) == before
    (folder / "compose.yaml").unlink(missing_ok=True)
    assert run_init(cli, folder).code == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--user", "nobody-at-all"), "there is no user 'nobody-at-all'"),
        (("--pacs", "PACS"), "expected TITLE@ADDRESS:PORT"),
        (("--pacs", "PACS@pacs.example:104"), "the address is 'pacs.example', expected an IP address"),
        (("--pacs", "PACS@10.1.2.0/24:104"), "the address is '10.1.2.0/24', expected an IP address"),
        (("--pacs", "PACS@10.1.2.3:99999"), "the port is 99999, expected 1 to 65535"),
        (("--pacs", "P\\S@10.1.2.3:104"), "the AE title is 'P\\\\S', expected"),
        (("--port", "70000"), "--port 70000 cannot be used here (expected 1 to 65535)"),
    ],
)
def test_wrong_options_write_nothing(cli: Cli, tmp_path: Path, options: tuple[str, ...], told: str) -> None:
    said = run_init(cli, tmp_path / "made", *options)
    assert (said.code, said.out) == (2, "")
    assert told in said.err
    assert not (tmp_path / "made").exists()


def test_the_licence_is_acknowledged_by_a_person(cli: Cli, tmp_path: Path) -> None:
    said = cli("init", tmp_path / "made")
    assert said.code == 2
    assert "add --acknowledge-license" in said.err
    assert not (tmp_path / "made").exists()


def test_a_port_that_another_program_has_is_told(cli: Cli, tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        said = run_init(cli, tmp_path / "made", "--web-port", port)
    assert said.code == 2
    assert f"--web-port {port} cannot be used here (Address already in use)" in said.err


def test_an_installation_without_its_templates_is_told(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(init, "documentation", lambda: tmp_path)
    said = run_init(cli, tmp_path / "made")
    assert said.code == 2
    assert "install glam-deploy again" in said.err


# systemd


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize("name", ["made", "a folder 100% odd; $HOME"])
def test_systemd_understands_the_unit(cli: Cli, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    assert run_init(cli, folder).code == 0
    command = ["systemd-analyze", "verify", folder / "glam-deploy.service"]
    told = subprocess.run(command, check=False, capture_output=True, text=True).stderr
    assert [line for line in told.splitlines() if "glam-deploy" in line and "Documentation" not in line] == []


@pytest.mark.parametrize(
    ("place", "state", "home"),
    [
        ("/var/lib/glam-deploy", "StateDirectory=glam-deploy", "yes"),
        ("/home/me/glam/data", "ReadWritePaths=/home/me/glam/data", "read-only"),
        ("/srv/a 100% $HOME/data", 'ReadWritePaths="/srv/a 100%% $HOME/data"', "yes"),
    ],
)
def test_the_unit_reaches_the_data_folder(place: str, state: str, home: str) -> None:
    text = init_files._unit((init.documentation() / "packaging/glam-deploy.service").read_text(), installation(place))
    assert f"\n{state}\n" in text
    assert f"\nProtectHome={home}\n" in text
    assert ("StateDirectory" in text) == ("StateDirectory" in state)


def installation(data: str) -> init_files.Installation:
    return init_files.Installation(
        folder=Path("/etc/glam-deploy"), data=Path(data), bundle=Path("/srv/bundle"), program=("/opt/bin/glam-deploy",),
        account=init.account(ME), pacs=init.peer("PACS@127.0.0.1:4242"), port=1, web_port=2, pacs_web_port=3,
    )  # fmt: skip


@contextmanager
def as_the_unit_does(folder: Path) -> Iterator[list[bytes]]:
    """A shell that runs ExecStartPre, then ExecStart, with a service manager's notify socket; the messages there."""
    unit, path, messages = unit_of(folder), folder / "notify", list[bytes]()
    environment = {
        "PATH": os.environ["PATH"],
        "NOTIFY_SOCKET": str(path),
        "PYTHONPATH": os.pathsep.join(map(str, PATHS)),
    }
    script = f"umask {unit['UMask']}; {unit['ExecStartPre'].removeprefix('-')} && exec {unit['ExecStart']}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, (folder / "log").open("wb") as log:
        notify.bind(str(path))
        reader = threading.Thread(target=lambda: messages.extend(iter(lambda: notify.recv(100), b"end")))
        reader.start()
        process = subprocess.Popen(["sh", "-c", script], stdout=log, stderr=log, env=environment, cwd="/")
        try:
            until(lambda: b"READY=1" in messages or process.poll() is not None)
            assert process.poll() is None, (folder / "log").read_text()
            yield messages
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
                last.sendto(b"end", str(path))
            reader.join()


def test_it_starts_as_the_unit_starts_it_and_receives_an_exam(cli: Cli, tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "bundle")
    folder = tmp_path / "made"
    assert run_init(cli, folder, "--bundle", tmp_path / "bundle").code == 0
    config = folder / "glam.toml"
    config.write_text(config.read_text().replace("[receive]\n", "[receive]\nreserve_bytes = 0\n"))
    with as_the_unit_does(folder) as messages:
        until(lambda: cli("doctor", "--ready", "--config", config).code == 0)
        assert cli("doctor", "--ready", "--config", config).out == "ready\n"
        (file,) = write_exam(tmp_path / "exam", "init", [View.L_CC])
        assert send(file, tomllib.loads(config.read_text())["receive"]["port"]) == 0
        listed = json.loads(cli("queue", "list", "--json", "--config", config).out)
        assert [line["stage"] for line in listed] == ["receiving"]
    assert (messages[0], messages[-1]) == (b"READY=1", b"STOPPING=1")


def send(file: Path, port: int) -> int:
    """Status of a C-STORE by the sender of the template."""
    from pydicom import dcmread

    entity = AE(ae_title="PACS")
    entity.add_requested_context(DigitalMammographyXRayImageStorageForPresentation)
    association = entity.associate("127.0.0.1", port, ae_title="GLAM")
    assert association.is_established
    status = association.send_c_store(dcmread(file))
    association.release()
    return int(status.Status)


# containers


def test_the_compose_file_mounts_what_the_configuration_names(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "made $HOME"
    assert run_init(cli, folder, "--bundle", tmp_path / "bundle").code == 0
    found = services((folder / "compose.yaml").read_text())
    one = found["glam-deploy"]
    assert one["command"] == ["serve", "--config", f"{folder}/glam.toml"]
    assert [volume.split(":")[0] for volume in one["volumes"]] == [f"{folder}", f"{tmp_path}/bundle", f"{folder}/data"]
    assert one["user"] == f"{os.geteuid()}:{pwd.getpwuid(os.geteuid()).pw_gid}"
    assert one["healthcheck"]["test"][-4:] == ["doctor", "--ready", "--config", f"{folder}/glam.toml"]
    assert found["orthanc"]["command"] == [f"{folder}/orthanc.json"]


def test_the_test_pacs_and_the_appliance_know_each_other(cli: Cli, tmp_path: Path) -> None:
    assert run_init(cli, tmp_path / "made", "--pacs", "TESTPACS@127.0.0.1:4243").code == 0
    pacs: dict[str, Any] = json.loads((tmp_path / "made/orthanc.json").read_text())
    config = tomllib.loads((tmp_path / "made/glam.toml").read_text())
    assert (pacs["DicomAet"], pacs["DicomPort"]) == ("TESTPACS", 4243)
    assert pacs["DicomModalities"]["glam"]["Port"] == config["receive"]["port"]
    assert (config["targets"][0]["ae_title"], config["targets"][0]["port"]) == ("TESTPACS", 4243)


def test_the_program_is_this_installation() -> None:
    command = [*init.program(), "--version"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, PATHS))}
    said = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert said.startswith("glam-deploy, version")
    assert shlex.join(command).startswith(str(Path(sys.executable).parent))


@pytest.mark.parametrize("text", ["PACS@::1:104", "PACS@[::1]:104"])
def test_an_address_of_ipv6(text: str) -> None:
    assert init.peer(text) == init.Peer(ae_title="PACS", host="::1", port=104)
