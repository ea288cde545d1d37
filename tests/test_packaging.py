"""The wheel: what is in it, what it asks for, and that it runs where it was put."""

import os
import re
import shutil
import subprocess
import sys
from email import message_from_bytes
from email.message import Message
from fnmatch import fnmatch
from pathlib import Path
from zipfile import ZipFile

import pytest
from support.checkout import sources
from support.commands import ROOT
from support.keys import key_pair

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


def test_links_of_the_metadata_are_names_and_addresses(metadata: Message) -> None:
    """The first comma divides them (Core metadata specifications, "Project-URL")."""
    links = [line.split(", ", 1) for line in metadata.get_all("Project-URL", [])]
    assert all(re.fullmatch(r"https://[^\s,]+", address) for _, address in links)


def test_pages_name_this_version() -> None:
    """`__version__` is its home; pages repeat it where a reader copies it."""
    said = re.compile(r"glam_deploy-(\d[\d.]*\d)-py3|Product: glam-deploy (\d[\d.]*\d)")
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md"]
    named = {one or other for page in pages for one, other in said.findall(page.read_text("utf-8"))}
    assert named == {glam_deploy.__version__}


def test_changes_of_this_version_are_dated() -> None:
    headings = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert re.fullmatch(rf"{re.escape(glam_deploy.__version__)} - \d{{4}}-\d\d-\d\d", headings[1])


ALWAYS = {"LICENSE", "MANIFEST.in", "README.md", "pyproject.toml", "setup.py"}
"""What setuptools puts into every source distribution (its documentation, "Controlling files in the distribution")."""


def test_the_source_distribution_names_everything() -> None:
    """`install/test_distributions.py` builds one and compares; this finds a new file at the top at once."""
    lines = [line.split() for line in (ROOT / "MANIFEST.in").read_text("utf-8").splitlines() if line[0] != "#"]
    named = {name for command, *names in lines for name in names if command in ("include", "graft")}
    assert {name.split("/")[0] for name in sources()} - named - ALWAYS == set()
    pruned = tuple(f"{folder}/" for command, *folders in lines if command == "prune" for folder in folders)
    excluded = [pattern for command, *patterns in lines if command == "global-exclude" for pattern in patterns]
    lost = [n for n in sources() if n.startswith(pruned) or any(fnmatch(Path(n).name, pattern) for pattern in excluded)]
    assert lost == []


def test_checksums_are_what_sha256sum_and_openssl_take(tmp_path: Path) -> None:
    """`packaging/sums.py`; with the commands of docs/releases.md."""
    out, keys = tmp_path / "dist", key_pair(tmp_path)
    out.mkdir()
    (out / "b.whl").write_bytes(b"wheel")
    (out / "a.tar.gz").write_bytes(b"source")
    script = [sys.executable, str(ROOT / "packaging/sums.py"), str(out)]
    unsigned = subprocess.run(script, check=True, capture_output=True, text=True)
    assert "is unsigned, because no key was given" in unsigned.stderr
    assert not (out / "SHA256SUMS.sig").exists()
    subprocess.run([*script, str(keys.private)], check=True, capture_output=True)
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=out, check=True, capture_output=True)
    assert len((out / "SHA256SUMS").read_text().splitlines()) == 2
    verify = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", str(keys.public)]
    verify += ["-in", str(out / "SHA256SUMS"), "-sigfile", str(out / "SHA256SUMS.sig")]
    subprocess.run(verify, check=True, capture_output=True)
    (out / "SHA256SUMS").write_text("changed")
    assert subprocess.run(verify, check=False, capture_output=True).returncode != 0


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
