"""CAM (Zhou et al., CVPR 2016, arXiv 1512.04150): a ResNet classifier (He et al. 2016) with its class activation maps.
There is one stage and there are no patches.

With the last feature map f, and weights w_c and bias b_c of the classifier, M_c = sum over channels k of w_ck f_k is
the class activation map, and the score is y_c = sigmoid(mean over cells of M_c + b_c). M_c is a logit without bounds,
which needs a scaling before any threshold. Here the map is sigmoid(M_c + b_c) for each cell, because a value then means
the same in every image; the score is the sigmoid of the mean of the map's logits. The other usual scaling, by minimum
and maximum of each image, gives the brightest cell of an image without lesion the value 1.
"""

from glam_deploy.networks.base import PUBLISHED_FRAME, GraphContract, NetworkSpec, tensors

CLASSES = ("benign", "malignant")
"""The two outputs of the classifier, in this order."""

MAP_SHAPE = (92, 60)
"""A ResNet has a total stride of 32."""

CAM = NetworkSpec(
    name="CAM",
    aggregation="none",
    title="CAM",
    classes=CLASSES,
    input_shape=PUBLISHED_FRAME,
    map_shape=MAP_SHAPE,
    selection=None,
    graphs={
        "global": GraphContract(
            inputs=tensors(image=(1, *PUBLISHED_FRAME)),
            outputs=tensors(saliency_global=(len(CLASSES), *MAP_SHAPE), y_global=(len(CLASSES),)),
        )
    },
    scores=("y_global",),
)
