"""Engines on the fake GPU: each gpu_*.py beside this file, in a process of its own."""

from pathlib import Path

import pytest
from fake_cuda.outside import run_inside

HERE = Path(__file__).parent


@pytest.mark.parametrize("file", sorted(HERE.glob("gpu_*.py")), ids=lambda file: file.stem)
def test_on_the_fake_gpu(file: Path) -> None:
    run_inside(file)
