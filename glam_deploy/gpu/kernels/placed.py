"""Results of the kernels that place whole images: sizes of their memory, and the block of facts and samples.

`Kernels.place` writes a block per image: facts, the extent of the breast in each of its rows, and samples of the image,
from which the host makes the checks of `preprocess.diagnosis` while the networks run.
"""

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.gpu.kernels.geometry import HEADER_BYTES, PLACE_BLOCKS
from glam_deploy.gpu.kernels.staging import LARGEST_BYTES, LARGEST_PIXELS, LARGEST_SIDE
from glam_deploy.preprocess import foreground, samples, window
from glam_deploy.preprocess.foreground import Breast
from glam_deploy.preprocess.samples import Samples
from glam_deploy.records import Box, CropFacts

FACTS_BYTES = 512
"""Size of the facts at the start of a block."""

OUTLINE_COLUMNS = samples.BEYOND + samples.DEPTH + 2
"""Values per row of `Samples.outline`."""
SAMPLES = tuple(field.name for field in fields(Samples))
"""Names of the samples, in the order of the facts."""


class PlaceStatus(IntEnum):
    """Result of the search of the breast, in the order in which `preprocess.place` checks it."""

    OK = 0
    NOT_FINITE = 1
    """A pixel is NaN or infinite."""
    NEGATIVE = 2
    """The smallest pixel is below 0."""
    EMPTY = 3
    """No pixel is above 0."""
    CONSTANT = 4
    """All pixels have one value."""
    THIN = 5
    """Nothing of the foreground is left after the erosions."""


FACTS = np.dtype(
    [
        ("range", "<f8", 2),
        ("status", "<i4"),
        ("rows", "<i4", 2),
        ("crop", "<i4", 4),
        ("outermost", "<i4", 3),
        ("lowest", "<i4", 3),
        ("distance", "<i4"),
        ("center", "<i4", 2),
        ("shift", "<i4", 2),
        ("foreground", "<i4"),
        ("seen_foreground", "<i4"),
        ("extents", "<i4", 2),
        ("samples", "<i4", (len(SAMPLES), 9)),
    ]
)
"""The facts, as place.cuh, struct Facts, describes them. Of a sample: offset, rows, columns, and its position."""

_RANGE_BYTES = 12
_SIDE_BYTES = 4 * 4 + 8 + 4
_WORD_BYTES = 4 + 4 + 2 + 16 * 4
_MOST_WORDS = -(-(LARGEST_PIXELS + 31 * LARGEST_SIDE) // (32 * 8)) * 8
"""Bytes of scratch memory for each block of `foreground` (the range of its pixels), for each row (extents and counts),
and for each word of a mask, which has 32 pixels of a row: foreground, core, the first column of a run, and 16
entries of the union-find forest. `_MOST_WORDS`: words of the largest image; each row begins with a new word."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """The breast and the position of the window in an image that can be used."""

    breast: Breast
    """In the source frame, as from `preprocess.foreground.find_breast`."""
    crop: Box
    """Half-open (top, left, bottom, right), upright frame."""
    crop_facts: CropFacts
    best_center: tuple[int, int]
    row_shift: int
    column_shift: int
    foreground: int
    """Number of pixels above 0 in the crop."""
    seen_foreground: int
    """The same in the part of the crop inside the window."""
    samples: Samples


@dataclass(frozen=True, kw_only=True)
class Located:
    """Result of `Kernels.place` for an image."""

    status: PlaceStatus
    low: float
    high: float
    """Smallest and largest pixel; undefined for NOT_FINITE."""
    found: Found | None
    """None unless the status is OK."""


def place_scratch_bytes(n: int) -> int:
    """Size in bytes of the scratch memory of `Kernels.place` for `n` images; it needs no zeros."""
    return n * constants()["PLACE_BYTES"]


def samples_bytes() -> int:
    """Distance in bytes between the blocks of two images: enough for any image that `staging.fits`."""
    side, largest = LARGEST_SIDE, (LARGEST_BYTES - HEADER_BYTES) // 4
    points = 2 * _points(side) ** 2 + 2 * (largest // samples.LINE_STEP + side) + _few_values(side, side)
    beside = largest // samples.BESIDE_STEP**2 + 2 * side // samples.BESIDE_STEP + 1
    padding = 16 * (2 + len(SAMPLES))
    return -(-(FACTS_BYTES + 8 * side + 4 * (points + beside) + padding) // 256) * 256


def used_samples_bytes(rows: int, columns: int, dtype: np.dtype[Any]) -> int:
    """Bytes from the start of a block that an image of this shape and dtype may use, whatever it shows."""
    step = samples.grid_step(rows, columns)
    counts = (
        _points(rows) * _points(columns),
        rows * -(-columns // samples.LINE_STEP),
        columns * -(-rows // samples.LINE_STEP),
        -(-rows // step) * -(-columns // step),
        -(-rows // samples.BESIDE_STEP) * -(-columns // samples.BESIDE_STEP),
        _few_values(rows, columns),
    )
    return FACTS_BYTES + 8 * rows + dtype.itemsize * sum(counts) + 16 * (2 + len(SAMPLES))


def read(block: NDArray[np.uint8], dtype: np.dtype[Any]) -> Located:
    """The result in a downloaded block, copied. `dtype`: of the pixels of the image.

    `block`: uint8 [bytes], contiguous, with 8-byte alignment, of at least `used_samples_bytes`. Raises ValueError for a
    block that `Kernels.place` did not write.
    """
    facts = block[: FACTS.itemsize].view(FACTS)[0]
    (low, high), status = facts["range"].tolist(), PlaceStatus(int(facts["status"]))
    found = _found(block, facts, dtype) if status is PlaceStatus.OK else None
    return Located(status=status, low=low, high=high, found=found)


def constants() -> dict[str, int]:
    """Constants of the kernels that place whole images, for the CUDA source."""
    place = -(-(1024 + PLACE_BLOCKS * _RANGE_BYTES + LARGEST_SIDE * _SIDE_BYTES + _MOST_WORDS * _WORD_BYTES) // 256)
    return {
        "EROSIONS": foreground.EROSIONS,
        "BUFFER": window.BUFFER,
        "LINE_STEP": samples.LINE_STEP,
        "GRID_POINTS": samples.GRID,
        "BESIDE_STEP": samples.BESIDE_STEP,
        "OUTLINE_ROWS": samples.OUTLINE_ROWS,
        "OUTLINE_SEARCH": samples.BEYOND,
        "OUTLINE_COLUMNS": OUTLINE_COLUMNS,
        "LARGEST_SIDE": LARGEST_SIDE,
        "LARGEST_WORDS": _MOST_WORDS,
        "PLACE_BYTES": 256 * place,
        "FACTS_BYTES": FACTS_BYTES,
        "SAMPLES_BYTES": samples_bytes(),
        "SAMPLES": len(SAMPLES),
        **{f"SAMPLE_{name.upper()}": i for i, name in enumerate(SAMPLES)},
        **{f"STATUS_{status.name}": status.value for status in PlaceStatus},
    }


def _points(side: int) -> int:
    """Largest number of points along a side of a grid with the step length // GRID, for any length up to `side`."""
    return min(side, 2 * samples.GRID - 1)


def _few_values(rows: int, columns: int) -> int:
    """Largest number of values of the outline and of the four sides."""
    return min(rows, 2 * samples.OUTLINE_ROWS - 1) * OUTLINE_COLUMNS + 2 * rows + 2 * columns


def _found(block: NDArray[np.uint8], facts: np.void, dtype: np.dtype[Any]) -> Found:
    top, bottom = facts["rows"].tolist()
    left, right = (block[at : at + 4 * (bottom - top)].view("<i4").astype(np.int64) for at in facts["extents"].tolist())
    first, last, column = facts["outermost"].tolist()
    row, lowest_first, lowest_last = facts["lowest"].tolist()
    crop_top, crop_left, crop_bottom, crop_right = facts["crop"].tolist()
    center_row, center_column = facts["center"].tolist()
    row_shift, column_shift = facts["shift"].tolist()
    return Found(
        breast=Breast(top=top, left=left, right=right),
        crop=(crop_top, crop_left, crop_bottom, crop_right),
        crop_facts=CropFacts(
            distance_from_starting_side=int(facts["distance"]),
            rightmost_points=((first, last), column),
            bottommost_points=(row, (lowest_first, lowest_last)),
        ),
        best_center=(center_row, center_column),
        row_shift=row_shift,
        column_shift=column_shift,
        foreground=int(facts["foreground"]),
        seen_foreground=int(facts["seen_foreground"]),
        samples=_samples(block, facts["samples"][:, :3].tolist(), dtype),
    )


def _samples(block: NDArray[np.uint8], where: list[list[int]], dtype: np.dtype[Any]) -> Samples:
    arrays = {}
    for name, (offset, rows, columns) in zip(SAMPLES, where, strict=True):
        values = block[offset : offset + rows * columns * dtype.itemsize].view(dtype).copy()
        arrays[name] = values if name.startswith(("first", "last")) else values.reshape(rows, columns)
    return Samples(**arrays)
