"""Which reader a file gets, and which files a command line means."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from mammograms import breast, write_mg
from pydicom import Dataset
from support.bundles import unprivileged

from glam_deploy.dicom.read import read_view
from glam_deploy.errors import BackendUnavailable, InputError, UsageError
from glam_deploy.images.image_files import read_pixels
from glam_deploy.input_files import find_inputs
from glam_deploy.reading import read
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
    with pytest.raises(InputError, match="pass view=, one of L-CC, R-CC, L-MLO, R-MLO"):
        read(_npy(tmp_path / "image.npy"))


def test_a_name_of_another_kind_of_image_brings_a_notice(tmp_path: Path) -> None:
    path = _npy(tmp_path / "L-CC_MAG.npy")
    assert [notice.code for notice in read(path).notices] == ["view-from-name", "name-of-other-kind"]
    (notice,) = read(path, view="L-CC").notices
    assert "the word MAG (magnification)" in notice.message


def test_a_dicom_object_without_a_view_is_as_unknown_as_a_picture(tmp_path: Path) -> None:
    """What lacks the view lacks its modifiers too; a header with a view is asked instead of the name."""

    def anonymize(dataset: Dataset) -> None:
        del dataset.ViewCodeSequence, dataset.ImageLaterality, dataset.PatientOrientation

    found = read(write_mg(tmp_path / "L-CC-MAG.dcm", anonymize))
    assert [notice.code for notice in found.notices][:2] == ["view-from-name", "name-of-other-kind"]
    assert "name-of-other-kind" not in [each.code for each in read(write_mg(tmp_path / "L-CC-MAG.dcm")).notices]


def test_options_reach_the_dicom_reader(tmp_path: Path) -> None:
    path = write_mg(tmp_path / "a.dcm", for_processing=True)
    assert read(path, view=View.L_CC, for_processing=True).view is View.L_CC
    with pytest.raises(InputError, match="contradictory"):
        read(path, view="R-CC", for_processing=True)


@pytest.mark.parametrize("name", ["LCC", "L-CC ", "l-cc", "X", ""])
def test_a_wrong_view_name_lists_the_four(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="L-CC, R-CC, L-MLO, R-MLO"):
        parse_view(name)
    with pytest.raises(UsageError):
        read(tmp_path / "absent.png", view=name)


def test_files_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "L-CC.txt").write_text("no image")
    with pytest.raises(InputError, match="expected DICOM, PNG, TIFF or npy"):
        read(tmp_path / "L-CC.txt")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "absent")


def test_without_pydicom_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_mg(tmp_path / "a.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    for name in [name for name in sys.modules if name.startswith("glam_deploy.dicom")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(BackendUnavailable, match=r"\[dicom\]"):
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
    with pytest.raises(UsageError, match="contains no DICOM"):
        find_inputs([tmp_path])


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other accounts can enter; pytest's own are closed to them."""
    with TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        yield Path(place)


def test_suffixes_of_dicom_make_an_input_whatever_is_inside(tmp_path: Path) -> None:
    wanted = [tmp_path / name for name in ("R-CC.dcm", "empty.dcm", "x.DiCom", "z.DCM")]
    for path in wanted:
        path.touch()
    wanted[0].write_bytes(write_mg(tmp_path / "R-CC.dcm").read_bytes()[132:])
    assert find_inputs([tmp_path]) == wanted
    for path in wanted:
        with pytest.raises(InputError):
            read(path)


@pytest.mark.parametrize("name", ["IM1", "1.2.840.10008", "image.ima"])
def test_dicom_without_preamble_or_header_is_an_input_that_fails(tmp_path: Path, name: str) -> None:
    whole = write_mg(tmp_path / name).read_bytes()
    (tmp_path / "notes.txt").write_text("no image")
    for start, message in ((128, "put 128 bytes before it"), (132, "add the header with `dcmconv")):
        (tmp_path / name).write_bytes(whole[start:])
        assert find_inputs([tmp_path]) == [tmp_path / name]
        with pytest.raises(InputError, match=message):
            read(tmp_path / name)


def test_links_to_folders_are_followed_and_never_in_circles(tmp_path: Path) -> None:
    exam, elsewhere = tmp_path / "exam", tmp_path / "elsewhere"
    for folder in (exam, elsewhere):
        folder.mkdir()
    write_mg(elsewhere / "IM1")
    (elsewhere / "back").symlink_to(exam)
    (exam / "a").symlink_to(elsewhere)
    (exam / "b").symlink_to(elsewhere)
    (exam / "self").symlink_to(exam)
    assert find_inputs([exam]) == [exam / "a" / "IM1"]


def test_links_to_nothing_are_inputs_that_fail(tmp_path: Path) -> None:
    links = [tmp_path / name for name in ("IM1", "R-CC.dcm", "circle")]
    for link in links:
        link.symlink_to("circle")
    (tmp_path / "notes.txt").symlink_to("nowhere")
    assert find_inputs([tmp_path]) == links
    with pytest.raises(InputError, match="cannot be read"):
        read(links[0])


def test_pipes_are_never_opened(tmp_path: Path) -> None:
    (image := tmp_path / "L-CC.npy").touch()
    os.mkfifo(tmp_path / "pipe.dcm")
    assert find_inputs([tmp_path]) == [image]
    with pytest.raises(UsageError, match=r"pipe\.dcm is a device or pipe"):
        find_inputs([tmp_path / "pipe.dcm"])
    (tmp_path / "zero.npy").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe.dcm", tmp_path / "zero.npy"):
        for reader in (read, read_pixels, read_view):
            with pytest.raises(InputError, match="it is a pipe, socket or device"):
                reader(path)


def test_files_passed_over_are_told(tmp_path: Path) -> None:
    told: dict[Path, list[Path]] = {}

    def tell(folder: Path, others: Sequence[Path]) -> None:
        told[folder] = list(others)

    (tmp_path / "deep").mkdir()
    (tmp_path / "images").mkdir()
    image = write_mg(tmp_path / "images" / "IM1")
    write_mg(tmp_path / "DICOMDIR")
    for other in ("deep/no.txt", "list.csv", ".hidden", "short"):
        (tmp_path / other).write_bytes(b"no image")
    assert find_inputs([tmp_path, tmp_path, tmp_path / "images", image], on_passed_over=tell) == [image]
    assert told == {tmp_path: [tmp_path / "deep/no.txt", tmp_path / "list.csv", tmp_path / "short"]}


def test_files_that_cannot_be_opened(open_folder: Path) -> None:
    for name in ("1.2.840.10008", "IM1", "a.dcm", "b.png", "notes.txt"):
        (open_folder / name).touch(0)
    with unprivileged():
        found = find_inputs([open_folder])
        assert [path.name for path in found] == ["1.2.840.10008", "IM1", "a.dcm", "b.png"]
        with pytest.raises(InputError, match="cannot be read"):
            read(found[0])


def test_folders_that_cannot_be_searched(open_folder: Path) -> None:
    (open_folder / "a.dcm").touch()
    (locked := open_folder / "locked").mkdir(0)
    (open_folder / "gone").symlink_to("/proc/self/fd")
    with unprivileged():
        found = find_inputs([open_folder])
        assert {open_folder / "a.dcm", locked} <= {*found}, "one folder does not stop the others"
        with pytest.raises(
            InputError, match=r"^the file cannot be read \(Permission denied\): check its path and rights"
        ):
            read(locked)
        with pytest.raises(UsageError, match=r"locked cannot be searched \(Permission denied\)"):
            find_inputs([locked])
        with pytest.raises(UsageError, match=r"locked/a\.dcm cannot be accessed \(Permission denied\)"):
            find_inputs([locked / "a.dcm"])


@pytest.mark.parametrize("name", ["x" * 256 + ".dcm", "\0.dcm"])
def test_names_that_no_file_has(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be accessed"):
        find_inputs([tmp_path / name])
