"""The network of the golden cases: every tensor of the published state dict, from recipe.py and bn_stats.npz."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from golden.recipe import batch_norm, conv_weight
from torch import Tensor

HERE = Path(__file__).parent
GMIC = HERE / "gmic"
HEAD_SHAPES = {
    "mil_attn_V.weight": (128, 512),
    "mil_attn_U.weight": (128, 512),
    "mil_attn_w.weight": (1, 128),
    "fusion_dnn.weight": (2, 768),
    "fusion_dnn.bias": (2,),
}
"""Attention and fusion layers of the paper, which no golden case has."""


def shapes(folder: Path = HERE) -> dict[str, tuple[int, ...]]:
    """Every key of the published state dict and its shape. `folder`: HERE for GLAM, GMIC for GMIC."""
    listed = json.loads((folder / "state_dict_shapes.json").read_text())
    return {key: tuple(shape) for key, shape in listed.items()}


def state_dict(folder: Path = HERE) -> dict[str, Tensor]:
    """All published keys, 352 of GLAM and 258 of GMIC: float32, and int64 batch counters."""
    with np.load(folder / "bn_stats.npz") as stats:
        return {key: torch.from_numpy(_tensor(key, shape, stats)) for key, shape in shapes(folder).items()}


def head_tensors() -> dict[str, Tensor]:
    """Attention and fusion layers, float32, small enough that neither softmax nor sigmoid saturates."""
    return {key: torch.from_numpy(conv_weight(key, shape) / 4) for key, shape in HEAD_SHAPES.items()}


def _tensor(key: str, shape: tuple[int, ...], stats: Mapping[str, Any]) -> np.ndarray:
    if key in stats:
        return stats[key]
    if key.endswith("num_batches_tracked"):
        return np.array(1, np.int64)
    if len(shape) > 1:
        return conv_weight(key, shape)
    if key == "fusion_dnn.bias":
        return np.zeros(shape, np.float32)
    prefix, _, name = key.rpartition(".")
    weight, bias = batch_norm(prefix, *shape)
    return {"weight": weight, "bias": bias}[name]
