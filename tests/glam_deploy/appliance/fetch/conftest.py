"""An archive with one study of two views, and the configuration that names it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fake_archive import FakeArchive
from support.fetching import TWO, config_of
from support.receive import write_exam

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.fetch import role


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeArchive]:
    monkeypatch.setattr(role, "POLL_S", 0.02)
    archive = FakeArchive()
    archive.put(*write_exam(tmp_path / "exam", views=TWO))
    with archive.running():
        yield archive


@pytest.fixture
def config(archive: FakeArchive, tmp_path: Path) -> Config:
    return config_of(tmp_path, archive.keys)
