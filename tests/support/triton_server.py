"""The Triton server of the package nvidia-pytriton as a process of its own, on free ports of the loopback interface."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import httpx
import numpy as np

from support.orthanc import free_port, wait_for

STUB = "triton_python_backend_stub"


def missing() -> str:
    """What this Python lacks for it; empty where nothing."""
    absent = [name for name in ("pytriton", "tritonclient", "grpc") if find_spec(name) is None]
    return f"{', '.join(absent)}: run make triton-test" if absent else ""


def _package() -> Path:
    spec = find_spec("pytriton")
    assert spec
    assert spec.origin
    return Path(spec.origin).parent


@dataclass(frozen=True, kw_only=True)
class TritonServer:
    """A started server."""

    process: subprocess.Popen[bytes]
    log: Path
    http_port: int = field(default_factory=free_port)
    grpc_port: int = field(default_factory=free_port)
    metrics_port: int = field(default_factory=free_port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def stubs(self) -> list[int]:
        """Process ids of the Python backend's processes of this server."""
        found = []
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                name, _, rest = status.read_text().partition("(")[2].rpartition(")")
            except OSError:  # it has ended
                continue
            if STUB.startswith(name) and int(rest.split()[1]) == self.process.pid:
                found.append(int(status.parent.name))
        return found

    @property
    def shared_bytes(self) -> int:
        """Bytes in /dev/shm through which the server and its only process of the Python backend exchange tensors."""
        (stub,) = self.stubs
        files = {
            line.split()[-1] for line in Path(f"/proc/{stub}/maps").read_text().splitlines() if "shm_region" in line
        }
        return sum(Path(file).stat().st_blocks * 512 for file in files)

    def ready(self) -> bool:
        """Whether the server and all its models are ready. AssertionError with the log if it has ended."""
        assert self.process.poll() is None, self.log.read_text()
        try:
            return httpx.get(f"{self.url}/v2/health/ready").status_code == 200
        except httpx.TransportError:
            return False

    def metrics(self, name: str) -> float:
        """Sum of a counter of the model "glam"."""
        text = httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics").text
        lines = [line for line in text.splitlines() if line.startswith(f'{name}{{model="glam"')]
        return sum(float(line.split()[-1]) for line in lines)


@contextmanager
def backends(folder: Path) -> Iterator[Path]:
    """Folder of backends: the Python backend, the stub for this Python, and numpy, which the stub imports first."""
    server, python = _package() / "tritonserver", folder / "python"
    python.mkdir(parents=True)
    stub = server / f"python_backend_stubs/{sys.version_info[0]}.{sys.version_info[1]}" / STUB
    for file in (*(server / "backends/python").glob("*.*"), stub):
        shutil.copy(file, python)
    site = Path(np.__file__).parents[1]
    for name in ("numpy", "numpy.libs"):
        (python / name).symlink_to(site / name)
    yield folder


@contextmanager
def triton_server(repository: Path, room: Path) -> Iterator[TritonServer]:
    """A server of the repository, which may not be ready yet; stopped at the end by SIGTERM."""
    ports = [free_port() for _ in range(3)]
    with backends(room / "backends") as folder, (room / "log").open("wb") as log:
        command = [_package() / "tritonserver/bin/tritonserver", "--model-repository", repository]
        command += ["--backend-directory", folder, "--exit-timeout-secs", "20"]
        for kind, port in zip(("http", "grpc", "metrics"), ports, strict=True):
            command += [f"--{kind}-address", "127.0.0.1", f"--{kind}-port", str(port)]
        libraries = {"LD_LIBRARY_PATH": str(_package().parent / "nvidia_pytriton.libs")}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | libraries)
    http, grpc, metrics = ports
    server = TritonServer(process=process, log=room / "log", http_port=http, grpc_port=grpc, metrics_port=metrics)
    try:
        yield server
    finally:
        process.terminate()
        process.wait(timeout=60)


def wait_until_ready(server: TritonServer) -> None:
    wait_for(server.ready, "Triton to be ready", patience_s=120)
