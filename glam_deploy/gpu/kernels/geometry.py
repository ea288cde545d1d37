"""Numbers on which the launches and the kernels must agree; `source.py` writes all of them into the CUDA source.

Those that follow from a network's shapes are in `Geometry`. Rows and threads divide what they share out without a
rest, which the kernels assert when they are compiled; the rows of windows of `propose` may have one.
"""

from dataclasses import dataclass
from enum import IntFlag

from glam_deploy.networks import NetworkSpec

HEADER_BYTES = 64
"""Of a staging area; the pixels follow."""

PIXEL_UINT16 = 0
PIXEL_FLOAT32 = 1
"""What the pixels of a staging area are."""

MOMENTS_ROWS = 4
MOMENTS_THREADS = 256
"""`moments`: rows of pixels and threads of a block."""

STANDARDIZE_ROWS = 4
"""`standardize`: rows of the image of a block."""

PROPOSE_ROWS = 9
PROPOSE_TILE = 3
PROPOSE_THREADS = 384
"""`propose`: rows of windows that a block has, sums that a thread has, threads of a block."""

CROP_ROWS = 4
"""`crop`: rows of a patch that a block has."""

EXAMINE_ROWS = 4
"""`examine`: rows of the image of a block."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """What follows from the shapes of a network."""

    row_threads: int
    """`standardize`, `fuse`, `examine`: threads of a block; a thread has 4 columns of the image."""
    crop_threads: int
    """`crop`: threads of a row of a patch; a thread has 4 columns."""
    propose_blocks: int
    """`propose`: blocks of an image."""
    scratch_bytes: int
    """Of one image: what its blocks leave for each other. All zero before the first launch; launches leave it ready."""


def geometry_of(network: NetworkSpec) -> Geometry:
    """The geometry for a network that has patches."""
    rows, columns = network.input_shape
    places = network.map_shape[0] - network.patches.window + 1
    moments = 16 * (rows // MOMENTS_ROWS)  # a sum and a sum of squares, 8 bytes each, of each block
    return Geometry(
        row_threads=columns // 4,
        crop_threads=network.patches.side // 4,
        propose_blocks=-(-places // PROPOSE_ROWS),
        scratch_bytes=-(-(moments + 64) // 4096) * 4096,
    )


class Flags(IntFlag):
    """One uint32 an image: `propose` writes it anew, `fuse` and `examine` add to it."""

    FLAT_BENIGN = 1
    FLAT_MALIGNANT = 2
    """The class's global saliency has no contrast: its maximum equals its minimum."""
    NOT_FINITE_GLOBAL = 4
    NOT_FINITE_LOCAL = 8
    """NaN or infinity in the global saliency, or in the saliency of a patch in use."""
    NOT_FINITE_IMAGE = 16
    """NaN or infinity in an image that came from a caller's hands on the GPU."""
