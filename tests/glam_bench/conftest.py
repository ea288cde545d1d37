"""A record of a run in which everything went well, with round numbers."""

from pathlib import Path
from typing import Any

import pytest

from glam_bench.gpu.plan import GROUPS, GpuOptions
from glam_bench.record import Record

KERNELS = ("place", "standardize", "propose", "crop", "fuse", "examine", "head")
HALF, FULL = "fp16@tensorrt-rtx", "fp32@onnx-cuda"
MEBIBYTE = 1024**2


def times(p50: float) -> dict[str, float]:
    return {"p50": p50, "p90": p50, "p99": p50, "best": p50, "runs": 100}


def checked(count: int) -> dict[str, Any]:
    return {"checks": count, "largest_difference": 0.0, "limit": 0, "missed": []}


def shape(whole: float, networks: float) -> dict[str, Any]:
    """Of chain_times."""
    return {
        "stages": {"global": times(0.1), "local": times(networks - 0.1), "both networks": times(networks)},
        "resident": {"gpu": times(whole), "host": times(whole), "call_returns": times(0.02)},
        "watched": {"runs": 20, "allocations": 0, "waits": 0, "memory_change_bytes": 0, "calls_returned_early": 20},
        "glue": {"ms": whole - networks, "share": (whole - networks) / whole},
        "host_to_host": {"standardized": times(3.0), "raw": times(1.8), "raw_images_per_s_8_threads": 250.0},
    }


def agreed() -> dict[str, Any]:
    case = {"case": "x", "same_patches": True, "dice": {"benign": 0.995, "malignant": None}, "reasons": []}
    return {
        "verdict": {"passed": True, "failures": [], "limits": {}},
        "same_patches": 2,
        "worst_dice": {"benign": 0.995, "malignant": None},
        "largest_difference": {"y_global": 1e-4, "saliency_global": 2e-3},
        "cases": [dict(case), dict(case)],
    }


RESULTS = {
    "facts": {
        "gpu": {"name": "NVIDIA H200", "driver": "580.1"},
        "commit": "abcdef",
        "bundle": {"precisions": ["fp32", "fp16"]},
    },
    "ceilings": {"flop": {"global": 30e9, "local": 690e9}, "matrix_flop_per_s": {"fp16": 720e12, "fp32": 60e12}},
    "kernels": {name: checked(n) for n, name in enumerate(KERNELS, 9)},
    "kernel_times": {
        "n=1,k=1": {
            "propose and crop": {"us": {"warm": 10.0, "cold": 12.0}, "bytes": None},
            "fuse": {"us": {"warm": 15.0, "cold": 20.0}, "bytes": 45_000_000, "share": {"copy": 0.75}},
        }
    },
    "library:tensorrt-rtx": {"library": "TensorRT-RTX 1.7.1.116", "differs": []},
    "build:fp16@tensorrt-rtx": {"library": "TensorRT-RTX 1.7.1.116"},
    f"parity:{HALF}": {"golden": {}, "k=1": agreed(), "k=3": agreed()},
    f"chain_times:{HALF}": {"opened_s": 1.0, "n=1,k=1": shape(1.2, 1.1), "n=4,k=1": shape(4.4, 4.2)},
    f"chain_times:{FULL}": {"n=1,k=1": shape(12.0, 11.9)},
    "baselines": {"torch fp32": {"n=1,k=1": {"chain": times(24.0), "networks": times(18.0)}}},
    f"soak:{HALF}": {
        "asked": 10_000,
        "done": 10_000,
        "wrong": 0,
        "host_growth_bytes": 1.5 * MEBIBYTE,
        "device_growth_bytes": 0.0,
    },
}
"""720 GFLOP at 720 TFLOP/s: a floor of 1 ms."""


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Of a whole run on an H200."""
    options = GpuOptions(bundle=tmp_path, work=tmp_path, groups=GROUPS)
    record = Record.create(tmp_path / "record.json", options=options.as_json(), seconds=100)
    for step, results in RESULTS.items():
        record.add(step, results)
        record.note(step, status="done", seconds=1.0)
    return Record.open(record.path)
