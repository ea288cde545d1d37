"""The parts a page is made of: sections, figures in two widths, tables, lists of facts."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from glam_bench.report.markup import Child, Markup, join, tag
from glam_bench.report.svg import Drawing

WIDE, NARROW = 880.0, 344.0
"""Pixels: a plot on a laptop, and on a screen of 400."""

Draw = Callable[[float], Drawing | None]


class Section(NamedTuple):
    """`key` is where links lead."""

    key: str
    title: str
    parts: Sequence[Child]

    def as_markup(self) -> Markup:
        return tag("section", tag("h2", self.title), *self.parts, id=self.key)


def figure(draw: Draw, caption: str) -> Markup | None:
    """The same plot for both widths; the page's style shows one. None where there is nothing to draw."""
    wide, narrow = draw(WIDE), draw(NARROW)
    if wide is None or narrow is None:
        return None
    drawn = tag("div", wide.inline(), class_="wide"), tag("div", narrow.inline(), class_="narrow")
    return tag("figure", *drawn, tag("figcaption", caption))


def paragraph(*children: Child, class_: str | None = None) -> Markup:
    return tag("p", *children, class_=class_)


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup | None:
    """The first cell of a row names it. A table that is too wide scrolls in its own frame, by keyboard too. None
    where there are no rows.
    """
    if not rows:
        return None
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in columns)))
    body = tag("tbody", *(_row(row) for row in rows))
    drawn = tag("table", tag("caption", tag("span", caption)), head, body)
    return tag("div", drawn, class_="scroll", tabindex="0", role="region", aria_label=caption)


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    """Names and values."""
    return tag("dl", *(join((tag("dt", name), tag("dd", value))) for name, value in pairs), class_="facts")


def _row(row: Sequence[str]) -> Markup:
    first, *rest = row
    return tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in rest))
