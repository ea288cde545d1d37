"""No command, and no library that it loads, contacts another machine, looks up a name, or writes into the home."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from outside.strace import RESOLVER, Watched
from pacs.appliance import Appliance
from pacs.exams import write_exam
from support.engines import small_view
from support.orthanc import wait_for

from glam_deploy.dicom.mammography import Exam, write_view

ENGINES = ("onnx", "onnx-winograd", "openvino", "openvino-winograd", "torch")
LATER = "\nimport time; time.sleep(3)"
"""Telemetry is sent by threads of its own, some time after."""
QUANTIZE = """
from support.small_graphs import patches, small_local
from glam_export.precision.quantize import quantized
from glam_deploy.engines.openvino import graph_engine
from glam_deploy.networks import GLAM_CONCATENATION
narrow = quantized(small_local(), [{"patches": patch[None]} for patch in patches(2)])
graph_engine(narrow, "local", network=GLAM_CONCATENATION)
"""
EVERYTHING = """
import glam_deploy, onnxruntime, openvino, nncf, torch, onnx, onnxscript, safetensors, cv2
from openvino.tools.ovc import convert_model
"""
UNGUARDED = "import onnxruntime, openvino, nncf"


def assert_nothing_left(watched: Watched) -> None:
    assert watched.outside() == []
    assert watched.home_files() == []


def test_the_watch_can_fail(watched: Watched) -> None:
    """Without glam_deploy these imports look up www.google-analytics.com and leave identifiers in the home folder."""
    watched.run(code=UNGUARDED + LATER)
    assert watched.outside() != []
    assert {"intel/openvino_ga_cid", ".cache/Microsoft/DeveloperTools/.onnxruntime/deviceid"} <= {*watched.home_files()}


@pytest.mark.parametrize("first", ["glam_deploy", "glam_export", "glam_bench"])
def test_imports(watched: Watched, first: str) -> None:
    watched.run(code=f"import {first}\n{EVERYTHING}" + LATER)
    assert_nothing_left(watched)


def test_run(watched: Watched, bundle: Path, tmp_path: Path) -> None:
    view = small_view()
    write_view(tmp_path / "a.dcm", view.pixels, view=view.view, exam=Exam(seed="outside"))
    watched.run("run", tmp_path / "a.dcm", "--bundle", bundle, "--out", tmp_path / "out")
    assert_nothing_left(watched)


def test_run_dir(watched: Watched, bundle: Path, tmp_path: Path) -> None:
    write_exam(tmp_path / "in", "outside")
    watched.run("run-dir", tmp_path / "in", tmp_path / "out", "--bundle", bundle)
    assert_nothing_left(watched)


def test_triton(watched: Watched, bundle: Path, tmp_path: Path) -> None:
    watched.run("triton", "--bundle", bundle, "--out", tmp_path / "models")
    assert_nothing_left(watched)


def test_archive(watched: Watched, bundle: Path, tmp_path: Path) -> None:
    """Ray included, whose processes talk to each other on loopback and by sockets in their folder.

    gRPC opens resolv.conf at its start; a name would be looked up by a message to a name server.
    """
    pytest.importorskip("ray")
    view = small_view()
    (tmp_path / "in").mkdir()
    write_view(tmp_path / "in/a.dcm", view.pixels, view=view.view, exam=Exam(seed="outside"))
    watched.run("archive", tmp_path / "in", "--bundle", bundle, "--engine", "onnx", "--out", tmp_path / "out")
    assert [line for line in watched.outside() if not RESOLVER.search(line) and "/glam-ray-" not in line] == []
    assert watched.home_files() == []


def test_quantization(watched: Watched) -> None:
    watched.run(code=QUANTIZE + LATER)
    assert_nothing_left(watched)


def test_export(exported: Watched) -> None:
    assert_nothing_left(exported)


@pytest.mark.parametrize("engine", ENGINES)
def test_verify(watched: Watched, exported: Watched, engine: str) -> None:
    watched.run("verify", "--bundle", exported.folder / "bundle", "--engine", engine)
    assert_nothing_left(watched)


def test_bench(watched: Watched, exported: Watched, tmp_path: Path) -> None:
    arguments = ("--bundle", exported.folder / "bundle", "--quick", "--engine", "onnx,openvino")
    watched.run("bench", *arguments, "--out", tmp_path / "bench")
    assert_nothing_left(watched)


def test_serve(watched: Watched, bundle: Path, tmp_path: Path) -> None:
    """From its start to the results of an exam of four views that came by STOW-RS."""
    served = Appliance(folder=tmp_path / "appliance", bundle=bundle)
    served.configure()
    served.process = watched.start("serve", "--config", served.config)  # type: ignore[assignment]
    try:
        wait_for(served._is_ready, "the appliance to be ready", patience_s=180)
        _store(served, write_exam(tmp_path / "exam", "outside"))
        wait_for(lambda: served.count("SELECT count(*) FROM job WHERE state = 'done'"), "results", patience_s=180)
    finally:
        # the supervisor, and not strace, is told to stop
        with suppress(ProcessLookupError):
            os.killpg(served.process.pid, signal.SIGTERM)
        served.process.communicate(timeout=120)
    assert_nothing_left(watched)


def _store(served: Appliance, files: list[Path]) -> None:
    parts = b"".join(b"--part\r\nContent-Type: application/dicom\r\n\r\n" + f.read_bytes() + b"\r\n" for f in files)
    headers = {
        "Authorization": f"Bearer {served.token}",
        "Content-Type": 'multipart/related; type="application/dicom"; boundary=part',
        "Accept": "application/dicom+json",
    }
    answer = httpx.post(f"{served.url}/dicom-web/studies", content=parts + b"--part--\r\n", headers=headers, timeout=60)
    assert answer.status_code == httpx.codes.OK, answer.text
