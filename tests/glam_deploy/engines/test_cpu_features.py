"""Instruction sets, from files as Linux writes them."""

import platform
from pathlib import Path

import pytest

from glam_deploy.engines.cpu import features, model

X86 = """processor\t: 0
model name\t: Intel(R) Xeon(R) Platinum 8481C
flags\t\t: fpu avx2 avx512f amx_bf16 amx_int8
vmx flags\t: vnmi

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16\nCPU part\t: 0xd40\n"


@pytest.mark.parametrize(
    ("text", "found", "name"),
    [
        (X86, {"fpu", "avx2", "avx512f", "amx_bf16", "amx_int8"}, "Intel(R) Xeon(R) Platinum 8481C"),
        (ARM, {"fp", "asimd", "bf16"}, platform.machine()),
        ("", set(), platform.machine()),
        (None, set(), platform.machine()),
    ],
)
def test_what_the_file_tells(tmp_path: Path, text: str | None, found: set[str], name: str) -> None:
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    assert (features(path), model(path)) == (found, name)
