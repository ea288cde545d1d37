"""The few shapes that all plots are made of. Colours are classes of `style`, so that both colour schemes are served."""

from dataclasses import dataclass
from math import ceil

from glam_bench.report import words
from glam_bench.report.markup import Child, Markup, join, tag

TEXT = 13.0
"""Pixels: size of a plot's text; `small` text is SMALL."""
SMALL = 12.0
BOLD = 14.5
"""Bold text of size TEXT is as wide as plain text of this one."""
MARGIN = 20
"""Pixels around a drawing that stands alone."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Shapes on a ground of `width` x `height` pixels; `title` says what they show to those who cannot see them."""

    width: float
    height: float
    title: str
    shapes: Markup

    def inline(self) -> Markup:
        """For a page, which has the style; scales with its place."""
        return self._svg(0, tag("title", self.title), self.shapes)

    def standalone(self, css: Markup) -> str:
        """A file by itself: with its style, and a ground of its own so that it can be read on any page."""
        ground = tag("rect", x=-MARGIN, y=-MARGIN, width="100%", height="100%", class_="plate")
        return self._svg(MARGIN, tag("title", self.title), tag("style", css), ground, self.shapes) + "\n"

    def _svg(self, margin: float, *children: Child) -> Markup:
        width, height = round(self.width + 2 * margin), ceil(self.height + 2 * margin)
        return tag(
            "svg",
            *children,
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"{-margin:g} {-margin:g} {width} {height}",
            width=width,
            height=height,
            role="img",
            aria_label=self.title,
        )


def drawing(width: float, height: float, title: str, *shapes: Child) -> Drawing:
    return Drawing(width=width, height=height, title=title, shapes=join(shapes))


def label(x: float, y: float, content: str, class_: str | None = None, anchor: str | None = None) -> Markup:
    """Text on the baseline `y`; `anchor` is "middle" or "end"."""
    return tag("text", content, x=x, y=y, class_=class_, text_anchor=anchor)


def fitted(x: float, y: float, content: str, room: float, class_: str = "strong") -> Markup:
    """Bold text cut to `room` pixels; whole where a pointer rests on it."""
    shown = words.fit(content, room, BOLD)
    return tag("text", shown, None if shown == content else tag("title", content), x=x, y=y, class_=class_)


def heading(y: float, name: str, said: str, width: float) -> Markup:
    """A name at the left, as whole as what is said at the right lets it be."""
    room = width - words.width(said, SMALL) - 12
    return tag("g", fitted(0, y, name, room), label(width, y, said, "small", "end"))


def bar(x: float, y: float, width: float, height: float, class_: str, *children: Child) -> Markup:
    """A rectangle, never so thin that it cannot be seen."""
    return tag("rect", *children, x=x, y=y, width=max(width, 1.5), height=height, rx=1.5, class_=class_)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def path(points: list[tuple[float, float]], class_: str) -> Markup:
    """Straight lines from point to point."""
    return tag("path", d="M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=class_)


def dots(points: list[tuple[float, float]], class_: str) -> Markup:
    """Round marks as one path: lines without length and with round ends, so that a thousand runs stay small."""
    return tag("path", d="".join(f"M{x:.1f},{y:.1f}h0" for x, y in points), class_=class_)


def legend(entries: list[tuple[str, str]], width: float) -> tuple[Markup, float]:
    """Swatches (class, name), broken into rows of `width` pixels; also the y below them."""
    x, y, shapes = 0.0, 4.0, list[Child]()
    for class_, whole in entries:
        name = words.fit(whole, width - 18, SMALL)
        room = 18 + words.width(name, SMALL) + 14
        if x and x + room > width:
            x, y = 0.0, y + 20
        shapes += [bar(x, y, 12, 12, class_), label(x + 18, y + 10.5, name, "small")]
        x += room
    return tag("g", *shapes), y + 24
