"""Raw view -> network input, and positions and maps of the network frame -> source image.

The published preprocessing (Liu et al. 2021, section 3; Wu et al. 2019, "The NYU Breast Cancer Screening Dataset"), in
order:

1. Find the breast. Every pixel above 0 is foreground. It is eroded 100 times with the 4-neighbour cross, which
   separates the breast from labels, scratches and the edge of the paddle; the largest component is dilated 100 times.
   (`foreground`)
2. Crop. The bounding box of the breast is extended by up to 50 pixels above, below and on the side of the nipple, and
   not at the chest wall. (`window`)
3. Mark the outermost points of the breast in the lower two thirds of the crop, and its lowest points. (`window`)
4. Choose the best centre: a 2944 x 1920 window with its right edge at the outermost point (CC), or its lower right
   corner at the lowest and outermost point (MLO), and of these the one with most foreground. (`window`)
5. Place the window there, upright and facing right: a view that faces left is mirrored first. A window that extends
   beyond a larger crop is shifted back inside, a smaller crop is padded with zeros: CC evenly above and below and on
   the right, MLO below and on the right. Then subtract the mean and divide by the standard deviation of the whole
   window, including padding. (`window`, `standardize`)

`place` determines the position of the window, for which it needs the whole image; `network_input` makes the window,
which is faster on a GPU; `prepare` does both.

Pixels are never resampled, so the conversion back (`frame`) is exact to the pixel. An image from which no correct input
can be made is refused (`prepare`, `damage`, `diagnosis`), and other findings are notices (`place`); nothing is repaired
or guessed.
"""

from glam_deploy.preprocess.frame import (
    SourceMaps,
    box_to_source,
    map_to_network,
    map_to_source,
    point_to_network,
    point_to_source,
)
from glam_deploy.preprocess.prepare import network_input, place, prepare
from glam_deploy.preprocess.standardize import from_cropped, from_standardized, whole_frame

__all__ = [
    "SourceMaps",
    "box_to_source",
    "from_cropped",
    "from_standardized",
    "map_to_network",
    "map_to_source",
    "network_input",
    "place",
    "point_to_network",
    "point_to_source",
    "prepare",
    "whole_frame",
]
