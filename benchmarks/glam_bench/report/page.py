"""The whole document: one file that needs no other, runs nothing and asks the network for nothing."""

from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256

from glam_bench.ladder import verdicts
from glam_bench.report import style, words
from glam_bench.report.html import Section, paragraph
from glam_bench.report.markup import Child, Markup, raw, tag
from glam_bench.report.rungs import baseline_name, speed, timed, worst_dice
from glam_bench.schema import Results, Rung
from glam_deploy.errors import counted
from glam_deploy.outputs.report import STATEMENT


def page(results: Results, sections: Sequence[Section]) -> str:
    """HTML, UTF-8 when encoded."""
    return document(f"glam-deploy bench: {words.machine(results['machine'])}", _top(results), sections)


def document(title: str, top: Sequence[Child], sections: Sequence[Section]) -> str:
    """A page of this package: title, what comes before the sections, links to the sections, the sections."""
    shown = (section.as_markup() for section in sections)
    main = tag("main", tag("h1", title), *top, _links(sections), *shown, _end())
    return f"<!doctype html>\n{tag('html', _head(title), tag('body', main), lang='en')}\n"


def _head(title: str) -> Markup:
    """The policy allows this very style sheet and pictures inside the page, nothing else."""
    css = style.page()
    digest = b64encode(sha256(css.encode()).digest()).decode("ascii")
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", raw(css)),
    )


def _top(results: Results) -> list[Child]:
    notices = [tag("li", notice) for notice in results["notices"]]
    shown = tag("div", tag("ul", *notices), class_="card notices") if notices else None
    return [paragraph(_conditions(results), class_="faint"), _lead(results), shown]


def _conditions(results: Results) -> str:
    settings = results["settings"]
    images, patches = settings.get("images"), settings.get("patches")
    said = [results["when"], words.memory(results["machine"].get("memory"))]
    said += [counted(len(images), "image")] if isinstance(images, list) else []
    said += [f"K = {patches}"] if patches else []
    return ", ".join(said)


def _lead(results: Results) -> Markup | None:
    """The fastest engine that may give results, with its price; then those that are faster and may not."""
    if not timed(results):
        return None
    first = verdicts.fastest(results["ladder"])
    said = _said(first, baseline_name(results)) if first else [tag("strong", "No engine that ran has passed its gate.")]
    others = [
        f" {rung['name']} takes {words.duration(verdicts.p50(rung))}, but {verdicts.why_not(rung)}."
        for rung in verdicts.faster_without_gate(results["ladder"], first)
    ]
    return paragraph(*said, *others, class_="lead")


def _said(rung: Rung, baseline: str) -> list[Child]:
    ratio, price, gate = speed(rung), worst_dice(rung), rung.get("gate")
    said = " is the fastest engine that "
    said += "passed its gate" if gate and gate["verdict"] == "passed" else "may give results, as the reference"
    said += f": {words.duration(verdicts.p50(rung))} an image"
    said += f", {words.times(ratio)} as fast as {baseline}" if ratio is not None else ""
    said += f", worst Dice {words.dice(price)}" if price is not None else ""
    return [tag("strong", rung["name"]), f"{said}."]


def _links(sections: Sequence[Section]) -> Markup:
    entries = (tag("li", tag("a", section.title, href=f"#{section.key}")) for section in sections)
    return tag("nav", tag("ul", *entries), aria_label="Sections")


def _end() -> Markup:
    return paragraph(STATEMENT, class_="faint")
