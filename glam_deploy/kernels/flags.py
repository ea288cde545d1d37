"""What the kernels have to say about one image besides its numbers."""

from enum import IntFlag


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
