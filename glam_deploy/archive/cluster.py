"""Ray: started on this machine for one run, or an existing cluster that is joined. The only start and stop of Ray.

On this machine every port of Ray is on loopback, and access needs a token that only this user can read. Ray listens on
loopback alone if clusters are off (RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0, the setting for Windows and macOS, which holds
on Linux too): then all of its processes take 127.0.0.1 as the address of the node.

Ray 2.60 asks the metadata services of clouds (169.254.169.254, metadata.google.internal) where it runs, even without
usage statistics, unless `~/ray_bootstrap_config.yaml` exists (`get_cluster_config_to_report` in its `usage_lib.py`). So
its processes start with a home folder that has this file, and the actors get back the real one (`actor_environment`).
"""

import os
import secrets
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glam_deploy.errors import BackendUnavailable, UsageError, disk_reason
from glam_deploy.processes import python_command

LOOPBACK = "127.0.0.1"
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # an actor without a GPU keeps CUDA_VISIBLE_DEVICES
    "RAY_DEDUP_LOGS": "0",
}
_LONGEST_BASE = 24
"""Longest path of the folder for temporary files, because those of Ray's sockets have at most 107 bytes (unix(7))."""
_ANSWER_S = 5.0
"""Longest time for an answer of a cluster's head."""
_SETTINGS = b"\4"
"""Type of the frame (RFC 9113 section 6.5)."""
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0" + _SETTINGS + b"\0\0\0\0\0"
"""With SETTINGS that has no content."""
_CLEANUP_S = 60.0
"""Longest time for the end of all processes of Ray."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine of the cluster."""

    id: str
    cpus: int
    gpus: int


@contextmanager
def local_cluster() -> Iterator[Any]:
    """Context with Ray, as the module `ray`, on this machine, for this process alone.

    At its end, and also if this process is killed, all processes of Ray end and its folder is removed (`cleanup.py`).
    Raises BackendUnavailable if Ray does not start.
    """
    # Ray lets everybody write into its own folder, so that folder is inside one that only this user can enter
    temporary = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="glam-ray-", dir=temporary if len(temporary) <= _LONGEST_BASE else "/tmp"))
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32), "ascii")
    cleanup = subprocess.Popen(
        python_command("-m", "glam_deploy.archive.cleanup", folder), stdin=subprocess.PIPE, start_new_session=True
    )
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    try:
        # RAY_ADDRESS would join another cluster
        with (
            _environment(settings | _QUIET, without=("RAY_AUTH_TOKEN", "RAY_ADDRESS")),
            _connected(
                address="local",
                home=_quiet_home(folder),
                _node_ip_address=LOOPBACK,
                _temp_dir=str(folder / "ray"),
                num_cpus=len(os.sched_getaffinity(0)),
                include_dashboard=False,
            ) as ray,
        ):
            yield ray
    finally:
        # the pipe's end tells it that this process has finished with Ray
        assert cleanup.stdin is not None
        cleanup.stdin.close()
        cleanup.wait(_CLEANUP_S)


@contextmanager
def joined_cluster(address: str) -> Iterator[Any]:
    """Context with Ray, as the module `ray`, connected to the cluster at `address`, host:port of its head.

    The token is that of RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token, and RAY_AUTH_MODE is "token" unless
    the environment says otherwise. Raises UsageError if the cluster cannot be joined.
    """
    _require_head(address)
    settings = {"RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "token")}
    with _environment(settings | _QUIET), _connected(address=address) as ray:
        yield ray


def _require_head(address: str) -> None:
    """Raise UsageError if no head of a cluster answers at `address`: Ray itself tries for more than a minute.

    A head speaks gRPC, so HTTP/2, which is not checked if Ray uses TLS.
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or "/" in host or not (port.isascii() and port.isdecimal() and 0 < int(port) < 1 << 16):
        raise UsageError(f"--ray {address} is no address, expected HOST:PORT of the head, as `ray start --head` has it")
    try:
        with socket.create_connection((host, int(port)), timeout=_ANSWER_S) as connection:
            is_head = os.environ.get("RAY_USE_TLS", "0") != "0" or _speaks_http2(connection)
    except socket.gaierror:
        reason = f"the host {host} is not known"
    except TimeoutError:
        reason = f"there was no answer within {_ANSWER_S:g} seconds"
    except OSError as error:
        reason = disk_reason(error)
    else:
        if is_head:
            return
        reason = "another program than a head of Ray listens there"
    raise UsageError(
        f"the Ray cluster {address} cannot be joined ({reason}): check host and port, start it there with ray start "
        "--head --port=PORT, and open the port between the machines"
    )


def _speaks_http2(connection: socket.socket) -> bool:
    """Whether the peer answers the preface of a connection with SETTINGS (RFC 9113 section 3.4)."""
    connection.sendall(_PREFACE)
    found = b""
    while len(found) < 4 and (more := connection.recv(4 - len(found))):
        found += more
    return found[3:] == _SETTINGS


def nodes(ray: Any) -> list[Node]:
    """The nodes that are alive, in the order of their ids."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    found = [
        Node(
            id=node["NodeID"],
            cpus=int(node["Resources"].get("CPU", 0)),
            gpus=int(node["Resources"].get("GPU", 0)),
        )
        for node in alive
    ]
    return sorted((node for node in found if node.cpus or node.gpus), key=lambda node: node.id)


def actor_environment() -> dict[str, str]:
    """Environment variables of actors in a cluster of `local_cluster`, besides those that they inherit."""
    return {"HOME": str(Path("~").expanduser())}


def _quiet_home(folder: Path) -> Path:
    home = folder / "home"
    home.mkdir()
    (home / "ray_bootstrap_config.yaml").write_text("{}\n", "ascii")
    return home


@contextmanager
def _connected(address: str, home: Path | None = None, **options: Any) -> Iterator[Any]:
    """Context with Ray. `home`: home folder of the processes that Ray starts; None for that of this process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # read when Ray is imported, after `_environment`
    import ray

    try:
        try:
            # Ray puts the current folder of this moment on `sys.path` of its processes (see `processes`)
            with chdir("/"), _environment({"HOME": str(home)} if home else {}):
                ray.init(
                    address=address, log_to_driver=False, logging_level="error", configure_logging=False, **options
                )
        except Exception as error:  # Ray raises a plain one if its processes do not start in time
            raise _refusal(address, error) from error
        except SystemExit:
            # of the handler of SIGTERM that Ray sets
            if callable(handler := handlers[signal.SIGTERM]):
                handler(signal.SIGTERM, None)
            raise
        # Ray ends the process at SIGTERM without what `finally` has to do
        for number, handler in handlers.items():
            signal.signal(number, handler)
        yield ray
    finally:
        ray.shutdown()


def _refusal(address: str, error: Exception) -> UsageError | BackendUnavailable:
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
    if address == "local":
        return BackendUnavailable(
            f"Ray did not start on this machine ({reason}): free memory, processors and space in /tmp, and run the "
            "same command again"
        )
    return UsageError(
        f"the Ray cluster {address} cannot be joined ({reason}): check the address, that Ray and Python have the same "
        "versions there, and the token in RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
    )


@contextmanager
def _environment(settings: Mapping[str, str], *, without: tuple[str, ...] = ()) -> Iterator[None]:
    """Context with these environment variables, which Ray and its processes read."""
    names = (*settings, *without)
    before = {name: os.environ.get(name) for name in names}
    for name in without:
        os.environ.pop(name, None)
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
