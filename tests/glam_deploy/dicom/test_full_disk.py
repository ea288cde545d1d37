"""Writers of DICOM files name the error of the system, which pydicom's own opening of a file loses."""

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from support.full_disk import largest_file

from glam_deploy.dicom import mammography
from glam_deploy.dicom.mammography import write_view
from glam_deploy.dicom.results import objects
from glam_deploy.records import View


@pytest.mark.parametrize("save", [mammography.save, objects.save])
def test_a_file_that_is_too_large_for_the_disk(tmp_path: Path, save: Callable[[Dataset, Path], None]) -> None:
    pixels = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256) % 4096
    write_view(tmp_path / "whole.dcm", pixels, view=View.L_CC)
    whole = dcmread(tmp_path / "whole.dcm")
    with largest_file(1 << 16), pytest.raises(OSError) as caught:
        save(whole, tmp_path / "cut.dcm")
    assert (caught.value.errno, caught.value.strerror) == (errno.EFBIG, "File too large")
    save(whole, tmp_path / "again.dcm")
    assert (tmp_path / "again.dcm").read_bytes() == (tmp_path / "whole.dcm").read_bytes()
