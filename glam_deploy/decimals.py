"""Numbers in texts that people and other programs write."""

import math


def decimal(text: str) -> float | None:
    """The finite number that a text consists of, perhaps between spaces; None for another text.

    Digits are ASCII. Python's `float` also takes underscores (0.1_5) and digits of other scripts, which are damage in a
    table or header.
    """
    if not text.isascii() or "_" in text:
        return None
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
