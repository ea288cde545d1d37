"""Sockets that are closed, and an object to send."""

from pathlib import Path

import pytest
from mammograms import write_mg
from support.receive import close_sockets


@pytest.fixture
def sockets_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    close_sockets(monkeypatch)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_mg(tmp_path / "image.dcm")
