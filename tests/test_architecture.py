"""docs/architecture.md against the tree and the imports."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/architecture.md").read_text("utf-8")
LISTED = re.compile(r"^  ((?:\w+(?:\.py|/)(?:, )?)+)", re.MULTILINE)


def in_the_list(package: str) -> set[str]:
    """Modules and folders (with a slash) that the page lists directly under a package."""
    block = PAGE[PAGE.index(f"\n{package}/\n") :]
    block = block[: re.search(r"\n(?!  )\S", block[2:]).start() + 2]
    return {name for names in LISTED.findall(block) for name in names.split(", ") if name}


def in_the_tree(folder: Path) -> set[str]:
    modules = {path.name for path in folder.glob("*.py") if not path.name.startswith("__")}
    return modules | {f"{init.parent.name}/" for init in folder.glob("*/__init__.py")}


def test_every_module_of_the_runtime_is_listed_and_no_other() -> None:
    assert in_the_list("glam_deploy") == in_the_tree(ROOT / "glam_deploy")


def test_the_diagram_is_that_of_the_imports() -> None:
    pytest.importorskip("grimp")
    drawn = runpy.run_path(str(ROOT / "packaging/architecture.py"))
    assert drawn["with_diagram"](PAGE) == PAGE, "run: python packaging/architecture.py"
