"""The CUDA translation unit of a network: constants shared by host and device, followed by the .cu files."""

import hashlib
from pathlib import Path

from glam_deploy.gpu.kernels import geometry, placed
from glam_deploy.gpu.kernels.geometry import Flags
from glam_deploy.gpu.kernels.head import head_constants
from glam_deploy.gpu.kernels.launch import KERNELS, kernels_of
from glam_deploy.networks import NetworkSpec

ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
"""Architectures for which the tests compile every kernel: Turing to Blackwell."""

FILES = (
    *("common.cuh", "staging.cuh", "standardize.cu"),
    *("place.cuh", "foreground.cu", "erode.cu", "components.cu", "outline.cu", "center.cu", "gather.cu"),
    *("propose.cu", "crop.cu", "pool.cu", "attend.cu", "fuse.cu", "enlarge.cu", "examine.cu"),
)
"""Source files in their order; a file of a kernel that the network does not have is left out."""


def source(network: NetworkSpec) -> str:
    """C++17 source for NVRTC, without include files; it must be compiled without contraction to FMA.

    It starts with constants from Python, so that its hash also covers the shapes and the launch geometry.
    """
    absent = {f"{kernel}.cu" for kernel in KERNELS} - {f"{kernel}.cu" for kernel in kernels_of(network)}
    return _constants(network) + "".join(f'#line 1 "{name}"\n{_read(name)}' for name in FILES if name not in absent)


def source_sha256(network: NetworkSpec) -> str:
    """SHA-256 of `source(network)` as hexadecimal digits; compiled kernels match this release if it is equal."""
    return hashlib.sha256(source(network).encode()).hexdigest()


def _read(name: str) -> str:
    return (Path(__file__).parent / name).read_text("utf-8")


def _constants(network: NetworkSpec) -> str:
    rule, derived = network.selection, geometry.geometry_of(network)
    window = {"WINDOW": rule.window, "MAX_PATCHES": rule.slots} if rule else {}
    patch_map = {"PATCH_MAP": rule.map_side, "PATCH_CELL": network.grid_cell} if rule and rule.map_side else {}
    shapes = {
        "CLASSES": len(network.classes),
        "INPUT_ROWS": network.input_shape[0],
        "INPUT_COLUMNS": network.input_shape[1],
        "MAP_ROWS": network.map_shape[0],
        "MAP_COLUMNS": network.map_shape[1],
        "CELL": network.cell,
        **({"PATCH": rule.side} if rule else {}),
        **patch_map,
        **window,
        **head_constants(network),
        "ROW_THREADS": derived.row_threads,
        "CROP_THREADS": derived.crop_threads,
        "SCRATCH_BYTES": derived.scratch_bytes,
    }
    launches = {name: value for name, value in vars(geometry).items() if name.isupper()}
    flags = {flag.name: flag.value for flag in Flags}
    values = shapes | launches | flags | placed.constants()
    return "".join(
        f"constexpr {'double' if isinstance(value, float) else 'int'} {name} = {value};\n"
        for name, value in values.items()
    )
