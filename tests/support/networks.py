"""A network that is not in this release, sketched to show that a spec can hold it: CAM (Zhou et al., CVPR 2016)."""

from glam_deploy.networks import PUBLISHED_FRAME, GraphContract, NetworkSpec
from glam_deploy.networks.base import tensors

_MAP = (46, 30)
_CLASSES = ("benign", "malignant")
_IMAGE = tensors(image=(1, *PUBLISHED_FRAME))

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
