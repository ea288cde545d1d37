"""The examples for other people's servers answer as the pipeline, and each is as short as the documentation says.

The packages of FastAPI, LitServe and MONAI Deploy are in the environment of `make triton-test`.
"""

import asyncio
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from expected import need
from support.commands import ROOT
from support.orthanc import free_port, wait_for
from support.served import exam
from support.tiny_bundle import write_tiny_bundle

import glam_deploy
from glam_deploy.installation import is_installed
from glam_deploy.records import View
from glam_deploy.runtime.result import Result

EXAMPLES = ROOT / "examples"
OPENAPI = ROOT / "docs/openapi/serving.json"


def need_package(name: str) -> None:
    need("examples", "" if is_installed(name) else f"{name}: run make triton-test")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_tiny_bundle(tmp_path / "bundle")


@pytest.fixture
def views(tmp_path: Path) -> dict[View, bytes]:
    return exam(tmp_path / "exam")


@pytest.fixture
def result(bundle: Path, views: dict[View, bytes]) -> Result:
    """Of the view R-MLO."""
    with glam_deploy.load(bundle) as pipeline:
        return pipeline(views[View.R_MLO])


def boxes(result: Result) -> list[list[int] | None]:
    return [list(box) if box else None for box in result.patch_boxes_in_source]


@contextmanager
def running(command: list[object], environment: dict[str, str]) -> Iterator[int]:
    """Id of a process with all that it starts, which is ended."""
    with subprocess.Popen(
        list(map(str, command)), env=os.environ | environment, cwd=ROOT, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process.pid
        finally:
            process.terminate()
            process.wait(timeout=60)


def family(first: int) -> set[int]:
    """Ids of a process, of all processes that it has started, and of theirs."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
    found = {first}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_is_under_sixty_lines(example: Path) -> None:
    assert len(example.read_text("utf-8").splitlines()) < 60


def fastapi_app(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    need_package("fastapi")
    monkeypatch.setenv("GLAM_BUNDLE", str(bundle))
    return runpy.run_path(str(EXAMPLES / "fastapi_service.py"))["create_app"]()


def test_fastapi(bundle: Path, views: dict[View, bytes], result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    app = fastapi_app(bundle, monkeypatch)

    async def post(data: bytes) -> httpx.Response:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.post("/lesions", content=data, headers={"Content-Type": "application/dicom"})

    answer = asyncio.run(post(views[View.R_MLO]))
    assert answer.status_code == 200
    assert answer.json() == {
        "scores": result.predictions,
        "patches": boxes(result),
        "warnings": [notice.message for notice in result.notices],
    }
    refused = asyncio.run(post(b"no image"))
    assert refused.status_code == 422
    assert "DICOM" in refused.json()["error"]


def test_openapi_is_that_of_the_documentation(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fastapi_app(bundle, monkeypatch).openapi() == json.loads(OPENAPI.read_text("utf-8"))


def test_litserve(bundle: Path, views: dict[View, bytes], result: Result) -> None:
    need_package("litserve")
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/health").status_code == 200
        except httpx.TransportError:
            return False

    command = [sys.executable, EXAMPLES / "litserve_service.py", port]
    with running(command, {"GLAM_BUNDLE": str(bundle)}) as process:
        wait_for(ready, "LitServe to be ready")
        answer = httpx.post(f"{url}/predict", files={"content": views[View.R_MLO]}, timeout=60)
        refused = httpx.post(f"{url}/predict", files={"content": b"no image"}, timeout=60)
        without = [
            httpx.post(f"{url}/predict", files={"image": views[View.R_MLO]}, timeout=60),
            httpx.post(f"{url}/predict", data={"content": "text"}, timeout=60),
            httpx.post(f"{url}/predict", json=[1], timeout=60),
        ]
        processes = family(process)
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes), "the processes of LitServe to end")
    assert len(processes) >= 4
    assert [(one.status_code, "no file" in one.text) for one in without] == [(422, True)] * 3
    assert answer.json() == {"scores": result.predictions, "patches": boxes(result)}
    assert refused.status_code == 422
    assert "DICOM" in refused.json()["detail"]


def test_requirements_of_the_page_are_those_of_the_tests() -> None:
    """Of the lines for pip: each release is in the environment of `make triton-test`."""
    page = (ROOT / "docs/serving.md").read_text("utf-8")
    named = set(re.findall(r"[\w-]+(?:\[[\w,]+\])?==[\d.]+", page))
    made = set(re.findall(r"[\w-]+(?:\[[\w,]+\])?==[\d.]+", (ROOT / "Makefile").read_text("utf-8")))
    assert {one.partition("==")[0] for one in named} == {
        *("fastapi", "uvicorn", "litserve", "python-multipart", "nvidia-pytriton", "tritonclient[http,grpc]")
    }
    assert named <= made


def test_monai_deploy(bundle: Path, tmp_path: Path, result: Result) -> None:
    need_package("monai.deploy")
    (tmp_path / "exam/bad.dcm").write_bytes((tmp_path / "exam/L-CC.dcm").read_bytes()[:-50])
    folders = {"MODEL": bundle, "INPUT": tmp_path / "exam", "OUTPUT": tmp_path / "results"}
    environment = {f"HOLOSCAN_{name}_PATH": str(folder) for name, folder in folders.items()}
    command = [sys.executable, EXAMPLES / "monai_operator.py"]
    subprocess.run(command, env=os.environ | environment, cwd=tmp_path, check=True, capture_output=True, timeout=120)
    reports = {path.name: json.loads(path.read_text()) for path in (tmp_path / "results").iterdir()}
    assert sorted(reports) == sorted([*(f"{view}.dcm.json" for view in View), "bad.dcm.json"])
    made, expected = reports["R-MLO.dcm.json"], result.to_dict()
    assert (made["predictions"], made["patches"]) == (expected["predictions"], expected["patches"])
    assert "it ends within an element" in reports["bad.dcm.json"]["error"]


MERCURE = EXAMPLES / "mercure_module.py"


def run_mercure(bundle: Path, room: Path, task: bytes) -> subprocess.CompletedProcess[str]:
    """By mercure's contract: DICOM files and task.json in one folder; DICOM files and result.json in the other."""
    (room / "exam").mkdir(exist_ok=True)
    (room / "exam/task.json").write_bytes(task)
    environment = os.environ | {"MERCURE_IN_DIR": str(room / "exam"), "MERCURE_OUT_DIR": str(room / "out")}
    command = [sys.executable, MERCURE, bundle]
    return subprocess.run(command, env=environment, cwd=room, check=False, capture_output=True, text=True)


@pytest.mark.slow
def test_mercure(bundle: Path, views: dict[View, bytes], tmp_path: Path) -> None:
    task = {"id": "1", "process": [{"module_name": "glam", "settings": {"patches": 3}}]}
    ran = run_mercure(bundle, tmp_path, json.dumps(task).encode())
    assert ran.returncode == 0, ran.stderr
    studies = json.loads((tmp_path / "out/result.json").read_text())["studies"]
    found = {one["view"]: one["predictions"] for study in studies for one in study["views"]}
    with glam_deploy.load(bundle, patches=3) as pipeline:
        assert found == {view: pipeline(data).to_dict()["predictions"] for view, data in views.items()}
    assert list((tmp_path / "out").glob("*.dcm"))


def test_mercure_refuses_an_unknown_setting(bundle: Path, tmp_path: Path) -> None:
    ran = run_mercure(bundle, tmp_path, b'{"process": {"settings": {"pathces": 3}}}')
    assert ran.returncode == 2
    assert "pathces" in ran.stderr


@pytest.mark.parametrize("task", [b"[]", b"3", b"{", b"\xff", b'{"process": 3}', b'{"process": {"settings": [1]}}'])
def test_mercure_refuses_a_task_of_another_form(task: bytes, bundle: Path, tmp_path: Path) -> None:
    ran = run_mercure(bundle, tmp_path, task)
    assert ran.returncode == 2
    assert ran.stderr.startswith("task.json cannot be used (")
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("task", ["{}", '{"process": null}', '{"process": {"settings": null}}', '{"process": [{}]}'])
def test_mercure_without_settings(task: str, tmp_path: Path) -> None:
    (tmp_path / "task.json").write_text(task)
    assert runpy.run_path(str(MERCURE))["settings"](tmp_path / "task.json") == {}
