"""The worst cases of a gate, from the folder that `glam-deploy gate --out` wrote."""

import json
from base64 import b64encode
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from glam_bench.report.html import paragraph
from glam_bench.report.markup import Child, Markup, tag
from glam_deploy.errors import UsageError

FOLDER, VERDICT = "worst", "gate.json"
WIDEST = 1400
"""Pixels: wider pictures are made smaller, so that a report stays a few megabytes."""
QUALITY = 88


def worst_cases(gate: Path) -> list[Child]:
    """What the gate said, then its pictures. Raises UsageError where the folder is none of a gate."""
    verdict = _verdict(gate)
    pictures = sorted((gate / FOLDER).glob("*.png"))
    shown: list[Child] = [_figure(path) for path in pictures]
    return [*_said(verdict), *(shown or [paragraph("The gate left no pictures: no image was far off.")])]


def _verdict(gate: Path) -> dict[str, Any]:
    try:
        content = json.loads((gate / VERDICT).read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"{gate}: no {VERDICT} to be read ({error}). Give a folder of `glam-deploy gate --out`."
        ) from error
    if not isinstance(content, dict):
        raise UsageError(f"{gate / VERDICT}: not a JSON object. Give a folder of `glam-deploy gate --out`.")
    return content


def _said(content: dict[str, Any]) -> list[Child]:
    verdict = content.get("verdict", content)
    state = {True: "passed", False: "failed"}.get(verdict.get("passed"), "not judged")
    failures = [str(failure) for failure in verdict.get("failures") or []]
    said = tag("strong", f"{verdict.get('engine', 'The engine')}: {state}.")
    return [paragraph(said), tag("ul", *(tag("li", failure) for failure in failures)) if failures else None]


def _figure(path: Path) -> Markup:
    caption = path.stem.replace("_", " ")
    return tag("figure", tag("img", src=_data(path), alt=f"Worst case {caption}"), tag("figcaption", caption))


def _data(path: Path) -> str:
    """The picture itself, so that the report needs no other file."""
    try:
        with Image.open(path) as picture:
            small = picture.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path}: not a picture that can be read ({error}). Run the gate again.") from error
    small.thumbnail((WIDEST, 4 * WIDEST))
    buffer = BytesIO()
    small.save(buffer, "WEBP", quality=QUALITY)
    return f"data:image/webp;base64,{b64encode(buffer.getvalue()).decode('ascii')}"
