"""Figures as people read them. None is a dash."""

import textwrap
from collections.abc import Iterable, Mapping
from math import floor
from string import ascii_uppercase
from unicodedata import east_asian_width

MISSING = "\u2013"
"""An en dash."""
TIMES = "\u00d7"
SPACE = "\u00a0"
"""Keeps a number and its unit on one line."""
KIBIBYTES_PER_GIBIBYTE = 1024**2

_AVERAGE, _LETTER = 0.58, 0.63
_WIDTHS = {
    **dict.fromkeys(" iljtfr.,:;'|!()[]-", 0.4),
    **dict.fromkeys(ascii_uppercase, 0.75),
    **dict.fromkeys("mwMW@%", 0.95),
}
"""Widths of letters as shares of the font's size."""


def known(values: Iterable[float | None]) -> list[float]:
    """Those that were measured."""
    return [value for value in values if value is not None]


def significant(value: float | None, digits: int = 3) -> str:
    """At least three significant digits, never an exponent: 0.0123, 1.23, 12.3, 1234."""
    if value is None:
        return MISSING
    places = digits - 1 - int(f"{value:.{digits - 1}e}".partition("e")[2])
    return f"{value:.{max(0, places)}f}"


def duration(ms: float | None) -> str:
    """Milliseconds in, "5.18 s", "42.0 ms" or "87.0 µs" out."""
    if ms is None:
        return MISSING
    for least, factor, unit in ((999.5, 1e-3, "s"), (0.09995, 1.0, "ms")):
        if abs(ms) >= least:
            return f"{significant(ms * factor)}{SPACE}{unit}"
    return f"{significant(ms * 1e3)}{SPACE}µs" if ms else f"0{SPACE}ms"


def times(ratio: float | None) -> str:
    """How many times as fast."""
    return f"{significant(ratio)}{TIMES}" if ratio is not None else MISSING


def percent(share: float | None, digits: int = 2) -> str:
    """0.0213 -> "2.1 %"."""
    return f"{significant(100 * share, digits)}{SPACE}%" if share is not None else MISSING


def dice(value: float | None) -> str:
    """To five places where it is nearly 1, so that 0.99996 is not told as 1."""
    if value is None:
        return MISSING
    places = 5 if 0.9995 <= value < 1 else 3
    return f"{min(floor(value * 10**places) / 10**places, 1.0):.{places}f}"


def measure(value: float | None, unit: str, digits: int = 3) -> str:
    """A figure and its unit."""
    return f"{significant(value, digits)}{SPACE}{unit}" if value is not None else MISSING


def rate(per_second: float | None, unit: str) -> str:
    """1.6e11 FLOP/s -> "160 GFLOP/s"."""
    if per_second is None:
        return MISSING
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if per_second >= factor:
            return f"{significant(per_second / factor)}{SPACE}{prefix}{unit}"
    return f"{significant(per_second)}{SPACE}{unit}"


def plain(value: object) -> str:
    """Any JSON value on one line: lists and mappings with commas."""
    if value in (None, [], {}):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    return significant(value) if isinstance(value, float) else str(value)


def memory(value: object) -> str:
    """What /proc/meminfo says, "24689212 kB", as GiB; anything else as it is."""
    number, _, unit = str(value).partition(" ")
    if unit == "kB" and number.isascii() and number.isdigit():
        return f"{significant(int(number) / KIBIBYTES_PER_GIBIBYTE)}{SPACE}GiB"
    return plain(value)


def machine(facts: Mapping[str, object]) -> str:
    """Its processor and cores."""
    cores = facts.get("cores")
    counted = f", {cores} core{'s' * (cores != 1)}" if cores else ""
    return f"{facts.get('processor') or 'an unnamed machine'}{counted}"


def width(words: str, size: float) -> float:
    """Pixels that a line of text takes in DejaVu Sans of that size, or a bit less; other sans-serifs are narrower."""
    return size * sum(1.05 if east_asian_width(c) in "WF" else _WIDTHS.get(c, _LETTER) for c in words)


def fit(words: str, room: float, size: float) -> str:
    """As much as `room` pixels hold, with an ellipsis where something is cut."""
    if width(words, size) <= room:
        return words
    while words and width(words + "…", size) > room:
        words = words[:-1]
    return words.rstrip() + "…"


def lines(words: str, room: float, size: float, most: int) -> list[str]:
    """Broken into lines of at most `room` pixels; what is beyond `most` lines ends in an ellipsis."""
    return textwrap.wrap(words, max(8, int(room / (_AVERAGE * size))), max_lines=most, placeholder=" …")
