"""The supervisor with real processes: restarts, stopping, and no process left when it is killed itself."""

import fcntl
import os
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from threading import Event

import pytest
from support.backups import spoil_table
from support.commands import PLAIN, ROOT, start_process
from support.until import until

from glam_deploy.appliance import supervisor
from glam_deploy.appliance.config import parse_config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.state.database import open_database

SUPERVISE = """
import os, sys
from pathlib import Path
from glam_deploy.appliance import supervisor
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.process import configure_logging
configure_logging("serve")
data = DataFolder(root=Path(os.environ["GLAM_TEST_ROLES"], "data"))
data.make()
supervisor.open_database(data.database).close()
supervisor.FIRST_RETRY_S = supervisor.LONGEST_RETRY_S = 0.05
supervisor.STOP_S = float(sys.argv[1])
supervisor.CHECK_S, supervisor.MISSED_CHECKS = 0.1, 30
stop = supervisor.stop_on_signals()
sys.exit(supervisor.supervise([sys.argv[2]], stop, roles=sys.argv[3:], watch=supervisor.Watchdog(data)))
"""

Supervise = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def supervise(tmp_path: Path) -> Iterator[Supervise]:
    """Starts the supervisor over stand-ins of these names."""
    started: list[subprocess.Popen[str]] = []

    def start(*roles: str, stop_s: float = 30, **env: str) -> subprocess.Popen[str]:
        program = ROOT / "tests/support/roles.py"
        env = {"GLAM_TEST_ROLES": str(tmp_path), **env}
        started.append(start_process(stop_s, program, *roles, code=SUPERVISE, env=env))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def pid_of(folder: Path, role: str, start: int = 0) -> int:
    path = folder / f"{role}.{start}"
    until(path.exists)
    return int(path.read_text())


def state_of(pid: int) -> str:
    """Of proc(5): R, S, D, T (stopped), Z (ended, not yet collected); "" if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""


def is_alive(pid: int) -> bool:
    return state_of(pid) not in ("", "Z")


def test_role_that_dies_is_started_again_and_the_others_are_left_alone(tmp_path: Path, supervise: Supervise) -> None:
    process = supervise("steady-a", "steady-b")
    first, other = pid_of(tmp_path, "steady-a"), pid_of(tmp_path, "steady-b")
    os.kill(first, signal.SIGKILL)
    second = pid_of(tmp_path, "steady-a", start=1)
    assert second != first
    assert is_alive(other)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert "steady-a ended by signal 9 and is restarted" in err
    assert not (tmp_path / "steady-b.1").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_stops_all_and_ends_well(tmp_path: Path, supervise: Supervise, number: int) -> None:
    process = supervise("steady-a", "steady-b", "crash")
    pids = [pid_of(tmp_path, "steady-a"), pid_of(tmp_path, "steady-b")]
    process.send_signal(number)
    process.communicate()
    assert process.returncode == 0
    assert [name.name for name in sorted(tmp_path.glob("*.stopped"))] == ["steady-a.stopped", "steady-b.stopped"]
    assert not any(map(is_alive, pids))


def test_role_that_does_not_stop_is_killed(tmp_path: Path, supervise: Supervise) -> None:
    process = supervise("deaf", stop_s=0.5)
    pid = pid_of(tmp_path, "deaf")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 0
    assert not is_alive(pid)
    assert "deaf did not stop within 0.5 s: killing it" in err


def test_the_others_stop_while_one_does_not(tmp_path: Path, supervise: Supervise) -> None:
    process = supervise("deaf", "steady")
    pid = pid_of(tmp_path, "deaf")
    pid_of(tmp_path, "steady")
    process.send_signal(signal.SIGTERM)
    until((tmp_path / "steady.stopped").exists)
    os.kill(pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == 0


def test_role_that_hangs_is_killed_and_started_again_and_the_others_are_left_alone(
    tmp_path: Path, supervise: Supervise
) -> None:
    process = supervise("beating-a", "beating-b")
    hung, other = pid_of(tmp_path, "beating-a"), pid_of(tmp_path, "beating-b")
    until(lambda: {"beating-a", "beating-b"} <= set(spoken(tmp_path)))
    with closing(sqlite3.connect(tmp_path / "data/state.db", timeout=60, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")  # stopped with the write lock, it would keep the others from writing
        os.kill(hung, signal.SIGSTOP)
        until(lambda: state_of(hung) == "T")
    assert pid_of(tmp_path, "beating-a", start=1) != hung
    assert not is_alive(hung)
    assert is_alive(other)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert "beating-a has written no heartbeat for 3 s, while others did: killing it" in err
    assert not (tmp_path / "beating-b.1").exists()
    (audited,) = (tmp_path / "data/audit").iterdir()
    assert '"event": "role_killed", "role": "beating-a"' in audited.read_text()


def spoken(folder: Path) -> list[str]:
    with closing(sqlite3.connect(folder / "data/state.db")) as connection:
        return [name for (name,) in connection.execute("SELECT name FROM component")]


def test_second_signal_ends_everything_at_once(tmp_path: Path, supervise: Supervise) -> None:
    process = supervise("deaf")
    pid = pid_of(tmp_path, "deaf")
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    until(lambda: not is_alive(pid))


def test_no_process_outlives_a_killed_supervisor(tmp_path: Path, supervise: Supervise) -> None:
    process = supervise("deaf", "steady")
    pids = [pid_of(tmp_path, "deaf"), pid_of(tmp_path, "steady")]
    process.kill()
    process.communicate()
    until(lambda: not any(map(is_alive, pids)))


@pytest.mark.parametrize(("role", "code"), [("wrong", 2), ("lacking", 3)])
def test_role_that_cannot_start_at_all_ends_everything(
    tmp_path: Path, supervise: Supervise, role: str, code: int
) -> None:
    process = supervise("steady", role)
    _, err = process.communicate()
    assert process.returncode == code
    assert f"{role} ended with exit code {code} and cannot work with this configuration: stopping all" in err
    assert len(list(tmp_path.glob(f"{role}.*"))) == 1, "it was started again"


def test_role_that_has_run_before_is_tried_for_ever(tmp_path: Path, supervise: Supervise) -> None:
    process = supervise("once")
    pid_of(tmp_path, "once", start=4)
    assert process.poll() is None


def test_service_manager_hears_of_it(tmp_path: Path, supervise: Supervise) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        process = supervise("steady", NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert [manager.recv(64) for _ in range(3)] == [b"READY=1", b"WATCHDOG=1", b"WATCHDOG=1"]
        process.send_signal(signal.SIGTERM)
        process.communicate()
        said = [manager.recv(64)]
        while said[-1] != b"STOPPING=1":
            said.append(manager.recv(64))


# the command


MINIMAL = 'license_acknowledged = true\ndata = "data"\n[worker]\nbundle = "bundle"\n'


def serve(folder: Path, *arguments: str, text: str = MINIMAL) -> tuple[int, str]:
    (folder / "glam.toml").write_text(text)
    process = start_process("serve", "--config", folder / "glam.toml", *arguments, code=PLAIN)
    _, err = process.communicate(timeout=60)
    return process.returncode, err


def test_wrong_configuration_ends_it_before_anything_starts(tmp_path: Path) -> None:
    code, err = serve(tmp_path, text="data = 3")
    assert code == 2
    assert all(key in err for key in ("license_acknowledged", "data", "worker"))
    assert not (tmp_path / "data").exists()


def test_unknown_role_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    code, err = serve(tmp_path, "--role", "cook")
    assert code == 2
    assert "receiver, web, fetcher, keeper, worker, dispatcher" in err


def test_data_folder_that_cannot_be_made_ends_it(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    code, err = serve(tmp_path)
    assert code == 2
    assert "the data folder" in err


def test_what_the_supervisor_makes_is_for_this_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("supervise", "configure_logging"):
        monkeypatch.setattr(supervisor, name, lambda *args, **options: 0)
    before = os.umask(0o022)
    try:
        assert supervisor.supervise_all(parse_config(MINIMAL, folder=tmp_path), tmp_path / "glam.toml", Event()) == 0
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o077 for path in (tmp_path / "data").iterdir()}
    assert {"state.db", "audit.key"} <= set(modes)
    assert set(modes.values()) == {0}


def test_a_damaged_database_ends_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    open_database(data / "state.db").close()
    spoil_table(data / "state.db", "study")
    code, err = serve(tmp_path)
    assert code == 2
    assert f"{data / 'state.db'} is damaged (" in err and "restore a backup" in err and "Traceback" not in err


def test_role_alone_stops_well_when_told(tmp_path: Path) -> None:
    (tmp_path / "glam.toml").write_text(MINIMAL)
    process = start_process("serve", "--config", tmp_path / "glam.toml", "--role", "keeper", code=PLAIN)
    with closing(process.stdout), closing(process.stderr):  # type: ignore[type-var]
        until((tmp_path / "data/state.db").exists)
        limits = Path(f"/proc/{process.pid}/limits").read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    (core,) = (line.split() for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core[4:6] == ["0", "0"]  # a core file would hold images, tokens and keys


def test_a_role_logs_each_line_once(tmp_path: Path) -> None:
    (tmp_path / "glam.toml").write_text(f"receive = {{ port = 0 }}\n{MINIMAL}")
    process = start_process("serve", "--config", tmp_path / "glam.toml", "--role", "receiver", code=PLAIN)
    first = process.stderr.readline()  # type: ignore[union-attr]
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=60)
    assert "receiver INFO listening as GLAM" in first
    assert (first + rest).count("listening as GLAM") == 1


@pytest.mark.parametrize("kind", ["dispatcher", "supervisor"])
def test_a_data_folder_has_one_process_of_each_kind(tmp_path: Path, kind: str) -> None:
    """Two dispatchers would send each object twice."""
    (tmp_path / "glam.toml").write_text(f"receive = {{ port = 0 }}\nweb = {{ port = 0 }}\n{MINIMAL}")
    DataFolder(root=tmp_path / "data").make()
    role = () if kind == "supervisor" else ("--role", kind)
    with (tmp_path / f"data/locks/{kind}").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        process = start_process("serve", "--config", tmp_path / "glam.toml", *role, code=PLAIN)
        _, told = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"another process is the {kind} of the data folder {tmp_path}/data already: stop it" in told


def test_a_role_is_free_again_when_its_process_is_killed(tmp_path: Path) -> None:
    (tmp_path / "glam.toml").write_text(MINIMAL)
    lock = tmp_path / "data/locks/keeper"
    process = start_process("serve", "--config", tmp_path / "glam.toml", "--role", "keeper", code=PLAIN)
    try:
        until(lambda: lock.exists() and _is_held(lock))
    finally:
        process.kill()
        process.communicate()
    assert not _is_held(lock)


def _is_held(lock: Path) -> bool:
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
