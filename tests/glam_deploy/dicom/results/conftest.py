from pathlib import Path

import pytest
from mammograms import write_mg


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A left cranio-caudal mammogram of 96 x 70 pixels."""
    return write_mg(tmp_path / "source.dcm")
