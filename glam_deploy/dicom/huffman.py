"""Proof that an entropy-coded JPEG Lossless segment is the encoding of the pixels that a decoder made of it.

A decoder goes on where a code is invalid or the data end early, and says so at most in a warning. Process 14 leaves an
encoder no choice once predictor and Huffman table are known (ITU-T T.81 H.1.2), so the bits are compared with those
that the pixels must have.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from glam_deploy.dicom.segments import StreamError
from glam_deploy.records import Pixels

_ROWS_AT_ONCE = 32
"""Rows that are compared at once: their intermediate arrays fit a processor's cache."""


@dataclass(frozen=True, kw_only=True)
class Codes:
    """The bits of every difference modulo 2^16, 0 to 65535."""

    lengths: NDArray[np.uint8]
    """uint8 [65536]: 1 to 31 bits, 0 where the Huffman table has no code for the difference's category."""
    bits: NDArray[np.uint32]
    """uint32 [65536]: Huffman code and additional bits, in the lowest `lengths` bits."""


def codes(table: Mapping[int, tuple[int, int]]) -> Codes:
    """The bits of all differences under a Huffman table: category SSSS, 0 to 16 -> (code, length in bits)."""
    category, additional = _categories()
    extra = np.where(category < 16, category, 0)
    lengths, bits = np.zeros(17, np.uint8), np.zeros(17, np.uint32)
    for ssss, (code, length) in table.items():
        lengths[ssss], bits[ssss] = length, code
    total = np.where(lengths[category] > 0, lengths[category] + extra, 0)
    return Codes(lengths=total.astype(np.uint8), bits=(bits[category] << extra.astype(np.uint32)) | additional)


@cache
def _categories() -> tuple[NDArray[np.uint8], NDArray[np.uint32]]:
    """SSSS and the additional bits of each difference modulo 2^16 (T.81 table H.2; F.1.2.1.1 for the bits)."""
    difference = np.arange(1 << 16)
    difference[difference > 1 << 15] -= 1 << 16
    # frexp: the exponent of 0 is 0, of 2^(n-1) to 2^n - 1 it is n
    category = np.frexp(np.abs(difference))[1]
    additional = np.where(difference < 0, difference - 1, difference) & (
        (1 << np.where(category < 16, category, 0)) - 1
    )
    return category.astype(np.uint8), additional.astype(np.uint32)


def differences(samples: Pixels, predictor: int, precision: int) -> NDArray[np.uint16]:
    """What an encoder writes of a restart interval: sample minus prediction, modulo 2^16 (T.81 H.1.1, H.1.2.1).

    `samples`: uint16 [rows, columns] of `precision` bits, `predictor` 1 to 7 (table H.1). uint16 [rows, columns].
    """
    found = np.empty(samples.shape, np.uint16)
    found[0, 0] = (int(samples[0, 0]) - (1 << (precision - 1))) & 0xFFFF
    found[0, 1:] = samples[0, 1:] - samples[0, :-1]
    found[1:, 0] = samples[1:, 0] - samples[:-1, 0]
    found[1:, 1:] = samples[1:, 1:] - _predictions(samples, predictor)
    return found


def _predictions(samples: Pixels, predictor: int) -> NDArray[np.uint16]:
    """Predictions of all samples but the first row and column (T.81 table H.1)."""
    # halves need the carry and the sign
    wide = samples.astype(np.int32) if predictor >= 5 else samples
    left, above, corner = wide[1:, :-1], wide[:-1, 1:], wide[:-1, :-1]
    predicted: dict[int, Callable[[], Pixels]] = {
        1: lambda: left,
        2: lambda: above,
        3: lambda: corner,
        4: lambda: left + above - corner,
        5: lambda: left + ((above - corner) >> 1),
        6: lambda: above + ((left - corner) >> 1),
        7: lambda: (left + above) >> 1,
    }
    return np.asarray(predicted[predictor]()).astype(np.uint16, copy=False)


def check_interval(data: bytes, samples: Pixels, table: Codes, predictor: int, precision: int) -> None:
    """Raise StreamError unless `data` is the encoding of `samples`, and nothing else.

    `data`: an entropy-coded segment without its byte stuffing (T.81 B.1.1.5). `samples`: uint16 [rows, columns], a
    restart interval. Up to 7 bits of padding may follow the last code (F.1.2.3).

    Above 8 bits every eighth code is compared, and the number of bits between: a decoder that went on behind an invalid
    code took another number of bits than the code of its answer has, so that no later code is in its place. Up to 8
    bits a decoder may also have cut an overflow off, so every code is compared.
    """
    windows, at = _windows(data), 0
    every = 8 if precision > 8 else 1
    for top in range(0, len(samples), _ROWS_AT_ONCE):
        # the prediction needs the row above
        first = max(top - 1, 0)
        rows = differences(samples[first : top + _ROWS_AT_ONCE], predictor, precision)[top - first :]
        at = _check_codes(windows, at, rows.ravel(), table, every)
    if 8 * len(data) - at >= 8:
        raise StreamError(f"its data go on for {8 * len(data) - at} bits behind the last pixel")


def _check_codes(windows: Pixels, at: int, found: NDArray[np.uint16], table: Codes, every: int) -> int:
    """Compare codes of `found`, one in `every` (up to 8), with the bits from position `at` on; where the last ends."""
    lengths = np.zeros(-(-len(found) // every) * every, np.uint8)
    lengths[: len(found)] = table.lengths[found]
    if not lengths[: len(found)].all():
        raise StreamError("its data end before the last pixel, or hold an invalid code")
    # eight lengths of up to 31 bits fit uint8
    ends = at + np.cumsum(sum(lengths[i::every] for i in range(every)), dtype=np.int64)
    if int(ends[-1]) > 8 * (len(windows) - 1):
        raise StreamError("its data end before the last pixel")
    starts = np.concatenate(([at], ends[:-1]))
    # a code of up to 31 bits from any bit on lies within the 8 bytes from that bit's byte on
    words = windows[starts >> 3].astype(np.uint64) << (starts & 7).astype(np.uint64)
    if ((words >> (64 - lengths[::every]).astype(np.uint64)) != table.bits[found[::every]]).any():
        raise StreamError("its data hold an invalid code")
    return int(ends[-1])


def _windows(data: bytes) -> Pixels:
    """The 8 bytes from each byte on, and from the end, as a big-endian number, zeros behind: >u8 [bytes + 1]."""
    return np.ndarray((len(data) + 1,), ">u8", data + bytes(8), strides=(1,))
