"""The GLAM network in PyTorch, written from its published description: the truth for graphs and engines."""

from glam_export.reference.network import GlamNetwork

__all__ = ["GlamNetwork"]
