"""Checkpoint files: read without running their code, and matched strictly with a network."""

from glam_export.checkpoint.load import Checkpoint, load_checkpoint, load_weights, save_weights

__all__ = ["Checkpoint", "load_checkpoint", "load_weights", "save_weights"]
