"""The wheel: what is in it, what it asks for, and that it runs where it was put."""

import os
import shutil
import subprocess
import sys
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from zipfile import ZipFile

import pytest
from support.commands import ROOT

import glam_deploy
from glam_deploy.gpu.kernels.source import FILES

SOURCES = {
    "glam_deploy": ROOT / "glam_deploy",
    "glam_export": ROOT / "export/glam_export",
    "glam_bench": ROOT / "benchmarks/glam_bench",
}
PLAIN_INSTALL = {"numpy", "onnxruntime", "opencv-python-headless", "pillow", "click", "rich"}


def pip(*arguments: object) -> None:
    """Without an index: nothing is downloaded."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, for setuptools leaves files beside its sources."""
    room = tmp_path_factory.mktemp("wheel")
    tree = room / "tree"
    for name in ("glam_deploy", "export", "benchmarks", "docs", "packaging", "examples"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "constraints.txt"):
        shutil.copy(ROOT / name, tree)
    pip("wheel", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", room / "dist", tree)
    (built,) = (room / "dist").iterdir()
    return built


@pytest.fixture
def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def contents(wheel: Path) -> set[str]:
    with ZipFile(wheel) as archive:
        return set(archive.namelist())


def requirements(metadata: Message, extra: str | None = None) -> set[str]:
    """Names that an extra, or the plain install, asks for."""
    marker = f'extra == "{extra}"' if extra else None
    asked = (line.partition(";") for line in metadata.get_all("Requires-Dist", []))
    chosen = (name for name, _, condition in asked if (condition.strip() or None) == marker)
    return {name.replace(">", " ").split()[0] for name in chosen}


def test_three_packages_and_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in contents(wheel)}
    assert tops == {*SOURCES, *(f"glam_deploy-{glam_deploy.__version__}.{part}" for part in ("dist-info", "data"))}


def test_documentation_is_in_it(wheel: Path) -> None:
    """Every page, with the files that it links to, in the places that links expect."""
    prefix = f"glam_deploy-{glam_deploy.__version__}.data/data/share/doc/glam-deploy/"
    carried = {name.removeprefix(prefix) for name in contents(wheel) if ".data/" in name}
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.*")}
    assert pages <= carried
    assert carried - pages == {
        "README.md",
        "benchmarks/README.md",
        "constraints.txt",
        *(f"examples/{path.name}" for path in (ROOT / "examples").glob("*.py")),
        *(f"packaging/{path.name}" for path in (ROOT / "packaging").iterdir() if path.is_file()),
    }


def test_every_module_is_in_it(wheel: Path) -> None:
    modules = {
        f"{package}/{path.relative_to(folder).as_posix()}"
        for package, folder in SOURCES.items()
        for path in folder.rglob("*.py")
    }
    assert {name for name in contents(wheel) if name.endswith(".py") and ".data/" not in name} == modules


def test_cuda_sources_are_in_it(wheel: Path) -> None:
    assert {f"glam_deploy/gpu/kernels/{name}" for name in FILES} <= contents(wheel)


def test_licence_and_type_marker_are_in_it(wheel: Path) -> None:
    info = f"glam_deploy-{glam_deploy.__version__}.dist-info"
    with ZipFile(wheel) as archive:
        assert archive.read(f"{info}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert "glam_deploy/py.typed" in contents(wheel)


def test_metadata(metadata: Message) -> None:
    assert (metadata["Name"], metadata["Version"]) == ("glam-deploy", glam_deploy.__version__)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert str(metadata.get_payload()).strip() == (ROOT / "README.md").read_text("utf-8").strip()


def test_plain_install_asks_for_no_torch(metadata: Message) -> None:
    assert requirements(metadata) == PLAIN_INSTALL


def test_extras(metadata: Message) -> None:
    gpu = {"tensorrt", "tensorrt-rtx", "cuda"}
    assert set(metadata.get_all("Provides-Extra", [])) == {
        "export",
        "dicom",
        "appliance",
        "openvino",
        "quantize",
        "ray",
        "sign",
        "dev",
        *gpu,
    }
    assert all({"cuda-core", "cuda-bindings", "nvidia-cuda-nvrtc"} < requirements(metadata, extra) for extra in gpu)
    assert requirements(metadata, "export") == {"torch", "onnx", "onnxscript", "safetensors"}
    assert requirements(metadata, "openvino") == {"openvino"}
    assert requirements(metadata, "quantize") == {"nncf", "openvino"}
    assert requirements(metadata, "ray") == {"ray", "pyarrow", "fsspec", "aiohttp"}
    assert "pydicom" in requirements(metadata, "dicom")
    assert "pylibjpeg-libjpeg" not in requirements(metadata, "dicom")  # GPL


def test_every_requirement_that_can_be_had_without_a_gpu_has_a_tested_version(metadata: Message) -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    asked = set().union(
        *(requirements(metadata, e) for e in (None, "export", "dicom", "appliance", "openvino", "tensorrt-rtx", "dev"))
    )
    assert asked - pinned == set()


def test_installed_command_answers(wheel: Path, tmp_path: Path) -> None:
    pip("install", "--no-deps", "--no-index", "--target", tmp_path / "site", wheel)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    script = [tmp_path / "site/bin/glam-deploy", "--version"]
    where = [sys.executable, "-c", "import glam_deploy, glam_export, glam_bench; print(glam_deploy.__file__)"]
    for command, expected in (
        (script, f"glam-deploy, version {glam_deploy.__version__}"),
        (where, str(tmp_path / "site/glam_deploy/__init__.py")),
    ):
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert (done.stdout.strip(), done.stderr) == (expected, "")
