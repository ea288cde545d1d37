"""Every bound within which two computations agree: of whole results, with a TOML form, and of single arrays."""

from collections.abc import Mapping
from dataclasses import fields
from types import MappingProxyType

from glam_deploy.bundle.gate_rule import Limits
from glam_deploy.errors import UsageError
from glam_deploy.precision import Precision
from glam_deploy.toml_text import TomlFault, parse_toml

__all__ = [
    "ALMOST_EMPTY",
    "HALF_ROUNDINGS",
    "INT8_SHARE",
    "ROUNDING",
    "THRESHOLDS",
    "TOLERANCE",
    "Limits",
    "parse_limits",
]

THRESHOLDS = tuple(n / 10 for n in range(1, 10))
"""Saliency values from which a cell counts as part of a lesion; maps are compared at each of them."""

ALMOST_EMPTY = 1024
"""Input pixels, the area of 32 x 32: with less than this above a threshold on both sides there is nothing to judge."""

TOLERANCE = 1e-4
"""Largest difference allowed between two FP32 computations of a probability or saliency value (both 0..1); for
representations, which have no bound, the same share of the largest value."""

ROUNDING: Mapping[Precision, float] = MappingProxyType({"fp16": 2**-11, "bf16": 2**-8})
"""Largest relative error of one rounding to a half type."""

HALF_ROUNDINGS = 50
"""Largest mean difference of a half type, in roundings, as a share of the reference's mean value.

The largest difference cannot judge a half graph: where a map falls from 1 to 0 within a pixel, one rounding can turn
that pixel over. The mean is stable: correct graphs stayed below 30 roundings, and with one convolution missing some
output was off by 14 % of its mean or more, 290 roundings in fp16 but 36 in bf16 (docs/performance.md). So this limit
finds a wrong fp16 graph, and most wrong bf16 graphs; it does not say whether lesions are found.
"""

INT8_SHARE = 0.5
"""Largest mean difference of 8 bits, as a share of the reference's mean value.

Calibrated graphs of weights that lose much in 8 bits were off by up to 0.14 of it. The limit is for graphs that are
wrong; `verdict.judge` decides on the others.
"""


_SHARES = ("dice_median", "dice_worst", "patch_agreement", "operating_point")


def parse_limits(text: str) -> Limits:
    """Limits from TOML such as `dice_median = 0.98`; a key that is left out keeps its default.

    Shares are numbers 0..1, counts whole numbers from 0. Raises UsageError for anything else, unknown keys included.
    """
    try:
        given = parse_toml(text)
    except TomlFault as error:
        raise UsageError(
            f"the limits are not valid TOML ({error}); expected lines such as dice_median = 0.99"
        ) from error
    known = [field.name for field in fields(Limits)]
    if unknown := sorted(given.keys() - set(known)):
        raise UsageError(f"limits: {', '.join(unknown)} is unknown; choose from {', '.join(known)}")
    for name, value in given.items():
        _require_valid(name, value)
    return Limits(**given)


def _require_valid(name: str, value: object) -> None:
    if name in _SHARES:
        if type(value) not in (int, float) or not 0 <= value <= 1:  # type: ignore[operator]
            raise UsageError(f"limits: {name} = {value!r}, expected a number from 0 to 1")
    elif type(value) is not int or value < 0:
        raise UsageError(f"limits: {name} = {value!r}, expected a whole number from 0")
