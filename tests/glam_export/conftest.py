"""An export on engines that cost nothing, and where it goes to."""

from pathlib import Path

import pytest
from support.bundles import fill
from support.export import Wrong, replace_parts


@pytest.fixture
def wrong(monkeypatch: pytest.MonkeyPatch) -> Wrong:
    """The exporter on engines that cost nothing; called, it makes one output of the exported graphs wrong."""
    faults = Wrong()
    replace_parts(monkeypatch, faults)
    return faults


@pytest.fixture(params=[False, True], ids=["new place", "over a bundle"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where to export to, alone in its folder: nothing is there, or a bundle."""
    folder = tmp_path / "bundle"
    if request.param:
        folder.mkdir()
        fill(folder)
    return folder
