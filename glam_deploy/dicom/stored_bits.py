"""Bits above BitsStored: no part of a pixel (PS3.5 8.1.1), or evidence that BitsStored or the byte order is wrong.

What may be left out changes no value: bits that are the same in all pixels, a pattern of its own (the overlay of an old
device), and padding that the header states. Bits that belong to the values refuse the image.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glam_deploy.errors import DicomError
from glam_deploy.records import Notice, Pixels

Mask = NDArray[np.bool_]

SPARSE = 0.05
"""Share of the pixels up to which bits above BitsStored can be text or lines of an overlay."""
COHERENT = 0.1
"""Changes from pixel to pixel in a row, as a share of the pixels concerned, up to which such bits are an area."""
CONTINUED = 0.3
"""Share of the changes of the bits above that make the step between two pixels smaller, from which they are a part of
the value. In an overlay over any image it is at most an eighth: the value must fall by half its range at the edge."""
EDGES = 6
"""How many times larger than elsewhere the steps between neighbours are, without the bits above and where these change,
from which they are a part of the value: below an overlay the image goes on as it does elsewhere."""
SMOOTHER = 3
"""How many times smaller the steps between neighbours become if the exchange of bytes restores an image; 15 in a
mammogram of 12 bits, 1 in noise, less than 1 in a sound image."""
SMALL = 0.001
"""Share of the pixels that need not fit after the exchange."""
_ROW_STEP = 8
"""Every so many rows are looked at for swapped bytes in an image that gives no reason for it."""


@dataclass(frozen=True, kw_only=True)
class Bits:
    """How the header describes a pixel."""

    stored: int
    """BitsStored, 6 to 16."""
    padding: tuple[int, int] | None = None
    """Smallest and largest stored value that means no image (PixelPaddingValue, PixelPaddingRangeLimit)."""
    inverted: bool = False
    """MONOCHROME1."""

    @property
    def top(self) -> int:
        return (1 << self.stored) - 1


def padding_of(value: int | None, limit: int | None, *, allocated: int, signed: bool) -> tuple[int, int] | None:
    """The range of stored values that PixelPaddingValue and PixelPaddingRangeLimit state (PS3.3 C.7.5.1.1.2).

    A negative one beside unsigned pixels was written with the wrong value representation: -1 is 65535 in 16 bits.
    """
    if value is None:
        return None
    ends = sorted((value, value if limit is None else limit))
    if not signed and ends[1] < 0:
        ends = [end % (1 << allocated) for end in ends]
    return ends[0], ends[1]


def is_padding(pixels: Pixels, bits: Bits) -> Mask:
    """bool [rows, columns]: whether a stored value is one that the header states as padding."""
    if bits.padding is None:
        return np.zeros(pixels.shape, np.bool_)
    return np.asarray((pixels >= bits.padding[0]) & (pixels <= bits.padding[1]))


def in_complement(pixels: Pixels, bits: Bits) -> Pixels:
    """The value in the lowest BitsStored bits of each pixel, uint8 or uint16, in two's complement: int32."""
    values = pixels.astype(np.int32) & bits.top
    return values - ((values >> (bits.stored - 1)) << bits.stored)


def without_bits_above(pixels: Pixels, bits: Bits) -> tuple[Pixels, tuple[Notice, ...]]:
    """The values in the lowest BitsStored bits of each pixel, and a notice where other bits were set.

    `pixels`: uint8 or uint16 [rows, columns], as stored. Padding that the header states is not looked at.

    Raises DicomError where the bits above BitsStored belong to the values: swapped bytes, a BitsStored that is too
    small, or padding that the header does not state.
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
    told = (
        f"{count} pixels have bits set above BitsStored {bits.stored}, which were left out (PS3.5 8.1.1): they are "
        "unrelated to the values, as an overlay of an old device is"
    )
    return values, (Notice(code="bits-above-stored", message=told),)


def check_byte_order(pixels: Pixels, bits: Bits) -> None:
    """Raise DicomError where the exchange of the two bytes of each pixel makes an image of what is none.

    After it all pixels fit into BitsStored, and either only then or neighbouring pixels become `SMOOTHER` times more
    alike: noise in the bits above makes an exchange smoother, too, but not one that fits. `pixels`: unsigned
    [rows, columns], as stored.
    """
    if pixels.dtype.itemsize != 2:
        return
    rows = pixels[::_ROW_STEP] if len(pixels) >= 64 * _ROW_STEP else pixels
    gain = _roughness(rows) / max(_roughness(rows.byteswap()), 1e-9)
    if gain <= SMOOTHER and pixels.max(initial=0) <= bits.top:
        return
    above, misfits, allowed = _fit(pixels, bits)
    smoother, only_then = gain > SMOOTHER, above > allowed and gain >= 1 / SMOOTHER
    if misfits > allowed or not (smoother or only_then):
        return
    told = f"{above} pixels have bits set above BitsStored {bits.stored}, {misfits} after the exchange"
    reasons = [told] * (above > allowed)
    reasons += [f"neighbouring pixels differ {gain:.0f} times less after the exchange"] * smoother
    raise DicomError(
        f"the two bytes of each pixel are swapped ({'; '.join(reasons)}): have the pixel data written in the byte "
        "order of its transfer syntax, or the transfer syntax corrected, where the object comes from"
    )


def _fit(pixels: Pixels, bits: Bits) -> tuple[int, int, float]:
    """How many pixels have bits above BitsStored, now and with their bytes exchanged, and how many are none (`SMALL`).

    Pixels that an exchange leaves as they are, and padding, do not count.
    """
    swapped = pixels.byteswap()
    changed = (swapped != pixels) & ~is_padding(pixels, bits)
    above = int(np.count_nonzero(changed & (pixels > bits.top)))
    misfits = int(np.count_nonzero(changed & (swapped > bits.top)))
    return above, misfits, SMALL * int(np.count_nonzero(changed))


def _roughness(pixels: Pixels) -> float:
    """Mean step between neighbours in a row, relative to the mean deviation: 1.3 to 1.4 in noise, near 0 in images."""
    values = pixels.astype(np.float32)
    spread = float(np.abs(values - values.mean()).mean())
    return float(np.abs(np.diff(values, axis=1)).mean()) / spread if spread and values.shape[1] > 1 else 0.0


def _refuse_values(pixels: Pixels, above: Mask, image: Mask, bits: Bits) -> None:
    """Raise DicomError unless the bits that are set `above` have nothing to do with the values."""
    count = int(np.count_nonzero(above))
    share = count / max(1, int(np.count_nonzero(image)))
    high = pixels >> bits.stored
    other = _uncommon(high, image)
    if not other.any():
        return
    told = f"{count} pixels ({100 * share:.3g} %) have bits set above BitsStored {bits.stored}"
    largest = int(pixels[above].max())
    if (continued := _continued(pixels, image, bits)) > CONTINUED:
        raise _too_small(
            f"{told} and continue the values of their neighbours: {100 * continued:.0f} % of the steps between "
            "neighbours that change these bits are smaller with them than without",
            largest,
        )
    if share > SPARSE and (pixels[above] == largest).all() and (bits.inverted or largest & bits.top):
        raise DicomError(
            f"{told}, all with the one value {largest}: padding that the header does not state. Have it exported with "
            f"PixelPaddingValue {largest}, or without such pixels"
        )
    if (edges := _edges_left(pixels, image, high, other, bits)) > EDGES:
        raise _too_small(
            f"{told}, and without them the steps between neighbours are {edges:.0f} times larger at their edges than "
            "elsewhere",
            largest,
        )
    if not _is_pattern(high, image, other):
        raise DicomError(
            f"the bits above BitsStored hold noise, or BitsStored is too small: {told} that change from pixel to "
            f"pixel, unlike an overlay or padding. The largest pixel is {largest}, which needs {largest.bit_length()} "
            "bits: have these bits set to 0, or BitsStored and HighBit corrected, where the object comes from"
        )


def _too_small(evidence: str, largest: int) -> DicomError:
    return DicomError(
        f"BitsStored is too small: {evidence}. The largest pixel is {largest}, which needs {largest.bit_length()} "
        "bits: have BitsStored and HighBit corrected where the object comes from"
    )


def _continued(pixels: Pixels, image: Mask, bits: Bits) -> float:
    """Share of the steps between neighbours that change the bits above and are smaller with them than without."""
    with_bits = np.diff(pixels.astype(np.int32), axis=1)
    without = np.diff((pixels & bits.top).astype(np.int32), axis=1)
    changes = (with_bits != without) & image[:, 1:] & image[:, :-1]
    smaller = np.abs(with_bits) < np.abs(without)
    return int(np.count_nonzero(changes & smaller)) / max(1, int(np.count_nonzero(changes)))


def _edges_left(pixels: Pixels, image: Mask, high: Pixels, other: Mask, bits: Bits) -> float:
    """Median step between neighbours without the bits above, where these change, relative to that elsewhere.

    Between pixels that are not 0 without them, or are among the few that differ: the border of the image's content is a
    step of its own. `high`, `other`: the bits above, and where they are not the most common ones.
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
    """Whether the bits above are few, or areas: a pattern of its own."""
    few = int(np.count_nonzero(other))
    steps = int(np.count_nonzero(np.diff(high, axis=1) != 0))
    return bool(few <= SPARSE * np.count_nonzero(image) or steps <= COHERENT * few)


def _uncommon(high: Pixels, image: Mask) -> Mask:
    """Where in the image the bits above are others than the most common ones."""
    values, counts = np.unique(high[image], return_counts=True)
    return np.asarray(image & (high != values[counts.argmax()]))
