"""The file model.py with the interface of Triton's Python backend; `test_server.py` runs it in a real server."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.commands import ROOT
from support.served import exam, versions, write_repository

import glam_deploy
from glam_deploy.records import View

NOT_READY = type("TritonModelException", (Exception,), {})


class Tensor(SimpleNamespace):
    @classmethod
    def from_dlpack(cls, name: str, capsule: object) -> "Tensor":
        owner = SimpleNamespace(__dlpack__=lambda **_: capsule, __dlpack_device__=lambda: (1, 0))
        return cls(name=name, array=np.from_dlpack(owner))


class Input:
    """A tensor of a request: name and DLPack, as `pb_utils.Tensor`."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        self.name, self.array = (lambda: name), array
        self.__dlpack_device__, self.__dlpack__ = array.__dlpack_device__, array.__dlpack__


class TritonError(SimpleNamespace):
    INVALID_ARG, INTERNAL = "invalid", "internal"

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message=message, code=code)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("served"), "--graphs", "none")


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the module that Triton provides."""
    module = SimpleNamespace(
        TritonModelException=NOT_READY, Tensor=Tensor, TritonError=TritonError, InferenceResponse=SimpleNamespace
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)
    monkeypatch.setattr(sys, "path", list(sys.path))


def model_of(repository: Path, packages: str = "") -> tuple[Any, dict[str, str]]:
    """The model as the server makes it, and its arguments."""
    folder = versions(repository)[0]
    arguments = {
        "model_config": json.dumps({"parameters": {"site_packages": {"string_value": packages}}}),
        "model_repository": str(folder.parent),
        "model_version": folder.name,
        "model_instance_kind": "CPU",
        "model_instance_device_id": "0",
    }
    return runpy.run_path(str(folder / "model.py"))["TritonPythonModel"](), arguments


def request_of(data: bytes, *outputs: str) -> SimpleNamespace:
    tensor = Input("DICOM", np.frombuffer(data, np.uint8)[None].copy())
    return SimpleNamespace(inputs=lambda: [tensor], requested_output_names=lambda: list(outputs))


@pytest.mark.usefixtures("backend")
def test_responds_in_order_with_the_outputs_that_were_asked_for(repository: Path, tmp_path: Path) -> None:
    model, arguments = model_of(repository)
    model.initialize(arguments)
    view = exam(tmp_path)[View.R_MLO]
    good, bad = model.execute([request_of(view, "y_global", "report"), request_of(b"no image", "y_global")])
    model.finalize()
    expected = glam_deploy.load(repository.parent / "bundle")(view)
    made = {tensor.name: tensor.array for tensor in good.output_tensors}
    assert made.keys() == {"y_global", "report"}
    assert made["y_global"].tobytes() == expected.y_global.tobytes()
    assert json.loads(bytes(made["report"][0]))["predictions"] == expected.to_dict()["predictions"]
    assert bad.error.code == "invalid"
    assert "DICOM" in bad.error.message


@pytest.mark.usefixtures("backend")
def test_a_damaged_bundle_is_an_error_of_the_model(tmp_path: Path) -> None:
    repository = write_repository(tmp_path, "--graphs", "none")
    (versions(repository)[0] / "bundle/graphs/local.onnx").write_bytes(b"")
    model, arguments = model_of(repository)
    with pytest.raises(NOT_READY, match=r"local\.onnx has 0 bytes"):
        model.initialize(arguments)


@pytest.mark.usefixtures("backend")
def test_opens_the_gpu_of_its_instance(repository: Path) -> None:
    """The engine of this bundle takes no GPU, so the index shows in its refusal."""
    model, arguments = model_of(repository)
    with pytest.raises(NOT_READY, match="does not support the option device = 3"):
        model.initialize(arguments | {"model_instance_kind": "GPU", "model_instance_device_id": "3"})


@pytest.mark.usefixtures("backend")
def test_another_numpy_than_that_of_the_packages_is_refused(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(np, "__version__", "1.26.4")
    model, arguments = model_of(repository)
    with pytest.raises(NOT_READY, match=r"has imported numpy 1\.26\.4"):
        model.initialize(arguments)


def test_without_glam_deploy_the_message_names_the_parameter(repository: Path) -> None:
    """In a Python without packages, as that of a server."""
    _, arguments = model_of(repository, packages="/no/such/folder")
    code = (
        "import json, runpy, sys, types; path, arguments = sys.argv[1:]\n"
        "module = types.ModuleType('triton_python_backend_utils'); module.TritonModelException = ValueError\n"
        "sys.modules[module.__name__] = module\n"
        "try: runpy.run_path(path)['TritonPythonModel']().initialize(json.loads(arguments))\n"
        "except ValueError as error: print(error)\n"
    )
    path = versions(repository)[0] / "model.py"
    command = [sys.executable, "-I", "-S", "-c", code, str(path), json.dumps(arguments)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT / "docs").stdout
    assert "/no/such/folder" in said
    assert "site_packages of config.pbtxt" in said
