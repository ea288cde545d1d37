"""The lines of docs/serving.md, typed as they are printed; `make triton-test` runs these."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from expected import need
from support.commands import ROOT
from support.orthanc import free_port, wait_for
from support.served import exam
from support.tiny_bundle import write_tiny_bundle
from support.triton_server import TritonServer, missing

from glam_deploy.records import View

pytestmark = pytest.mark.triton

PAGE = (ROOT / "docs/serving.md").read_text("utf-8")
PATHS = os.pathsep.join([str(Path(sys.executable).parent), str(ROOT / ".venv/bin"), os.environ["PATH"]])
"""The environment of the server, then that of glam-deploy, which `make triton-test` adds to it."""


def block(having: str) -> str:
    """The only block of lines of the page with a text."""
    (found,) = [one for one in re.findall(r"^```\w*\n(.+?)^```", PAGE, re.DOTALL | re.MULTILINE) if having in one]
    return str(found)


@contextmanager
def typed(lines: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Lines in a shell that ends at the first error; it and all that it starts are ended by SIGTERM."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-ec", lines],
            cwd=folder,
            env=os.environ | {"PATH": PATHS},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=60)


def test_server_without_a_container(tmp_path: Path) -> None:
    """From a bundle to an answer, with the server of the package; its ports are others."""
    need("triton", missing())
    write_tiny_bundle(tmp_path / "bundle")
    ports = {kind: free_port() for kind in ("http", "grpc", "metrics")}
    lines = block("pip install --no-deps nvidia-pytriton")
    for kind, port in ports.items():
        lines = lines.replace(f"--{kind}-address", f"--{kind}-port {port} --{kind}-address")
    url = f"http://127.0.0.1:{ports['http']}/v2/models/glam"
    with typed(lines, tmp_path) as process:

        def ready() -> bool:
            assert process.poll() is None, (tmp_path / "log").read_text()
            try:
                return httpx.get(f"{url}/ready").status_code == 200
            except httpx.TransportError:
                return False

        wait_for(ready, "Triton to be ready", patience_s=120)
        junk = {"inputs": [{"name": "DICOM", "shape": [1, 1], "datatype": "UINT8", "data": [0]}]}
        answer = httpx.post(f"{url}/infer", json=junk, timeout=60)
        assert (answer.status_code, "DICOM" in answer.text) == (400, True)


@pytest.mark.parametrize(("model", "code"), [("glam", 0), ("absent", 1)])
def test_liveness_probe(model: str, code: int, server: TritonServer, tmp_path: Path) -> None:
    (tmp_path / "probe.dcm").write_bytes(exam(tmp_path / "exam")[View.L_CC])
    lines = block("curl --silent").replace(":8000", f":{server.http_port}").replace("models/glam", f"models/{model}")
    ran = subprocess.run(["bash", "-c", lines], cwd=tmp_path, check=False, capture_output=True, text=True)
    assert ran.returncode == code, ran.stderr
    assert ('"y_global"' in (tmp_path / "answer").read_text("latin-1")) == (code == 0)
