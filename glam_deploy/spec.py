"""The numbers of the GLAM network (Liu et al., MIDL 2021) and the contract of its three graphs.

Everything spatial is (rows, columns), row first. "Map" is the 184 x 120 grid of the global saliency, "network frame"
is the 2944 x 1920 input: upright, facing right, chest wall on the left.
"""

from glam_deploy.networks import GLAM, GLAM_CONCATENATION, GraphContract, Stage

CLASSES = ("benign", "malignant")

INPUT_SHAPE = (2944, 1920)
"""Rows and columns of the network's input, in pixels."""

MAP_SHAPE = (184, 120)
"""Rows and columns of the global saliency map, in cells."""

CELL = 16
"""Input pixels per map cell, along both axes."""

PATCH = 512
"""Side of a patch, in input pixels."""

PATCH_MAP = 128
"""Side of a patch's saliency map, in cells."""

PATCH_CELL = PATCH // PATCH_MAP
"""Input pixels per cell of a patch's map, along both axes (4)."""

WINDOW = PATCH // CELL
"""Side of a patch on the global map, in cells (32)."""

MAX_PATCHES = 6
"""Patch slots of the fusion graph; the number in use is chosen at run time, 1..6."""

SCALE_POOL_FRACTION = 0.03
"""Share of the map that a scale's prediction averages (paper, section 2; published configuration)."""

PATCH_POOL_FRACTION = 0.3
"""Share of the patch maps that the local prediction averages."""

SCALE_WEIGHTS = (0.2, 0.6, 0.2)
"""Weights of the three scales' saliency, finest first, in the global saliency."""

Z_GLOBAL = 256
Z_PATCH = 512
"""Lengths of the representations z_g and z_k."""


def graph_contract(stage: Stage, *, fusion_head: bool, composed: bool = True) -> GraphContract:
    return (GLAM if fusion_head else GLAM_CONCATENATION).contract(stage, composed=composed)
