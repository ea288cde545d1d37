"""Pooling of saliency to one score: the mean of the largest values."""

from torch import Tensor


def top_count(fraction: float, values: int) -> int:
    """How many of `values` the share `fraction` is, rounded half to even as published."""
    return round(fraction * values)


def top_mean(values: Tensor, fraction: float) -> Tensor:
    """Mean of the largest `fraction` of the last axis, by sorting: [..., values] -> [...]."""
    return values.topk(top_count(fraction, values.shape[-1])).values.mean(-1)
