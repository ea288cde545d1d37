"""Bits above BitsStored: unrelated to the pixel values (PS3.5 8.1.1), or proof of a wrong BitsStored or byte order.

Bits that can be cleared without a change of values: bits that are equal in all pixels, a separate pattern (the overlay
of an old device), and padding that the header states. Bits that belong to the values refuse the image.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glam_deploy.errors import DicomError
from glam_deploy.preprocess.byte_order import SMOOTHER, gain_of_swap
from glam_deploy.records import Notice, Pixels

Mask = NDArray[np.bool_]

SPARSE = 0.05
"""Largest share of pixels with bits above BitsStored that are text or lines of an overlay."""
COHERENT = 0.1
"""Largest ratio of changes between neighbours in a row to pixels with such bits, for bits that form an area."""
CONTINUED = 0.3
"""Limit of the share of changes of the bits above that make the step between two pixels smaller; beyond it, these bits
are a part of the value. An overlay has at most 1/8: the value must fall by half its range at the edge."""
EDGES = 6
"""Limit of the ratio of steps between neighbours, without the bits above, where these bits change to those elsewhere;
beyond it, these bits are a part of the value. Under an overlay the image has the same steps as elsewhere."""
SMALL = 0.001
"""Share of the pixels that may have bits above BitsStored after the byte swap."""


@dataclass(frozen=True, kw_only=True)
class Bits:
    """Layout of a pixel as the header states it."""

    stored: int
    """BitsStored, 6 to 16."""
    padding: tuple[int, int] | None = None
    """Smallest and largest stored value of padding (PixelPaddingValue, PixelPaddingRangeLimit)."""
    inverted: bool = False
    """Whether PhotometricInterpretation is MONOCHROME1."""

    @property
    def top(self) -> int:
        return (1 << self.stored) - 1


def padding_of(value: int | None, limit: int | None, *, allocated: int, signed: bool) -> tuple[int, int] | None:
    """Range of the stored values that PixelPaddingValue and PixelPaddingRangeLimit state (PS3.3 C.7.5.1.1.2).

    A negative value with unsigned pixels was written with the wrong value representation: -1 is 65535 in 16 bits.
    """
    if value is None:
        return None
    ends = sorted((value, value if limit is None else limit))
    if not signed and ends[1] < 0:
        ends = [end % (1 << allocated) for end in ends]
    return ends[0], ends[1]


def is_padding(pixels: Pixels, bits: Bits) -> Mask:
    """Mask of the pixels that the header states as padding: bool [rows, columns]."""
    if bits.padding is None:
        return np.zeros(pixels.shape, np.bool_)
    return np.asarray((pixels >= bits.padding[0]) & (pixels <= bits.padding[1]))


def twos_complement(pixels: Pixels, bits: Bits) -> Pixels:
    """Two's complement value of the lowest BitsStored bits of each pixel: uint8 or uint16 -> int32."""
    values = pixels.astype(np.int32) & bits.top
    return values - ((values >> (bits.stored - 1)) << bits.stored)


def without_bits_above(pixels: Pixels, bits: Bits) -> tuple[Pixels, tuple[Notice, ...]]:
    """Clear the bits above BitsStored of each pixel; gives a notice if any was set.

    `pixels`: uint8 or uint16 [rows, columns], as stored. Padding that the header states is not checked. Raises
    DicomError if the bits above BitsStored belong to the values: swapped bytes, a BitsStored that is too small, or
    padding that the header does not state.
    """
    check_byte_order(pixels, bits)
    if pixels.max(initial=0) <= bits.top:
        return pixels, ()
    image = ~is_padding(pixels, bits)
    above = image & (pixels > bits.top)
    count = int(np.count_nonzero(above))
    values = pixels & pixels.dtype.type(bits.top)
    if not count:
        return values, ()
    _refuse_values(pixels, above, image, bits)
    message = (
        f"{count} pixels have bits set above BitsStored {bits.stored}, which were cleared (PS3.5 8.1.1): they are "
        "unrelated to the values, like the overlay of an old device"
    )
    return values, (Notice(code="bits-above-stored", message=message),)


def check_byte_order(pixels: Pixels, bits: Bits) -> None:
    """Raise DicomError if the two bytes of each pixel are swapped.

    They are if all pixels fit into BitsStored after a byte swap, and either they do not fit before it or steps between
    neighbours become `SMOOTHER` times smaller. A byte swap also reduces these steps if the bits above hold noise, but
    then the pixels do not fit. `pixels`: unsigned [rows, columns], as stored.
    """
    if pixels.dtype.itemsize != 2:
        return
    gain = gain_of_swap(pixels)
    if gain <= SMOOTHER and pixels.max(initial=0) <= bits.top:
        return
    above, misfits, allowed = _fit(pixels, bits)
    smoother, only_then = gain > SMOOTHER, above > allowed and gain >= 1 / SMOOTHER
    if misfits > allowed or not (smoother or only_then):
        return
    counts = f"{above} pixels have bits set above BitsStored {bits.stored}, {misfits} after a byte swap"
    reasons = [counts] * (above > allowed)
    reasons += [f"neighbouring pixels differ {gain:.0f} times less after a byte swap"] * smoother
    raise DicomError(
        f"the two bytes of each pixel are swapped ({'; '.join(reasons)}): write the pixel data in the byte order of "
        "its transfer syntax, or correct the transfer syntax, at the source of the object"
    )


def _fit(pixels: Pixels, bits: Bits) -> tuple[int, int, float]:
    """Number of pixels with bits above BitsStored, before and after a byte swap, and the number allowed (`SMALL`).

    Padding, and pixels that a byte swap does not change, are not counted.
    """
    swapped = pixels.byteswap()
    changed = (swapped != pixels) & ~is_padding(pixels, bits)
    above = int(np.count_nonzero(changed & (pixels > bits.top)))
    misfits = int(np.count_nonzero(changed & (swapped > bits.top)))
    return above, misfits, SMALL * int(np.count_nonzero(changed))


def _refuse_values(pixels: Pixels, above: Mask, image: Mask, bits: Bits) -> None:
    """Raise DicomError unless the bits above BitsStored, set in the pixels `above`, are unrelated to the values."""
    count = int(np.count_nonzero(above))
    share = count / max(1, int(np.count_nonzero(image)))
    high = pixels >> bits.stored
    other = _uncommon(high, image)
    if not other.any():
        return
    counts = f"{count} pixels ({100 * share:.3g} %) have bits set above BitsStored {bits.stored}"
    largest = int(pixels[above].max())
    if (continued := _continued(pixels, image, bits)) > CONTINUED:
        raise _too_small(
            f"{counts} that continue the values of their neighbours: {100 * continued:.0f} % of the steps between "
            "neighbours that change these bits are smaller with them than without them",
            largest,
        )
    if share > SPARSE and (pixels[above] == largest).all() and (bits.inverted or largest & bits.top):
        raise DicomError(
            f"{counts}, all with the value {largest}: this is padding that the header does not state. Export the "
            f"object with PixelPaddingValue {largest}, or without such pixels"
        )
    if (edges := _edges_left(pixels, image, high, other, bits)) > EDGES:
        raise _too_small(
            f"{counts}, and without these bits the steps between neighbours are {edges:.0f} times larger at their "
            "edges than elsewhere",
            largest,
        )
    if not _is_pattern(high, image, other):
        raise DicomError(
            f"the bits above BitsStored hold noise, or BitsStored is too small: {counts} that change from pixel to "
            f"pixel, unlike an overlay or padding. The largest pixel is {largest}, which needs {largest.bit_length()} "
            "bits: set these bits to 0, or correct BitsStored and HighBit, at the source of the object"
        )


def _too_small(evidence: str, largest: int) -> DicomError:
    return DicomError(
        f"BitsStored is too small: {evidence}. The largest pixel is {largest}, which needs {largest.bit_length()} "
        "bits: correct BitsStored and HighBit at the source of the object"
    )


def _continued(pixels: Pixels, image: Mask, bits: Bits) -> float:
    """Of the steps between neighbours that change the bits above, the share that is smaller with these bits."""
    with_bits = np.diff(pixels.astype(np.int32), axis=1)
    without = np.diff((pixels & bits.top).astype(np.int32), axis=1)
    changes = (with_bits != without) & image[:, 1:] & image[:, :-1]
    smaller = np.abs(with_bits) < np.abs(without)
    return int(np.count_nonzero(changes & smaller)) / max(1, int(np.count_nonzero(changes)))


def _edges_left(pixels: Pixels, image: Mask, high: Pixels, other: Mask, bits: Bits) -> float:
    """Median step between neighbours, without the bits above, where these bits change, divided by that elsewhere.

    Only pixels that are not 0 without these bits count, and if few pixels differ, those too, because the border of the
    image content has a step of its own. `high`: the bits above; `other`: mask of pixels where they are not the most
    common ones.
    """
    rest = (pixels & bits.top).astype(np.int32)
    few = np.count_nonzero(other) <= SPARSE * np.count_nonzero(image)
    shown = image & ((rest > 0) | other if few else rest > 0)
    pairs, steps = shown[:, 1:] & shown[:, :-1], np.abs(np.diff(rest, axis=1))
    changes = pairs & (np.diff(high, axis=1) != 0)
    if not changes.any() or not (pairs & ~changes).any():
        return 0.0
    return float(np.median(steps[changes]) / max(1.0, float(np.median(steps[pairs & ~changes]))))


def _is_pattern(high: Pixels, image: Mask, other: Mask) -> bool:
    """Whether the bits above are a separate pattern: set in few pixels, or in areas."""
    few = int(np.count_nonzero(other))
    steps = int(np.count_nonzero(np.diff(high, axis=1) != 0))
    return bool(few <= SPARSE * np.count_nonzero(image) or steps <= COHERENT * few)


def _uncommon(high: Pixels, image: Mask) -> Mask:
    """Mask of image pixels whose bits above differ from the most common ones."""
    values, counts = np.unique(high[image], return_counts=True)
    return np.asarray(image & (high != values[counts.argmax()]))
