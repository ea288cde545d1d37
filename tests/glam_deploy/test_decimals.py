"""Numbers in texts, against those of C and JSON."""

import pytest

from glam_deploy.decimals import decimal


@pytest.mark.parametrize(("text", "number"), [("1", 1), (" -0.5 ", -0.5), ("+2.5e-3", 0.0025), (".5", 0.5), ("5.", 5)])
def test_numbers(text: str, number: float) -> None:
    assert decimal(text) == number


@pytest.mark.parametrize(
    "text", ["", "1_0", "\u0661", "\uff11", "0x10", "nan", "inf", "1e999", "1,5", "1 0", "5%", "\xa05"]
)
def test_other_texts(text: str) -> None:
    assert decimal(text) is None
