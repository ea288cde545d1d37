"""The one CUDA translation unit of a network: numbers that host and device share, then the .cu files."""

import hashlib
from pathlib import Path

from glam_deploy.gpu.kernels import geometry
from glam_deploy.gpu.kernels.geometry import Flags
from glam_deploy.networks import NetworkSpec

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
"""The GPUs that every kernel is compiled for in the tests: Turing to Blackwell."""

FILES = ("common.cuh", "standardize.cu", "propose.cu", "crop.cu", "fuse.cu", "examine.cu")
"""In this order; without fuse.cu where the patches of a network have no maps."""


def source(network: NetworkSpec) -> str:
    """C++17 for NVRTC, no header but what NVRTC has built in; to be compiled without contraction to FMA.

    The numbers at its top come from Python, so that its hash also covers the shapes and the launch geometry.
    """
    files = [name for name in FILES if name != "fuse.cu" or network.patches.map_side]
    return _numbers(network) + "".join(f'#line 1 "{name}"\n{_read(name)}' for name in files)


def source_sha256(network: NetworkSpec) -> str:
    """SHA-256 of `source(network)`, in hexadecimal: compiled kernels fit this package if they carry the same."""
    return hashlib.sha256(source(network).encode()).hexdigest()


def _read(name: str) -> str:
    return (Path(__file__).parent / name).read_text("utf-8")


def _numbers(network: NetworkSpec) -> str:
    patches, derived = network.patches, geometry.geometry_of(network)
    shapes = {
        "CLASSES": len(network.classes),
        "INPUT_ROWS": network.input_shape[0],
        "INPUT_COLUMNS": network.input_shape[1],
        "MAP_ROWS": network.map_shape[0],
        "MAP_COLUMNS": network.map_shape[1],
        "CELL": network.cell,
        "PATCH": patches.side,
        **({"PATCH_MAP": patches.map_side, "PATCH_CELL": network.grid_cell} if patches.map_side else {}),
        "WINDOW": patches.window,
        "MAX_PATCHES": patches.slots,
        "ROW_THREADS": derived.row_threads,
        "CROP_THREADS": derived.crop_threads,
        "SCRATCH_BYTES": derived.scratch_bytes,
    }
    launches = {name: value for name, value in vars(geometry).items() if name.isupper()}
    flags = {flag.name: flag.value for flag in Flags}
    return "".join(f"constexpr int {name} = {value};\n" for name, value in (shapes | launches | flags).items())
