"""What a gate found, from the folder that `glam-deploy gate --out` wrote: verdict, Dice by map, the worst cases."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from glam_bench.report import words
from glam_bench.report.html import Section, facts, figure, paragraph
from glam_bench.report.markup import Child, Markup, tag
from glam_bench.report.pictures import data_uri
from glam_bench.report.plots import parity
from glam_deploy.errors import UsageError

VERDICT, PICTURES = "gate.json", "worst"
SCHEMA_VERSION = 1
CAPTION = (
    "Dice of each map against the reference's, over the threshold of both. Full lines with marks: median over the "
    "images. Dashed lines: the worst image. No mark: no image has enough above the threshold to be judged."
)


WRONG = (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What a file that is none of a gate's raises where it is read or drawn."""


class Found(NamedTuple):
    """A gate's folder."""

    gate: Mapping[str, Any]
    """The verdict as in a bundle's manifest."""
    images: list[Mapping[str, Any]]
    """A row for each image."""
    pictures: list[Path]
    """The worst first."""


def gate_section(folder: Path, number: int) -> Section:
    """`number` tells several gates apart. Raises UsageError where the folder is none of a gate, or not a whole one."""
    try:
        return _section(_read(folder), number)
    except WRONG as error:
        raise UsageError(
            f"{folder / VERDICT} cannot be used ({type(error).__name__}: {error}). Give a folder of "
            "`glam-deploy gate --out`, as it was written."
        ) from error


def _read(folder: Path) -> Found:
    content = json.loads((folder / VERDICT).read_bytes())
    if content["schema"] != SCHEMA_VERSION:
        raise ValueError(f"schema {content['schema']!r}, expected {SCHEMA_VERSION}")
    return Found(content["gate"], content["images"], sorted((folder / PICTURES).glob("*.png")))


def _section(found: Found, number: int) -> Section:
    gate, figures = found.gate, found.gate["figures"]
    verdict = f"{gate['engine']} {'passed' if gate['passed'] else 'failed'} against {gate['reference']}."
    failures = [tag("li", failure) for failure in gate["failures"]]
    parts: list[Child] = [
        paragraph(tag("strong", verdict)),
        tag("ul", *failures) if failures else None,
        facts(_facts(gate)),
        figure(lambda width: parity.draw(_panels(figures), width), CAPTION) if figures else None,
        tag("h3", "Worst cases") if found.pictures else None,
        *(_picture(path, found.images) for path in found.pictures),
    ]
    return Section(f"gate-{number}", f"The gate of {gate['engine']}", parts)


def _facts(gate: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "gate", gate["id"]
    yield "when", gate["when"]
    yield "images", words.plain(gate["images"])
    if figures := gate["figures"]:
        if patches := figures["patches"]:
            yield "patches in place", f"{words.percent(patches['agreement'])} of {patches['patches']}"
        yield "lesions lost or new", words.plain(figures["lost_or_new"])
        yield "decisions flipped", words.plain(figures["flips"])
        yield "reasons", words.plain(figures["reasons"])
    yield "limits", words.plain(gate["limits"])


def _panels(figures: Mapping[str, Any]) -> list[parity.Panel]:
    """One a map: global, patches, fused."""

    def curves(kind: str, labels: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
        return {name: {str(point["threshold"]): point[kind] for point in curve} for name, curve in labels.items()}

    return [
        parity.Panel(name, curves("median", labels), curves("worst", labels))
        for name, labels in figures["dice"].items()
    ]


def _picture(path: Path, images: list[Mapping[str, Any]]) -> Markup:
    """With the image's name, which the picture itself does not tell, and what its difference belongs to."""
    number, _, stem = path.stem.partition("_")
    row = next((row for row in images if Path(row["image"]).stem == stem), None)
    said = f"{number.lstrip('0')}. {stem}"
    if row is not None:
        said += f": lowest Dice {words.dice(row['lowest'])}" + "".join(f"; {reason}" for reason in row["reasons"])
    drawn = tag("img", src=data_uri(path), alt=f"Image, reference's map, candidate's map and their difference; {said}")
    frame = tag("div", drawn, class_="scroll picture", tabindex="0", role="region", aria_label=said)
    return tag("figure", frame, tag("figcaption", said))
