"""A watched place for each test. `make network-test` runs them."""

from pathlib import Path

import pytest
from expected import need
from outside.strace import Watched, missing
from support.tiny_bundle import write_tiny_bundle

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("strace")


@pytest.fixture(scope="session", autouse=True)
def strace() -> None:
    need("strace", missing())


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    folder = tmp_path / "watched"
    folder.mkdir()
    return Watched(folder=folder)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="session")
def exported(golden_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """An export that was watched; its bundle lies beside the log."""
    watched = Watched(folder=tmp_path_factory.mktemp("exported"))
    watched.run("export", "--weights", golden_checkpoint, "--winograd", "--out", watched.folder / "bundle")
    return watched
