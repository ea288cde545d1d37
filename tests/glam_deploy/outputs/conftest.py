"""Results built by hand: places are chosen so that every expected position can be worked out on paper."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from glam_deploy.networks import GLAM_CONCATENATION
from glam_deploy.records import NetworkInput, Notice, Placement, Source, View
from glam_deploy.runtime.result import Result

SOURCE_SHAPE = (3000, 2000)


def left_placement() -> Placement:
    """Network pixel (r, c) shows source pixel (r + 40, c + 20)."""
    return Placement(
        source_shape=SOURCE_SHAPE,
        crop_window=(10, 2990, 0, 1960),
        mirrored=False,
        row_shift=30,
        column_shift=20,
        best_center=(1512, 980),
    )


def right_placement() -> Placement:
    """Network pixel (r, c) shows source pixel (r + 40, 1999 - c)."""
    return Placement(
        source_shape=SOURCE_SHAPE,
        crop_window=(40, 2984, 80, 2000),
        mirrored=True,
        row_shift=0,
        column_shift=0,
        best_center=(1472, 960),
    )


def build_result(**changes: Any) -> Result:
    """Two patches at network (160, 320) and (1600, 960); quiet noise for saliency; no fusion head."""
    rng = np.random.default_rng(5)
    view, placement = changes.pop("view", View.L_CC), changes.pop("placement", left_placement())
    source = changes.pop("source", Source(name="case.dcm", kind="dicom"))
    locations = changes.get("patch_locations", np.array([[160, 320], [1600, 960]], np.int64))
    values: dict[str, Any] = {
        "network": GLAM_CONCATENATION,
        "y_global": np.array([0.3, 0.7], np.float32),
        "y_scale": rng.random((3, 2), dtype=np.float32),
        "y_local": rng.random(2, dtype=np.float32),
        "y_fusion": None,
        "attention": None,
        "saliency_global": rng.random((2, 184, 120), dtype=np.float32) * np.float32(0.09),
        "saliency_patches": rng.random((len(locations), 2, 128, 128), dtype=np.float32) * np.float32(0.09),
        "patch_locations": locations,
        "input": NetworkInput(image=np.zeros((2944, 1920), np.float32), placement=placement, source=source, view=view),
        "notices": (Notice(code="label", message="A film label was left out."),),
        "timings_ms": {"global": 12.34567},
        "provenance": {"bundle": "sha256:00"},
    }
    return Result(**values | changes)


@pytest.fixture
def make_result() -> Callable[..., Result]:
    return build_result


@pytest.fixture
def right() -> Placement:
    return right_placement()


@pytest.fixture
def pixels() -> np.ndarray:
    """uint16 [3000, 2000], background 0, even tissue in the left half with some noise."""
    image = np.zeros(SOURCE_SHAPE, np.uint16)
    image[100:2900, :1000] = np.random.default_rng(6).integers(900, 1100, (2800, 1000))
    return image
