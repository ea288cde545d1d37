"""The only reader of TOML (version 1.0.0): what is too large or too deep is an error like any other.

`tomllib` has no bounds: it needs a minute for a name of 50,000 parts, and ends with RecursionError or ValueError, which
its own error does not cover, for deep lists and long numbers.
"""

import re
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import Any

from glam_deploy.regular import SMALL_FILE, read_regular

LONGEST = 1 << 18
"""Most characters of a text; the configuration of a hospital has some thousands."""
DEEPEST = 32
"""Most parts of a name that are joined by dots, and most levels of lists and tables."""
INTEGERS = range(-(2**63), 2**63)
"""Integers that every reader of TOML has (TOML 1.0.0, "Integer")."""

_PART = r"""(?:[\w-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
_LONG_NAME = re.compile(rf"(?<![\w\\-])(?:{_PART}[ \t]*\.[ \t]*){{{DEEPEST}}}")
"""Begins at the first letter or quote of a part only, so that the search takes time in proportion to the text."""


class TomlFault(ValueError):
    """A text that is no TOML, or is beyond the bounds of this module. The message says what was found and expected."""


def read_toml(path: Path) -> str:
    """The text in a file of TOML, without the mark of the byte order that editors on Windows put before it.

    Raises TomlFault if it is not UTF-8, OSError if it cannot be read or is no regular file.
    """
    content = read_regular(path, SMALL_FILE)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TomlFault(f"it is not UTF-8 text (byte {error.start}), save it as UTF-8") from error


def parse_toml(text: str) -> dict[str, Any]:
    """The table in a TOML text. Raises TomlFault."""
    if len(text) > LONGEST:
        raise TomlFault(f"it has {len(text)} characters, expected at most {LONGEST}")
    if found := _LONG_NAME.search(text):
        raise TomlFault(f"the name {found[0][:20]!r}... has more than {DEEPEST} parts joined by dots")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TomlFault(str(error)) from error
    except RecursionError:
        raise TomlFault(_TOO_DEEP) from None
    except ValueError as error:  # int() of more than 4300 digits
        raise TomlFault(_TOO_LARGE) from error
    _require_bounded(table)
    return table


def _require_bounded(table: dict[str, Any]) -> None:
    level: list[Any] = [table]
    for _ in range(DEEPEST):
        level = [value for held in level for value in _values(held)]
        if any(type(value) is int and value not in INTEGERS for value in level):
            raise TomlFault(_TOO_LARGE)
    if any(map(_values, level)):
        raise TomlFault(_TOO_DEEP)


def _values(held: object) -> Collection[Any]:
    if isinstance(held, dict):
        return held.values()
    return held if isinstance(held, list) else ()


_TOO_DEEP = f"lists or tables are nested more than {DEEPEST} levels deep"
_TOO_LARGE = "an integer has more than 64 bits"
