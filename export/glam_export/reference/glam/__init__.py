"""GLAM in PyTorch (Liu et al., MIDL 2021)."""

from glam_export.reference.glam.network import GlamNetwork

__all__ = ["GlamNetwork"]
