"""Networks that are not in this release, sketched to show that a spec can hold them: GMIC and CAM.

GMIC: Shen et al., Medical Image Analysis 2021 (arXiv 2002.07613). CAM: Zhou et al., CVPR 2016, on the same trunk.
"""

from glam_deploy.networks import PUBLISHED_FRAME, GraphContract, NetworkSpec, PatchSelection
from glam_deploy.networks.base import tensors

_MAP = (46, 30)
_CLASSES = ("benign", "malignant")
_IMAGE = tensors(image=(1, *PUBLISHED_FRAME))

GMIC = NetworkSpec(
    name="GMIC",
    aggregation="attention",
    title="GMIC",
    classes=_CLASSES,
    input_shape=PUBLISHED_FRAME,
    map_shape=_MAP,
    selection=PatchSelection(side=256, window=4, slots=6, map_side=None),
    graphs={
        "global": GraphContract(inputs=_IMAGE, outputs=tensors(saliency_global=(2, *_MAP), y_global=(2,), z_g=(256,))),
        "local": GraphContract(inputs=tensors(patches=(1, 256, 256)), outputs=tensors(z_k=(512,))),
        "fusion": GraphContract(
            inputs=tensors(z_g=(256,), z_k=(6, 512), patch_locations=(6, 2)),
            outputs=tensors(y_local=(2,), y_fusion=(2,), attention=(6,)),
        ),
    },
    scores=("y_global", "y_local", "y_fusion"),
)

CAM = NetworkSpec(
    name="CAM",
    aggregation="none",
    title="CAM",
    classes=_CLASSES,
    input_shape=PUBLISHED_FRAME,
    map_shape=_MAP,
    selection=None,
    graphs={"global": GraphContract(inputs=_IMAGE, outputs=tensors(saliency_global=(2, *_MAP), y_global=(2,)))},
    scores=("y_global",),
)
