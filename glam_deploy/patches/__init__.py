"""Patch selection on the global saliency map, and fusion of patch maps. `host` is the reference implementation."""
