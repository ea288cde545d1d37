"""Reports of a bench, read back as a tree by a parser that forgives nothing."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from glam_bench.report import write

VOID = {"meta", "img", "br", "link", "input", "hr", "base", "source", "area", "col", "embed", "track", "wbr"}


@dataclass
class Node:
    name: str
    attributes: dict[str, str | None]
    children: "list[Node | str]" = field(default_factory=list)

    def all(self, name: str) -> "list[Node]":
        """Elements of that name below this one, in the document's order."""
        return [node for node in self.walk() if node.name == name]

    def one(self, name: str) -> "Node":
        (found,) = self.all(name)
        return found

    def of_class(self, class_: str) -> "list[Node]":
        return [node for node in self.walk() if class_ in (node.attributes.get("class") or "").split()]

    def section(self, key: str) -> "Node":
        (found,) = (node for node in self.all("section") if node.attributes["id"] == key)
        return found

    def plot(self, width: str = "880") -> "Node":
        """The only drawing of that width."""
        (found,) = (node for node in self.all("svg") if node.attributes["width"] == width)
        return found

    def number(self, attribute: str) -> float:
        return float(self.attributes[attribute] or "")

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def walk(self) -> "Iterator[Node]":
        for child in self.children:
            if isinstance(child, Node):
                yield child
                yield from child.walk()


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Node("", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"{tag} has an attribute twice"
        node = Node(tag, dict(attrs))
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().name == tag, f"</{tag}> ends another element"

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(content: str) -> Node:
    parser = _Parser()
    parser.feed(content)
    parser.close()
    (root,) = parser.open
    return root


def written(results: Any, folder: Path, **options: Any) -> Node:
    """The report of some results."""
    write(results, folder / "report.html", **options)
    return parse((folder / "report.html").read_text("utf-8"))


def with_strings(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with every string in it changed, keys left as they are."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: with_strings(item, change) for key, item in value.items()}
    return [with_strings(item, change) for item in value] if isinstance(value, list) else value


def gate_folder(folder: Path, pictures: Mapping[str, tuple[int, int]]) -> Path:
    """As `glam-deploy gate --out` leaves it, of two images; `pictures`: name -> width and height."""
    (folder / "worst").mkdir(parents=True)
    (folder / "gate.json").write_text(json.dumps(_gate_content()))
    for name, (width, height) in pictures.items():
        ramp = np.tile(np.arange(height, dtype=np.uint8)[:, None, None], (1, width, 3))
        Image.fromarray(ramp).save(folder / "worst" / f"{name}.png")
    return folder


def _gate_content() -> dict[str, Any]:
    reason = "local differs on the reference's own patch"
    curve = [{"threshold": n / 10, "images": 2, "median": 0.995, "interval": None, "worst": 0.91} for n in range(1, 9)]
    curve.append({"threshold": 0.9, "images": 0, "median": None, "interval": None, "worst": None})
    gate = {
        "id": "0123456789ab",
        "engine": "openvino-int8",
        "reference": "torch",
        "passed": False,
        "failures": ["Dice of the fused <benign> map at 0.9: worst 0.9100, limit 0.95"],
        "limits": {"dice_median": 0.99, "dice_worst": 0.95, "flips": 0},
        "figures": {
            "dice": {name: {"benign": curve, "malignant": curve} for name in ("global", "patches", "fused")},
            "patches": {"patches": 4, "agreement": 0.75},
            "lost_or_new": 0,
            "flips": 0,
            "reasons": {reason: 1},
        },
        "images": 2,
        "when": "2026-11-23T10:00:00+00:00",
    }
    rows = [
        {"image": "L-CC.dcm", "lowest": 0.99996, "reasons": []},
        {"image": "<R>&MLO.dcm", "lowest": 0.91, "reasons": [reason]},
    ]
    return {"schema": 1, "gate": gate, "images": rows, "left_out": []}
