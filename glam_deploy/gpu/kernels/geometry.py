"""Launch constants shared by the kernels and their launches; `source.py` writes all of them into the CUDA source.

Those that follow from the shapes of a network are in `Geometry`. Rows and threads divide the data without remainder,
which the kernels assert at compile time, except for the rows of windows in `propose`.
"""

from dataclasses import dataclass
from enum import IntFlag

from glam_deploy.networks import NetworkSpec

HEADER_BYTES = 64
"""Size of the header of a staging area; the pixels follow it."""

PIXEL_UINT16 = 0
PIXEL_FLOAT32 = 1
PIXEL_UINT8 = 2
"""Type of the pixels of a staging area."""

MOMENTS_ROWS = 4
MOMENTS_THREADS = 256
"""`moments`: rows of pixels per block, threads per block."""

STANDARDIZE_ROWS = 4
"""`standardize`: rows of the image per block."""

PROPOSE_ROWS = 9
PROPOSE_TILE = 3
PROPOSE_THREADS = 384
"""`propose`: rows of windows per block, sums per thread, threads per block."""

CROP_ROWS = 4
"""`crop`: rows of a patch per block."""

POOL_THREADS = 1024
ATTEND_THREADS = 512
"""`pool`, `attend`: threads per block."""

EXAMINE_ROWS = 4
"""`enlarge`, `examine`: rows of the image per block."""

PLACE_THREADS = 256
PLACE_BLOCKS = 512
"""Kernels that place whole images: threads per block, largest number of blocks per image."""

ERODE_ROWS = 128
ERODE_WORDS = 8
"""`erode`: height of a tile in rows, and its width in words of a mask, which have 32 columns each."""

DILATE_ROWS = 256
"""`dilate`: rows of the image per block."""


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Launch constants that follow from the shapes of a network."""

    row_threads: int
    """`standardize`, `fuse`, `enlarge`, `examine`: threads per block; each thread has 4 columns of the image."""
    crop_threads: int
    """`crop`: threads per row of a patch; each thread has 4 columns. 0 for a network without patches."""
    propose_blocks: int
    """`propose`: blocks per image. 0 for a network without patches."""
    scratch_bytes: int
    """Scratch memory per image in bytes. It must be zero before the first launch; each launch resets it."""


def geometry_of(network: NetworkSpec) -> Geometry:
    """The launch constants of a network."""
    (rows, columns), rule = network.input_shape, network.selection
    window_rows = network.map_shape[0] - rule.window + 1 if rule else 0
    moments = 16 * (rows // MOMENTS_ROWS)  # a sum and a sum of squares per block, 8 bytes each
    return Geometry(
        row_threads=columns // 4,
        crop_threads=rule.side // 4 if rule else 0,
        propose_blocks=-(-window_rows // PROPOSE_ROWS),
        scratch_bytes=-(-(moments + 64) // 4096) * 4096,
    )


class Flags(IntFlag):
    """Bits of one uint32 per image: `propose` overwrites it, `fuse`, `enlarge` and `examine` set further bits."""

    FLAT_BENIGN = 1
    FLAT_MALIGNANT = 2
    """The global saliency of the class has no contrast: its maximum equals its minimum."""
    NOT_FINITE_GLOBAL = 4
    NOT_FINITE_LOCAL = 8
    """NaN or infinity in the global saliency, or in the saliency of a used patch."""
    NOT_FINITE_IMAGE = 16
    """NaN or infinity in an image that another library wrote in GPU memory."""
