"""The process that reads views, beside what else is in its Python and in the program that starts it."""

import os
import resource
from contextlib import ExitStack, closing
from pathlib import Path, PurePath

import numpy as np
import pytest
from mammograms import breast, write_mg
from PIL import Image
from support.commands import PATHS, without
from support.decoders import program

from glam_deploy.decoding import view_reader
from glam_deploy.decoding.view_reader import ViewReader
from glam_deploy.dicom.read import read_view
from glam_deploy.errors import GlamError, InputError
from glam_deploy.records import View


def test_many_open_descriptors(tmp_path: Path) -> None:
    """As a server with many connections has them: those of the reader are above 1023, FD_SETSIZE of select(2)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip(f"this process may open {hard} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
    try:
        with ExitStack() as opened, closing(ViewReader(longest_s=60)) as reader:
            for _ in range(1024):
                opened.enter_context(Path(os.devnull).open("rb"))
            path = write_mg(tmp_path / "a.dcm")
            np.testing.assert_array_equal(reader.read(path, for_processing=False).pixels, read_view(path).pixels)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_pictures_are_read_where_pydicom_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `archive` does without the extra "dicom"; an object is refused with the line that installs it."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, PATHS)))
    monkeypatch.setattr(view_reader, "_PROGRAM", without("pydicom", code=view_reader._PROGRAM))
    Image.fromarray(pixels := breast(View.L_CC)).save(tmp_path / (picture := PurePath("a_L-CC.png")))
    with closing(ViewReader(longest_s=60)) as reader:
        found = reader.read_content((tmp_path / picture).read_bytes(), picture, for_processing=False)
        np.testing.assert_array_equal(found.pixels, pixels)
        with pytest.raises(GlamError, match=r"pip install .*dicom"):
            reader.read_content(write_mg(tmp_path / "a.dcm").read_bytes(), PurePath("a.dcm"), for_processing=False)


def test_a_decoder_has_no_secret_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is documented for archives (docs/sources.md), what clouds and Ray use, and what a site may have."""
    for name in ("GLAM_DICOMWEB_TOKEN", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "SITE_PASSWORD", "LICENCE"):
        monkeypatch.setenv(name, "sekret")
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setattr(view_reader, "_PROGRAM", program(tmp_path))
    with closing(ViewReader(longest_s=60)) as reader, pytest.raises(InputError) as caught:
        reader.read(write_mg(tmp_path / "tells_L-CC.dcm"), for_processing=False)
    assert "'LC_ALL'" in str(caught.value) and "C.UTF-8" in str(caught.value)
    assert not any(part in str(caught.value) for part in ("sekret", "TOKEN", "AWS", "RAY", "SITE", "LICENCE"))
