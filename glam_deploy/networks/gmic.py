"""GMIC (Shen et al., Medical Image Analysis 2021, arXiv 2002.07613): a global network, a local network on up to six
patches, and their fusion by attention. The local stage has no saliency map: the map of a result is the global one.
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

MAP_SHAPE = (46, 30)

SELECTION = PatchSelection(side=256, window=4, slots=6, default=6, map_side=None)

TOP_FRACTION = 0.02
"""Share of the map that y_global averages, as published for model 1 of five (0.02, 0.03, 0.03, 0.05, 0.1). The
published prediction y_fusion does not depend on it."""

Z_GLOBAL = 256
Z_PATCH = 512
"""Lengths of the representations z_g and z_k."""

_N, _K = len(CLASSES), SELECTION.slots

GMIC = NetworkSpec(
    name="GMIC",
    aggregation="attention",
    title="GMIC",
    classes=CLASSES,
    input_shape=PUBLISHED_FRAME,
    map_shape=MAP_SHAPE,
    selection=SELECTION,
    graphs={
        "global": GraphContract(
            inputs=tensors(image=(1, *PUBLISHED_FRAME)),
            outputs=tensors(saliency_global=(_N, *MAP_SHAPE), y_global=(_N,), z_g=(Z_GLOBAL,)),
        ),
        "local": GraphContract(
            inputs=tensors(patches=(1, SELECTION.side, SELECTION.side)), outputs=tensors(z_k=(Z_PATCH,))
        ),
        "fusion": GraphContract(
            inputs=tensors(patch_locations=(_K, 2), z_g=(Z_GLOBAL,), z_k=(_K, Z_PATCH)),
            outputs=tensors(y_local=(_N,), y_fusion=(_N,), attention=(_K,)),
        ),
    },
    scores=("y_global", "y_local", "y_fusion"),
    fusion_weights=attention_weights(classes=_N, z_global=Z_GLOBAL, z_patch=Z_PATCH, classifier=True),
)
