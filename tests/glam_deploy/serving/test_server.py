"""A real Triton server: answers equal the pipeline's byte by byte; `make triton-test` runs these."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any
from warnings import catch_warnings

import httpx
import numpy as np
import pytest
from expected import need
from pydicom import dcmread
from support.commands import ROOT
from support.orthanc import wait_for
from support.served import exam, standardized, versions, write_repository
from support.triton_server import TritonServer, missing, triton_server, wait_until_ready

import glam_deploy
from glam_deploy.records import View
from glam_deploy.runtime.pipeline import Pipeline
from glam_deploy.runtime.result import Result
from glam_deploy.serving.config import QUEUE
from glam_deploy.serving.tensors import outputs
from glam_export.exporter import ExportOptions, export_bundle

pytestmark = [pytest.mark.triton, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

Infer = Callable[..., Any]
METADATA = ROOT / "docs/openapi/kserve-glam.json"


def infer_over(protocol: str, server: TritonServer) -> Infer:
    """A function: inputs by name -> answer of tritonclient, which raises InferenceServerException."""
    client = import_module(f"tritonclient.{protocol}")
    port = {"http": server.http_port, "grpc": server.grpc_port}[protocol]
    connection = client.InferenceServerClient(f"127.0.0.1:{port}")

    def infer(**arrays: np.ndarray) -> Any:
        inputs = []
        for name, array in arrays.items():
            tensor = client.InferInput(name, array.shape, "UINT8" if array.dtype == np.uint8 else "FP32")
            tensor.set_data_from_numpy(array)
            inputs.append(tensor)
        return connection.infer("glam", inputs)

    return infer


def content(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)[None]


def assert_equal(answer: Any, result: Result) -> None:
    """Every output byte by byte; the report but for times and the patch release of the server's Python."""
    for name, array in outputs(result).items():
        if name != "report":
            found = answer.as_numpy(name)
            assert (found.dtype, found.shape) == (array.dtype, array.shape), name
            assert found.tobytes() == array.tobytes(), name
    found, expected = json.loads(bytes(answer.as_numpy("report")[0])), result.to_dict()
    for report in (found, expected):
        del report["timings_ms"], report["provenance"]["versions"]["python"]
    assert found == expected


@pytest.fixture(scope="module")
def pipeline(server: TritonServer) -> Pipeline:
    return glam_deploy.load(server.log.parent / "bundle", patches=2)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_answers_are_those_of_the_pipeline(
    protocol: str, server: TritonServer, pipeline: Pipeline, tmp_path: Path
) -> None:
    infer = infer_over(protocol, server)
    for data in exam(tmp_path).values():
        assert_equal(infer(DICOM=content(data)), pipeline(data))
    image = standardized()
    assert_equal(infer(IMAGE=image[None]), pipeline(image))


def test_json_without_the_binary_extension(server: TritonServer, pipeline: Pipeline, tmp_path: Path) -> None:
    """As the documentation shows it: numbers in JSON, of the open inference protocol."""
    (data, *_) = exam(tmp_path).values()
    tensor = {"name": "DICOM", "shape": [1, len(data)], "datatype": "UINT8", "data": list(data)}
    wanted = [{"name": "y_global"}, {"name": "patch_boxes_in_source"}]
    made = httpx.post(f"{server.url}/v2/models/glam/infer", json={"inputs": [tensor], "outputs": wanted}, timeout=60)
    found, expected = {one["name"]: one["data"] for one in made.json()["outputs"]}, pipeline(data)
    assert np.array(found["y_global"], np.float32).tobytes() == expected.y_global.tobytes()
    boxes = [number for box in expected.patch_boxes_in_source for number in box or (-1,) * 4]
    assert found["patch_boxes_in_source"] == boxes


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_client_of_the_documentation(
    protocol: str, server: TritonServer, pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = exam(tmp_path)
    (code,) = re.findall(
        r"^```python\n(.+?)^```", (ROOT / "docs/serving.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    port = {"http": server.http_port, "grpc": server.grpc_port}[protocol]
    code = code.replace("import tritonclient.http as triton  #", f"import tritonclient.{protocol} as triton  #")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code.replace("8000", str(port)), names)
    expected = pipeline(views[View.L_CC])
    assert names["scores"][0].tobytes() == expected.y_global.tobytes()
    assert names["report"]["patches"] == expected.to_dict()["patches"]


def test_answers_are_those_of_run(server: TritonServer, tmp_path: Path) -> None:
    (data, *_) = exam(tmp_path / "exam").values()
    bundle = server.log.parent / "bundle"
    command = [".venv/bin/glam-deploy", "run", "--bundle", bundle, "--patches", "2", "--out", tmp_path / "out"]
    subprocess.run([*command, tmp_path / "exam/L-CC.dcm"], check=True, cwd=ROOT, capture_output=True)
    answer = infer_over("http", server)(DICOM=content(data))
    with np.load(tmp_path / "out/L-CC.npz") as file:
        assert len(file.files) >= 6
        for name in file.files:
            assert answer.as_numpy(name)[0].tobytes() == file[name].tobytes(), name
    report, saved = (
        json.loads(bytes(answer.as_numpy("report")[0])),
        json.loads((tmp_path / "out/L-CC.json").read_bytes()),
    )
    assert all(report[key] == saved[key] for key in ("predictions", "patches", "preprocessing", "warnings"))


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_bad_image_is_an_error_of_its_request_alone_with_eight_clients(
    protocol: str, server: TritonServer, pipeline: Pipeline, tmp_path: Path
) -> None:
    """Requests of all clients meet in batches: objects of four sizes, standardized images, and what is no image."""
    client = import_module("tritonclient.utils")
    views, image = list(exam(tmp_path).values()), standardized()
    expected = [pipeline(data) for data in views] + [pipeline(image)]
    before = server.metrics("nv_inference_request_success"), server.metrics("nv_inference_exec_count")

    def ask(number: int) -> str:
        kind, infer = number % 8, infer_over(protocol, server)  # tritonclient's HTTP client belongs to a thread
        bad = {5: content(views[0][:-40]), 6: content(b"no image"), 7: content(b"")}
        try:
            answer = infer(DICOM=bad[kind]) if kind > 4 else infer(**inputs[kind])
        except client.InferenceServerException as error:
            return f"{error.status()} {error.message()}"
        assert_equal(answer, expected[kind])
        return "done"

    inputs = [{"DICOM": content(data)} for data in views] + [{"IMAGE": image[None]}]
    with ThreadPoolExecutor(8) as clients:
        said = list(clients.map(ask, range(16)))
    for number, one in enumerate(said):
        assert (one == "done") == (number % 8 <= 4), (number, one)
    refused = [one for one in said if one != "done"]
    assert all(("400" in one) if protocol == "http" else ("INVALID_ARGUMENT" in one) for one in refused), refused
    assert sum("DICOM" in one for one in refused) >= 2
    assert not [one for one in refused if "--" in one or "view=" in one]
    answered = server.metrics("nv_inference_request_success") - before[0]
    batches = server.metrics("nv_inference_exec_count") - before[1]
    assert answered + server.metrics("nv_inference_request_failure") >= 10
    assert 0 < batches < answered, "no two requests met in a batch"
    assert server.ready()


def test_log_has_nothing_of_a_header(server: TritonServer, tmp_path: Path) -> None:
    """After the requests of this module, and of objects with values that pydicom quotes in warnings; one is refused."""
    exam(tmp_path)
    with catch_warnings(action="ignore"):
        dataset = dcmread(tmp_path / "L-CC.dcm")
        dataset.PatientName, dataset.PatientID = "Doe^Jane", "ID-4711"
        dataset.add_new("PatientBirthDate", "DA", "1970-99-99")
        dataset.add_new("PatientAge", "AS", "ID-4711 is no age")
        dataset.save_as(tmp_path / "named.dcm")
    data, infer = (tmp_path / "named.dcm").read_bytes(), infer_over("http", server)
    report = json.loads(bytes(infer(DICOM=content(data)).as_numpy("report")[0]))
    with pytest.raises(import_module("tritonclient.utils").InferenceServerException) as refused:
        infer(DICOM=content(data[:-50]))
    log = server.log.read_text()
    quoted = ["Doe", "4711", "1970-99", *report["input"]["uids"].values()]
    assert len(quoted) == 6
    assert not [text for text in quoted if text in log or text in refused.value.message()]
    assert "Traceback" not in log


def test_metadata_is_that_of_the_documentation(server: TritonServer) -> None:
    """Of the tiny bundle's network, which differs in the outputs of the fusion layer and the number of patches."""
    found = httpx.get(f"{server.url}/v2/models/glam").json()
    assert found.pop("versions") == [one.name for one in versions(server.log.parent / "models")]
    documented = json.loads(METADATA.read_text())
    outputs_here = [one for one in documented["outputs"] if one["name"] not in ("y_fusion", "attention")]
    for one in outputs_here:
        if one["name"] in ("saliency_patches", "patch_locations", "patch_boxes_in_source"):
            one["shape"][1] = 2
    assert found == {**documented, "outputs": outputs_here}


def test_refused_inputs_leave_the_shared_memory(server: TritonServer) -> None:
    """Without a garbage collection: 64 MB, as a container has them, hold two of these."""
    image = np.full((1, 2944, 1920), np.nan, np.float32)
    infer, sizes = infer_over("http", server), []
    for _ in range(6):
        with pytest.raises(import_module("tritonclient.utils").InferenceServerException, match="NaN"):
            infer(IMAGE=image)
        sizes.append(server.shared_bytes)
    assert image.nbytes < sizes[0] == sizes[-1]


def test_queue_has_a_limit(tmp_path: Path) -> None:
    """Requests beyond those that wait are refused while the pipeline computes, here while its process is stopped."""
    need("triton", missing())
    repository = write_repository(tmp_path, "--graphs", "none", "--batch", "1")
    config = repository / "glam/config.pbtxt"
    config.write_text(config.read_text().replace(f"max_queue_size: {QUEUE}", "max_queue_size: 1"))
    tensor = {"name": "DICOM", "shape": [1, 1], "datatype": "UINT8", "data": [0]}
    with triton_server(repository, tmp_path) as server:
        wait_until_ready(server)
        (stub,) = server.stubs

        def ask(_: int) -> httpx.Response:
            answer = httpx.post(f"{server.url}/v2/models/glam/infer", json={"inputs": [tensor]}, timeout=60)
            if answer.status_code == 503:
                os.kill(stub, signal.SIGCONT)
            return answer

        os.kill(stub, signal.SIGSTOP)
        with ThreadPoolExecutor(8) as clients:
            answers = list(clients.map(ask, range(8)))
    refused = [one.text for one in answers if one.status_code == 503]
    assert refused
    assert all("Exceeds maximum queue size" in text for text in refused)


def test_ends_without_leaving_a_process(tmp_path: Path) -> None:
    need("triton", missing())
    repository = write_repository(tmp_path, "--graphs", "none", "--instances", "2")
    with triton_server(repository, tmp_path) as server:
        wait_until_ready(server)
        stubs = server.stubs
        assert len(stubs) == 2
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=60) == 0
        wait_for(lambda: not [pid for pid in stubs if Path(f"/proc/{pid}").exists()], "the stubs to end")


def test_a_missing_environment_is_named_in_the_log(tmp_path: Path) -> None:
    need("triton", missing())
    repository = write_repository(tmp_path, "--graphs", "none")
    config = repository / "glam/config.pbtxt"
    config.write_text(
        re.sub(r'("site_packages" value \{ string_value: )"[^"]*"', r'\1"/no/such/folder"', config.read_text())
    )
    assert "/no/such/folder" in config.read_text()
    with triton_server(repository, tmp_path) as server:
        assert server.process.wait(timeout=60) == 1
        log = server.log.read_text()
    assert "glam_deploy cannot be imported" in log
    assert "site_packages of config.pbtxt" in log


@pytest.mark.network
def test_full_network_answers_as_the_pipeline(joint_checkpoint: Path, tmp_path: Path) -> None:
    """GLAM with its fusion head: all outputs of the documentation."""
    need("triton", missing())
    export_bundle(joint_checkpoint, tmp_path / "bundle", ExportOptions(precisions=("fp32",)))
    repository = write_repository(tmp_path, "--graphs", "none")
    (data, *_) = exam(tmp_path / "exam").values()
    with triton_server(repository, tmp_path) as server, glam_deploy.load(tmp_path / "bundle") as pipeline:
        wait_until_ready(server)
        found = httpx.get(f"{server.url}/v2/models/glam").json()
        del found["versions"]
        assert found == json.loads(METADATA.read_text())
        expected = pipeline(data)
        for protocol in ("http", "grpc"):
            assert_equal(infer_over(protocol, server)(DICOM=content(data)), expected)
