"""How the report looks. Every colour is a variable with one value for light and one for dark."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

LIGHT: Mapping[str, str] = MappingProxyType(
    {
        "page": "#f6f6f4",
        "surface": "#ffffff",
        "ink": "#1b1c1e",
        "faint": "#55585d",
        "rule": "#d9d9d5",
        "link": "#1748a6",
        "warn": "#8a3b00",
        "warn-back": "#fdf1e4",
        "mark": "#2f6fd0",
        "base": "#767b83",
        "band": "#e6eaf1",
        "leader": "#a5a9af",
        "preprocess": "#29303c",
        "global": "#1748a6",
        "patches": "#4ea090",
        "local": "#e66903",
        "fusion": "#b969ea",
        "copy": "#6d5308",
        "gpu": "#7d838c",
    }
)
DARK: Mapping[str, str] = MappingProxyType(
    {
        "page": "#131416",
        "surface": "#1c1d20",
        "ink": "#f0f0ee",
        "faint": "#b4b7bc",
        "rule": "#3a3c40",
        "link": "#8fb6ff",
        "warn": "#ffb876",
        "warn-back": "#33261a",
        "mark": "#6aa2f5",
        "base": "#8d929a",
        "band": "#2c3038",
        "leader": "#6a6e75",
        "preprocess": "#99aaba",
        "global": "#3969e6",
        "patches": "#49fff1",
        "local": "#fe692c",
        "fusion": "#9b527f",
        "copy": "#f1dc34",
        "gpu": "#fcfcfc",
    }
)
"""The colours of steps differ under the common kinds of colour blindness and from the surface; tests compute both."""

STEPS = ("preprocess", "global", "patches", "local", "fusion", "copy", "gpu")
MODELS = ("global", "local", "patches", "fusion", "preprocess", "copy")
"""Colours of networks in the plots of an evaluation, of which there are no steps."""


def plots() -> str:
    """The style of drawings, in a page or by themselves."""
    steps = (f".s-{name} {{ fill: var(--{name}) }} text.on-s-{name} {{ fill: var(--on-{name}) }}" for name in STEPS)
    models = (
        f".s-m-{n} {{ stroke: var(--{name}) }} .curve.s-m-{n} {{ stroke-width: {3.5 - n / 2} }} "
        f".c-m-{n} {{ fill: var(--{name}) }}"
        for n, name in enumerate(MODELS)
    )
    return "\n".join((_PLOTS, *steps, *models))


def page() -> str:
    """The style of the whole report, drawings included."""
    return f"{_colours('screen and ')}\n{_PAGE}\n{plots()}\n{_PLACES}"


def standalone() -> str:
    """The style of one drawing as a file of its own."""
    return f"{_colours('')}\n{plots()}"


def variables(scheme: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """All colours of a scheme, with an `on-` for text upon each step: the better of white and near-black."""
    yield from scheme.items()
    for name in STEPS:
        yield f"on-{name}", max(("#ffffff", "#101113"), key=lambda ink: contrast(ink, scheme[name]))


def contrast(one: str, other: str) -> float:
    """Of two colours, 1..21, by WCAG 2.2."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    """Relative luminance of sRGB, "#rrggbb"."""
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _colours(medium: str) -> str:
    light, dark = ("; ".join(f"--{name}: {value}" for name, value in variables(scheme)) for scheme in (LIGHT, DARK))
    return f":root {{ {light} }}\n@media {medium}(prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"


_PLOTS = """
text { fill: var(--ink); font: 13px system-ui, "DejaVu Sans", sans-serif; font-variant-numeric: tabular-nums }
text.small { font-size: 12px; fill: var(--faint) }
text.strong { font-weight: 600 }
text.low { fill: var(--warn); font-weight: 600 }
text.faint { fill: var(--faint); font-weight: 600 }
[class^=on-] { font-size: 12px }
.plate { fill: var(--surface) }
.mark { fill: var(--mark) }
.base { fill: var(--base) }
.band { fill: var(--band) }
.grid { stroke: var(--rule); stroke-width: 1 }
.tick { stroke: var(--ink); stroke-width: 2 }
.dots { stroke: var(--mark); stroke-width: 5; stroke-linecap: round; stroke-opacity: .65; fill: none }
.dots.early { stroke: var(--base); stroke-width: 3.5 }
.leader { stroke: var(--leader); stroke-width: 1 }
.roof { stroke: var(--ink); stroke-width: 2; fill: none; stroke-linejoin: round }
.ring { stroke: var(--surface); stroke-width: 1.5 }
.curve { fill: none; stroke-linejoin: round }
.k-0 { stroke: var(--global); stroke-width: 3.5 }
.k-1 { stroke: var(--local); stroke-width: 1.5 }
.curve.thin { stroke-width: 1.2; stroke-dasharray: 4 3 }
.k-1.thin { stroke-dashoffset: 3.5 }
.round { rx: 6px }
.missed { fill: var(--surface); stroke: var(--base); stroke-width: 2 }
.halo { paint-order: stroke; stroke: var(--surface); stroke-width: 4px; stroke-linejoin: round }
.c-0 { fill: var(--global) }
.c-1 { fill: var(--local) }
.s-other { fill: var(--base) }
text.on-s-other { fill: var(--surface) }
.f-decode { fill: var(--patches) }
.f-preprocess { fill: var(--preprocess) }
.f-network { fill: var(--local) }
.f-output { fill: var(--global) }
"""

_PAGE = """
:root { color-scheme: light dark }
* { box-sizing: border-box }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif;
  overflow-wrap: anywhere }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem 1rem 4rem }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .5rem }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 0 0 .25rem }
h3 { font-size: 1rem; margin: 1.5rem 0 .25rem }
p { margin: .25rem 0 .75rem; max-width: 44rem }
a { color: var(--link) }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1rem; list-style: none; margin: 1rem 0; padding: 0 }
.lead { font-size: 1.125rem }
.faint { color: var(--faint) }
section, .card { background: var(--surface); border: 1px solid var(--rule); border-radius: 8px; padding: 1.25rem;
  margin: 1rem 0 }
.notices { background: var(--warn-back); color: var(--warn); border-color: currentColor }
.notices ul { margin: 0; padding-left: 1.25rem }
figure { margin: 1rem 0 }
figcaption { margin-top: .75rem; color: var(--faint); font-size: .875rem; max-width: 44rem }
svg, img { display: block; max-width: 100%; height: auto }
.narrow { display: none }
dl { display: grid; grid-template-columns: minmax(6rem, 12rem) 1fr; gap: .25rem 1rem; margin: .5rem 0 }
dt { color: var(--faint) }
dd { margin: 0 }
.scroll { overflow-x: auto; margin: 1rem 0; border: 1px solid var(--rule); border-radius: 6px;
  background: linear-gradient(to left, var(--surface) 50%, transparent) right / 3rem 100% no-repeat local,
    linear-gradient(to left, var(--base), transparent) right / .6rem 100% no-repeat scroll }
.scroll:focus-visible { outline: 2px solid var(--link) }
.picture { margin: 1rem 0 0 }
.strip { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .5rem }
.strip figure { margin: 0 }
.strip figcaption { margin-top: .25rem }
table { border-collapse: separate; border-spacing: 0; width: 100%; font-size: .875rem; line-height: 1.35;
  font-variant-numeric: tabular-nums }
caption { text-align: left; padding: .6rem .75rem; color: var(--faint); caption-side: top }
caption span { position: sticky; left: .75rem; display: inline-block; max-width: calc(100vw - 5rem) }
th, td { padding: .45rem .75rem; text-align: right; border-top: 1px solid var(--rule); vertical-align: top;
  overflow-wrap: normal; white-space: nowrap }
thead th { color: var(--faint); font-weight: 600; vertical-align: bottom; white-space: normal }
th:first-child { text-align: left; min-width: 8rem; overflow-wrap: anywhere; white-space: normal }
"""

_PLACES = """
@media screen and (max-width: 47.5em) {
  .wide { display: none }
  .narrow { display: block }
  .picture img { max-width: none; width: 44rem }
  .narrow svg { max-width: 30rem; width: 100% }
  section { padding: 1rem .75rem }
  th, td { padding: .4rem .5rem }
  th:first-child { position: sticky; left: 0; background: var(--surface); max-width: 10rem }
  dl { grid-template-columns: 1fr; gap: 0 }
  dd { margin-bottom: .5rem }
}
@media print {
  body { background: none; font-size: 11pt }
  main { max-width: none; padding: 0 }
  nav { display: none }
  section { border: none; padding: 0 }
  .scroll { overflow: visible; border: none }
  table { font-size: 8pt }
  th, td { padding: 2pt 4pt }
  figure, tr, .facts { break-inside: avoid }
  h2, h3 { break-after: avoid }
  svg { print-color-adjust: exact }
}
"""
