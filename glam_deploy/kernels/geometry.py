"""Numbers on which the launches and the kernels must agree; `source.py` writes all of them into the CUDA source.

Rows and threads divide what they share out without a rest, which the kernels assert when they are compiled.
"""

HEADER_BYTES = 64
"""Of a staging area; the pixels follow."""

PIXEL_UINT16 = 0
PIXEL_FLOAT32 = 1
"""What the pixels of a staging area are."""

MOMENTS_ROWS = 4
MOMENTS_THREADS = 256
"""`moments`: rows of pixels and threads of a block."""

STANDARDIZE_ROWS = 4
STANDARDIZE_THREADS = 480
"""`standardize`: rows of the image and threads of a block; a thread has 4 columns of the 1920."""

PROPOSE_ROWS = 9
PROPOSE_TILE = 3
PROPOSE_THREADS = 384
"""`propose`: rows of windows that a block has (17 x 9 are the 153), sums that a thread has, threads of a block."""

CROP_ROWS = 4
CROP_THREADS = 128
"""`crop`: rows of a patch that a block has, threads of a row (4 columns each)."""

FUSE_THREADS = 480
"""`fuse`: threads of a block; a thread has 4 columns of the 1920."""

EXAMINE_ROWS = 4
EXAMINE_THREADS = 480
"""`examine`: rows of the image and threads of a block; a thread has 4 columns of the 1920."""

SCRATCH_BYTES = 12288
"""Of one image: what its blocks leave for each other. All zero before the first launch; launches leave it ready."""
