"""The bindings of a release of full TensorRT, from PyPI: the wheel alone, without the libraries that it binds."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

PACKAGE = "tensorrt-cu13-bindings"
MODULE = "tensorrt_bindings"
RELEASES = ("10.13.2.6", "10.16.1.11", "11.0.0.114", "11.4.0.106")
"""The lowest that setup.py admits, the last of 10, the first of 11, the newest."""
LIBRARIES = tuple(
    f"lib{name}.so.{release}" for name in ("nvinfer", "nvonnxparser", "nvinfer_plugin") for release in (10, 11)
)
STUB = Path(__file__).with_name("stub.c")


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """A wheel on disk."""

    wheel: Path
    stubs: Path

    @property
    def environment(self) -> dict[str, str]:
        """Of a process that can import MODULE."""
        found = [str(self.stubs), os.environ.get("LD_LIBRARY_PATH", "")]
        return {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, found)), "GLAM_BINDINGS": str(self.wheel)}


def build_stubs(folder: Path) -> Path:
    """`folder`, with the libraries that do nothing. Needs cc."""
    for name in LIBRARIES:
        subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / name, STUB], check=True)
    return folder


def download(version: str, folder: Path, stubs: Path) -> Unpacked:
    """1.2 MB from the index of pip's configuration. Raises CalledProcessError where it has no wheel for this Python."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--only-binary=:all:", f"--dest={folder}", f"{PACKAGE}=={version}"], check=True)
    (path,) = folder.glob("*.whl")
    with ZipFile(path) as wheel:
        wheel.extractall(folder / "unpacked")
    return Unpacked(wheel=folder / "unpacked", stubs=stubs)
