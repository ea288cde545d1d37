from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from mammograms import write_mg


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """`mammograms.write_mg` to image.dcm in a fresh folder."""
    return partial(write_mg, tmp_path / "image.dcm")
