"""HTML and SVG from functions. A plain string is data and is escaped; only `Markup` is taken as it is."""

import re
from collections.abc import Iterable
from html import escape
from math import isfinite

VOID = frozenset({"meta", "img", "br"})
"""Elements of HTML that have no end."""

_NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Markup(str):
    """Text that is HTML or SVG already. Made here only."""

    __slots__ = ()


Child = str | None
Attribute = str | float | None


def tag(name: str, /, *children: Child, **attributes: Attribute) -> Markup:
    """`<name ...>children</name>`; None among children and attributes is left out.

    An underscore in an attribute's name is a hyphen, one at its end is dropped (`class_`). Numbers are written with at
    most two decimals, which is what a plot's coordinates need.
    """
    start = f"<{name}{''.join(_attribute(*item) for item in attributes.items() if item[1] is not None)}>"
    return Markup(start if name in VOID else f"{start}{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """One after another; plain strings are escaped."""
    return Markup("".join(text(child) for child in children if child is not None))


def text(data: str) -> Markup:
    """Data as text: escaped, and what XML forbids (control characters, lone surrogates) shown as U+FFFD."""
    return data if isinstance(data, Markup) else Markup(escape(_NOT_IN_XML.sub("\ufffd", data)))


def raw(trusted: str) -> Markup:
    """For constants of this package alone: nothing is escaped."""
    return Markup(trusted)


def _attribute(name: str, value: Attribute) -> str:
    shown = value if isinstance(value, str) else _short(float(value or 0.0))
    return f' {name.rstrip("_").replace("_", "-")}="{text(shown)}"'


def _short(value: float) -> str:
    if not isfinite(value):
        raise ValueError(f"{value} is not a coordinate: leave out values that are not finite before it is drawn")
    return f"{value:.2f}".rstrip("0").rstrip(".")
