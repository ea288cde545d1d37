"""The one CUDA translation unit of the package: numbers that host and device share, then the .cu files."""

import hashlib
from pathlib import Path

from glam_deploy import spec
from glam_deploy.kernels import geometry
from glam_deploy.kernels.flags import Flags

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
"""The GPUs that every kernel is compiled for in the tests: Turing to Blackwell."""

FILES = ("common.cuh", "standardize.cu", "propose.cu", "crop.cu", "fuse.cu", "examine.cu")


def source() -> str:
    """C++17 for NVRTC, no header but what NVRTC has built in; to be compiled without contraction to FMA.

    The numbers at its top come from Python, so that its hash also covers the shapes and the launch geometry.
    """
    return _numbers() + "".join(f'#line 1 "{name}"\n{_read(name)}' for name in FILES)


def source_sha256() -> str:
    """SHA-256 of `source()`, in hexadecimal: compiled kernels fit this package if they carry the same."""
    return hashlib.sha256(source().encode()).hexdigest()


def _read(name: str) -> str:
    return (Path(__file__).parent / name).read_text("utf-8")


def _numbers() -> str:
    shapes = {
        "CLASSES": len(spec.CLASSES),
        "INPUT_ROWS": spec.INPUT_SHAPE[0],
        "INPUT_COLUMNS": spec.INPUT_SHAPE[1],
        "MAP_ROWS": spec.MAP_SHAPE[0],
        "MAP_COLUMNS": spec.MAP_SHAPE[1],
        "CELL": spec.CELL,
        "PATCH": spec.PATCH,
        "PATCH_MAP": spec.PATCH_MAP,
        "PATCH_CELL": spec.PATCH_CELL,
        "WINDOW": spec.WINDOW,
        "MAX_PATCHES": spec.MAX_PATCHES,
    }
    launches = {name: value for name, value in vars(geometry).items() if name.isupper()}
    flags = {flag.name: flag.value for flag in Flags}
    return "".join(f"constexpr int {name} = {value};\n" for name, value in (shapes | launches | flags).items())
