"""docs/architecture.md against the tree and the imports."""

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from glam_deploy.networks import GLAM
from glam_deploy.preprocess import point_to_network
from glam_deploy.records import Mammogram, Placement, View

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


def test_shapes_in_the_picture_of_the_frames_are_those_of_the_network() -> None:
    shapes = dict(re.findall(r'^    (\w+)\["[^<]+<br>([^"]+)"\]$', PAGE, re.MULTILINE))
    classes, selection = len(GLAM.classes), GLAM.selection
    assert selection
    expected = {
        "network": GLAM.input_shape,
        "global": (classes, *GLAM.map_shape),
        "patches": ("K", selection.side, selection.side),
        "local": ("K", classes, selection.map_side, selection.map_side),
        "fused": (classes, *GLAM.input_shape),
    }
    assert {name: shapes[name] for name in expected} == {
        name: " x ".join(map(str, shape)) for name, shape in expected.items()
    }
    assert f"(r // {GLAM.cell}, c // {GLAM.cell})" in PAGE
    assert f"(r // {GLAM.grid_cell}, c // {GLAM.grid_cell})" in PAGE


@pytest.mark.parametrize("half_turn", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
def test_positions_follow_the_steps_of_the_page(half_turn: bool, mirrored: bool) -> None:
    """Source -> upright -> crop -> network, by the table, against the conversion of the product."""
    rows, columns, corner, shift, (r, c) = 4000, 3000, (400, 0), (-30, 100), (1900, 1400)
    pixels = np.zeros((rows, columns), np.uint8)
    pixels[r, c] = 1
    faces_left = mirrored != half_turn
    view = Mammogram(pixels=pixels, view=View.L_CC, horizontal_flip=mirrored, half_turn=half_turn)
    upright = (rows - 1 - r if half_turn else r), (columns - 1 - c if faces_left else c)
    assert tuple(np.argwhere(view.upright)[0]) == upright
    bottom, right = 3700, 2500
    placement = Placement(
        source_shape=(rows, columns),
        crop_window=(
            *((rows - bottom, rows - corner[0]) if half_turn else (corner[0], bottom)),
            *((columns - right, columns - corner[1]) if faces_left else (corner[1], right)),
        ),
        mirrored=mirrored,
        half_turn=half_turn,
        row_shift=shift[0],
        column_shift=shift[1],
        best_center=None,
    )
    expected = tuple(place - start - moved for place, start, moved in zip(upright, corner, shift, strict=True))
    assert point_to_network(placement, (r, c)) == expected
