"""Which reader a file gets, and which files a command line means."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from mammograms import breast, write_mg

from glam_deploy.errors import BackendUnavailable, InputError, UsageError
from glam_deploy.reading import find_inputs, read
from glam_deploy.records import View, parse_view


def _npy(path: Path) -> Path:
    with path.open("wb") as file:
        np.save(file, breast(View.L_CC))
    return path


def test_content_decides(tmp_path: Path) -> None:
    assert read(write_mg(tmp_path / "IM0001")).source.kind == "dicom"
    assert read(str(_npy(tmp_path / "L-CC"))).source.kind == "npy"


def test_the_view_comes_from_the_option_then_from_the_name(tmp_path: Path) -> None:
    path = _npy(tmp_path / "0_L-CC.npy")
    assert (read(path).view, [n.code for n in read(path).notices]) == (View.L_CC, ["view-from-name"])
    assert (read(path, view="R-MLO").view, read(path, view="R-MLO").notices) == (View.R_MLO, ())
    assert read(path, horizontal_flip=True).horizontal_flip
    with pytest.raises(InputError, match="--view, one of L-CC, R-CC, L-MLO, R-MLO"):
        read(_npy(tmp_path / "image.npy"))


def test_options_reach_the_dicom_reader(tmp_path: Path) -> None:
    path = write_mg(tmp_path / "a.dcm", for_processing=True)
    assert read(path, view=View.L_CC, for_processing=True).view is View.L_CC
    with pytest.raises(InputError, match="contradicts"):
        read(path, view="R-CC", for_processing=True)


@pytest.mark.parametrize("name", ["LCC", "L-CC ", "l-cc", "X", ""])
def test_a_wrong_view_name_lists_the_four(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="L-CC, R-CC, L-MLO, R-MLO"):
        parse_view(name)
    with pytest.raises(UsageError):
        read(tmp_path / "absent.png", view=name)


def test_files_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "L-CC.txt").write_text("no image")
    with pytest.raises(InputError, match="no DICOM, PNG, TIFF or npy"):
        read(tmp_path / "L-CC.txt")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "absent")


def test_without_pydicom_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_mg(tmp_path / "a.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    for name in [name for name in sys.modules if name.startswith("glam_deploy.dicom")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(BackendUnavailable, match=r"glam-deploy\[dicom\]"):
        read(path)


def test_pydicom_is_imported_only_for_dicom(tmp_path: Path) -> None:
    code = "import sys; from glam_deploy.reading import read; read(sys.argv[1]); print('pydicom' in sys.modules)"
    path = _npy(tmp_path / "L-CC.npy")
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_inputs_are_files_as_given_and_folders_in_order(tmp_path: Path) -> None:
    for folder in ("b", "a/deep", ".hidden"):
        (tmp_path / folder).mkdir(parents=True)
    wanted = [
        write_mg(tmp_path / "a" / "IM1"),
        _npy(tmp_path / "a" / "deep" / "x.NPY"),
        _npy(tmp_path / "b" / "y.npy"),
        _npy(tmp_path / "c.tif"),
    ]
    for ignored in ("notes.txt", ".secret.npy", ".hidden/z.npy"):
        _npy(tmp_path / ignored)
    write_mg(tmp_path / "b" / "DICOMDIR")
    odd = tmp_path / "notes.txt"
    assert find_inputs([odd, tmp_path, wanted[0]]) == [odd, *wanted]


def test_inputs_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        find_inputs([tmp_path / "absent"])
    with pytest.raises(UsageError, match="holds no DICOM"):
        find_inputs([tmp_path])
