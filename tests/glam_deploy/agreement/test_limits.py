"""Limits: defaults as promised, and every sentence that refuses."""

import pytest

from glam_deploy.agreement.limits import Limits, parse_limits
from glam_deploy.errors import UsageError


def test_defaults() -> None:
    assert parse_limits("") == Limits(dice_median=0.99, dice_worst=0.95, patch_agreement=0.99, flips=0, lost=0)


def test_what_is_given_counts() -> None:
    assert parse_limits("dice_worst = 0.9\nflips = 2") == Limits(dice_worst=0.9, flips=2)


def test_the_ends_of_every_range_are_allowed() -> None:
    shares = ("dice_median", "dice_worst", "patch_agreement", "operating_point")
    for end in (0, 1, 0.0, 1.0):
        assert parse_limits("\n".join(f"{name} = {end}" for name in shares)) == Limits(**dict.fromkeys(shares, end))
    assert parse_limits("flips = 0\nlost = 0") == Limits()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dice = 0.9", "dice is unknown; choose from dice_median, dice_worst, patch_agreement, flips, lost, "),
        ("dice_median = 99", "dice_median = 99, expected a number from 0 to 1"),
        ("dice_worst = true", "dice_worst = True, expected a number"),
        ("dice_worst = nan", "dice_worst = nan, expected a number"),
        ("flips = 0.5", "flips = 0.5, expected a whole number"),
        ("lost = -1", "lost = -1, expected a whole number"),
        ("lost = true", "lost = True, expected a whole number from 0$"),
        ("operating_point = 1.01", "operating_point = 1.01, expected a number from 0 to 1$"),
        ("patch_agreement = -0.01", "patch_agreement = -0.01, expected a number"),
        ("dice_median = '1'", "dice_median = '1', expected a number"),
        ("b = 1\na = 1\nflips = 0", "limits: a, b is unknown; choose from dice_median, "),
        ("dice_median: 0.9", r"not valid TOML \(.*line 1.*\)"),
    ],
)
def test_what_makes_no_sense_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_limits(text)
