"""GMIC in PyTorch, with the published state-dict keys (Shen et al., Medical Image Analysis 2021, arXiv 2002.07613)."""

from glam_export.reference.gmic.network import GmicNetwork

__all__ = ["GmicNetwork"]
