"""From a view as it left the detector to the network's input, and from the network's frame back to that view.

The published preprocessing (Liu et al. 2021, section 3; Wu et al. 2019, "The NYU Breast Cancer Screening Dataset"), in
the order in which it happens:

1. Find the breast. Every pixel above 0 is foreground. It is eroded 100 times with the 4-neighbour cross, which parts
   the breast from labels, scratches and the edge of the paddle; the largest piece is dilated back 100 times.
   (`foreground`)
2. Crop. The breast's bounding box is widened by up to 50 pixels above, below and on the side that the nipple points
   to; nothing is added at the chest wall. (`window`)
3. Mark the breast's outermost points in the lower two thirds of the crop, and its lowest points. (`window`)
4. Choose the best centre: a 2944 x 1920 window whose right edge is the outermost point (CC) or whose lower right corner
   is the lowest and outermost point (MLO), and of those the one with most foreground. (`window`)
5. Place the window there, upright and facing right: a view that faces left is mirrored first. A window that leaves
   a larger crop is shifted back inside, a smaller crop is padded with zeros: CC above and below evenly and on the
   right, MLO below and on the right. Then subtract the mean and divide by the standard deviation of the whole
   window, padding included. (`window`, `standardize`)

`place` goes as far as the window's place, which needs the whole image; `network_input` makes the window, which a GPU
does faster; `prepare` is both.

There is no resampling anywhere, so the way back (`frame`, and `source_maps` for whole maps) is exact to the pixel. What
stands in the way of a faithful input is refused (`checks`, `damage`, `diagnosis`), and what a reader must know is
noticed (`place`); nothing is repaired or guessed.
"""

from glam_deploy.preprocess.frame import (
    SourceMaps,
    box_to_source,
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
    "map_to_source",
    "network_input",
    "place",
    "point_to_network",
    "point_to_source",
    "prepare",
    "whole_frame",
]
