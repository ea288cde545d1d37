"""What an engine must keep to pass the gate: a small TOML, every key with a default."""

import tomllib
from dataclasses import dataclass, fields

from glam_deploy.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds of the gate. Dice is between the candidate's and the reference's maps; docs/gate.md tells which."""

    dice_median: float = 0.99
    """Least median over images, of each map, class and threshold."""
    dice_worst: float = 0.95
    """Least of any image, map, class and threshold."""
    patch_agreement: float = 0.99
    """Least share of patches that lie where the reference's lie."""
    flips: int = 0
    """Most decisions that fall on the other side of the operating point."""
    lost: int = 0
    """Most images and classes with a lesion that one side has and the other has not."""
    operating_point: float = 0.5
    """Score from which an image counts as positive for a class."""


_SHARES = ("dice_median", "dice_worst", "patch_agreement", "operating_point")


def parse_limits(text: str) -> Limits:
    """Limits from TOML such as `dice_median = 0.98`; what is left out keeps its default.

    Shares are numbers 0..1, counts whole numbers from 0. Raises UsageError for anything else, unknown keys included.
    """
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the limits are no TOML ({error}); expected lines such as dice_median = 0.99") from error
    known = [field.name for field in fields(Limits)]
    if unknown := sorted(given.keys() - set(known)):
        raise UsageError(f"limits: {', '.join(unknown)} is unknown; choose from {', '.join(known)}")
    for name, value in given.items():
        _require_sense(name, value)
    return Limits(**given)


def _require_sense(name: str, value: object) -> None:
    if name in _SHARES:
        if type(value) not in (int, float) or not 0 <= value <= 1:  # type: ignore[operator]
            raise UsageError(f"limits: {name} = {value!r}, expected a number from 0 to 1")
    elif type(value) is not int or value < 0:
        raise UsageError(f"limits: {name} = {value!r}, expected a whole number from 0")
