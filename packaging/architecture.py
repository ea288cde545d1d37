"""The diagram in docs/architecture.md, from the imports: which room uses which.

`python packaging/architecture.py` writes it between its two marks. A room is a folder of `glam_deploy`, or one of the
packages beside it. An arrow is left out where others lead the same way (transitive reduction).
"""

from collections.abc import Mapping
from pathlib import Path

import grimp

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/architecture.md"
BEGIN, END = "<!-- imports: begin -->", "<!-- imports: end -->"
PACKAGES = ("glam_bench", "glam_export", "glam_deploy")
CLOSE = '%%{init: {"flowchart": {"nodeSpacing": 4, "rankSpacing": 30, "padding": 4}}}%%'
"""So that the text can be read on a telephone."""


def rooms() -> list[str]:
    """Dotted names of the rooms."""
    folders = sorted(init.parent.name for init in (ROOT / "glam_deploy").glob("*/__init__.py"))
    return [*PACKAGES[:2], *(f"glam_deploy.{folder}" for folder in folders)]


def uses() -> dict[str, set[str]]:
    """Room -> the rooms that its modules import."""
    graph, names = grimp.build_graph(*PACKAGES, exclude_type_checking_imports=True), rooms()
    of_module = {module: room for module in graph.modules if (room := _room_of(module, names))}
    found: dict[str, set[str]] = {name: set() for name in names}
    for module, room in of_module.items():
        imported = {of_module.get(other) for other in graph.find_modules_directly_imported_by(module)}
        found[room] |= {other for other in imported if other and other != room}
    return found


def _room_of(module: str, names: list[str]) -> str | None:
    return next((name for name in names if module == name or module.startswith(f"{name}.")), None)


def reduced(edges: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Without the arrows that longer ways imply. Raises RecursionError for a cycle."""

    def reach(room: str) -> set[str]:
        return edges[room].union(*(reach(other) for other in edges[room]))

    return {
        room: {other for other in others if not any(other in reach(via) for via in others - {other})}
        for room, others in edges.items()
    }


def diagram() -> str:
    """Mermaid's text."""
    lines = ["```mermaid", CLOSE, "flowchart TD"]
    for room, others in sorted(reduced(uses()).items()):
        lines += [f"    {_short(room)} --> {_short(other)}" for other in sorted(others)]
    return "\n".join([*lines, "```"])


def _short(room: str) -> str:
    return room.removeprefix("glam_deploy.")


def with_diagram(page: str) -> str:
    """The page with today's diagram between its marks. Raises ValueError where it lacks them."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{PAGE} lacks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{diagram()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_diagram(PAGE.read_text("utf-8")), "utf-8")
