"""GLAM (Liu et al., MIDL 2021): a global network, a local network on up to six patches, and their fusion.

There are two variants of the published weights, with different aggregation over patches and fusion: see `_glam`.
"""

from glam_deploy.networks.base import (
    PUBLISHED_FRAME,
    GraphContract,
    NetworkSpec,
    PatchSelection,
    attention_weights,
    tensors,
)

CLASSES = ("benign", "malignant")

MAP_SHAPE = (184, 120)

PATCH_MAP = 128
"""Side of a patch's saliency map, in cells."""

SCALE_POOL_FRACTION = 0.03
"""Fraction of the map's cells whose mean is the prediction of a scale (paper, section 2; published configuration)."""

PATCH_POOL_FRACTION = 0.3
"""Fraction of the patch maps' cells whose mean is the local prediction."""

SELECTION = PatchSelection(side=512, window=32, slots=6, map_side=PATCH_MAP, pool_fraction=PATCH_POOL_FRACTION)

SCALE_WEIGHTS = (0.2, 0.6, 0.2)
"""Weights of the saliency of the three scales in the global saliency, finest scale first."""

Z_GLOBAL = 256
Z_PATCH = 512
"""Lengths of the representations z_g and z_k."""


def _glam(*, attention: bool) -> NetworkSpec:
    """GLAM with attention over patches and a fusion layer, or with all patches pooled together ("concatenation").

    - global: `image` -> `saliency_global` (0..1), `y_scale` (0..1, finest scale first), `z_g`.
    - local: `patches` -> `saliency_patches` (0..1), `z_k`; each batch row is one patch.
    - fusion: slots 0..K-1 of the six hold patches, in order of selection; an unused slot has location (-1, -1) and
      zeros in all other tensors. `patch_locations` are (row, column) of the upper-left corners in pixels of the network
      frame, multiples of 16.
      `saliency` is the fused map in the network frame. `z_g`, `z_k`, `attention` and `y_fusion` exist with attention.
    """
    n, k, side = len(CLASSES), SELECTION.slots, PATCH_MAP
    fusion_inputs = tensors(
        saliency_global=(n, *MAP_SHAPE), y_scale=(3, n), saliency_patches=(k, n, side, side), patch_locations=(k, 2)
    )
    fusion_outputs = tensors(y_global=(n,), y_local=(n,), saliency=(n, *PUBLISHED_FRAME))
    if attention:
        fusion_inputs = {**fusion_inputs, **tensors(z_g=(Z_GLOBAL,), z_k=(k, Z_PATCH))}
        fusion_outputs = {**fusion_outputs, **tensors(y_fusion=(n,), attention=(k,))}
    return NetworkSpec(
        name="GLAM",
        aggregation="attention" if attention else "concatenation",
        title="GLAM",
        classes=CLASSES,
        input_shape=PUBLISHED_FRAME,
        map_shape=MAP_SHAPE,
        selection=SELECTION,
        graphs={
            "global": GraphContract(
                inputs=tensors(image=(1, *PUBLISHED_FRAME)),
                outputs=tensors(saliency_global=(n, *MAP_SHAPE), y_scale=(3, n), z_g=(Z_GLOBAL,)),
            ),
            "local": GraphContract(
                inputs=tensors(patches=(1, SELECTION.side, SELECTION.side)),
                outputs=tensors(saliency_patches=(n, side, side), z_k=(Z_PATCH,)),
            ),
            "fusion": GraphContract(inputs=fusion_inputs, outputs=fusion_outputs),
        },
        scores=("y_global", "y_local", *(("y_fusion",) if attention else ())),
        fusion_weights=attention_weights(classes=n, z_global=Z_GLOBAL, z_patch=Z_PATCH, classifier=False)
        if attention
        else {},
    )


GLAM = _glam(attention=True)
GLAM_CONCATENATION = _glam(attention=False)
