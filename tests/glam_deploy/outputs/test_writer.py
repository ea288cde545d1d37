import json
import os
from pathlib import Path, PurePosixPath
from unicodedata import normalize

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.full_disk import largest_file

from glam_deploy.errors import InputError, NotForThisNetwork, UsageError
from glam_deploy.outputs import writer
from glam_deploy.outputs.writer import OutputOptions, is_result, unique_stems, write_failure, write_result
from glam_deploy.records import Source, View


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def status(path: Path) -> str:
    return json.loads(path.read_text("utf-8"))["status"]


def test_three_files_and_nothing_else(make_result, pixels, tmp_path):
    out = tmp_path / "new" / "folder"
    written = write_result(out, "Mönch-胸部", pixels, make_result(), OutputOptions())
    assert [path.name for path in written] == ["Mönch-胸部.npz", "Mönch-胸部.png", "Mönch-胸部.json"]
    assert {path.name for path in written} == names(out)
    content = json.loads(written[2].read_text("utf-8"))
    assert content["files"] == {"arrays": "Mönch-胸部.npz", "picture": "Mönch-胸部.png"}
    with np.load(written[0]) as arrays, Image.open(written[1]) as picture:
        np.testing.assert_array_equal(arrays["y_global"], np.array([0.3, 0.7], np.float32))
        assert max(picture.size) == 1600


def test_files_have_the_permissions_of_any_new_file(make_result, pixels, tmp_path):
    (tmp_path / "plain").touch()
    for path in write_result(tmp_path, "x", pixels, make_result(), OutputOptions(picture=False)):
        assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_options_choose_what_is_written(make_result, pixels, tmp_path):
    options = OutputOptions(full=True, save_input=True, picture=False)
    arrays, report = write_result(tmp_path, "x", pixels, make_result(), options)
    with np.load(arrays) as archive:
        assert {"saliency", "saliency_source", "input"} <= set(archive.files)
    assert json.loads(report.read_text("utf-8"))["files"]["picture"] is None


def test_a_second_run_leaves_no_stale_sibling(make_result, pixels, tmp_path):
    write_result(tmp_path, "x", pixels, make_result(), OutputOptions())
    write_result(tmp_path, "x", pixels, make_result(), OutputOptions(picture=False))
    assert names(tmp_path) == {"x.npz", "x.json"}
    write_failure(tmp_path, "x", "x.dcm", View.L_CC, InputError("broken"))
    assert names(tmp_path) == {"x.json"} and status(tmp_path / "x.json") == "failed"
    write_failure(tmp_path, "x", "x.dcm", None, NotForThisNetwork("tomosynthesis"))
    assert status(tmp_path / "x.json") == "skipped"


class Killed(BaseException):
    """The process ended there."""


def kill_at(step: int, monkeypatch):
    """From the change number `step` of the output folder on, from 0, nothing happens to it any more."""
    left = iter(range(step))

    def dying(change):
        def changed(path, *arguments, **options):
            if next(left, None) is None:
                raise Killed
            return change(path, *arguments, **options)

        return changed

    for name in ("replace", "unlink"):
        monkeypatch.setattr(Path, name, dying(getattr(Path, name)))


@pytest.mark.parametrize("second", ["picture", "no picture", "failure"])
@pytest.mark.parametrize("earlier", [True, False])
@pytest.mark.parametrize("step", range(4))
def test_killed_between_any_two_changes(make_result, pixels, tmp_path, monkeypatch, step, earlier, second):
    """A report that says "done" has siblings of its own run, each file is known as ours, and a re-run goes through."""
    monkeypatch.setattr(writer, "overlay", lambda pixels, result: pixels[:1])

    def write(scores):
        if second == "failure":
            return write_failure(tmp_path, "x", "x.dcm", None, InputError("broken"))
        result = make_result(y_global=np.array(scores, np.float32))
        return write_result(tmp_path, "x", pixels, result, OutputOptions(picture=second == "picture"))

    if earlier:
        write_result(tmp_path, "x", pixels, make_result(), OutputOptions())
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_at(step, patched)
        write([0.25, 0.5])
        raise Killed  # fewer changes than steps
    if (tmp_path / "x.json").exists() and status(tmp_path / "x.json") == "done":
        content = json.loads((tmp_path / "x.json").read_text("utf-8"))
        with np.load(tmp_path / "x.npz") as arrays:
            told = [content["predictions"]["y_global"][name] for name in ("benign", "malignant")]
            np.testing.assert_array_equal(arrays["y_global"], np.array(told, np.float32))
        assert names(tmp_path) == {"x.json", *filter(None, content["files"].values())}
    assert all(is_result(path) for path in tmp_path.iterdir())
    assert {path.name for path in write([0.25, 0.5])} == names(tmp_path)


def test_a_kill_is_told_in_the_report(make_result, pixels, tmp_path, monkeypatch):
    write_result(tmp_path, "x", pixels, make_result(), OutputOptions())
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_at(2, patched)
        write_result(tmp_path, "x", pixels, make_result(), OutputOptions())
    content = json.loads((tmp_path / "x.json").read_text("utf-8"))
    assert (content["status"], content["input"]["name"]) == ("failed", "case.dcm")
    assert content["files"] == {"arrays": "x.npz", "picture": "x.png"}
    assert content["error"]["type"] == "InternalError" and "run this input again" in content["error"]["message"]


def test_a_full_disk_is_reported_and_the_earlier_result_survives(make_result, pixels, tmp_path):
    write_result(tmp_path, "x", pixels, make_result(), OutputOptions())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with largest_file(20_000), pytest.raises(UsageError, match="free disk space") as caught:
        write_result(tmp_path, "x", pixels, make_result(), OutputOptions())
    assert isinstance(caught.value.__cause__, OSError)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_made_is_a_usage_error(tmp_path):
    (tmp_path / "file").write_text("here first")
    with pytest.raises(UsageError, match=str(tmp_path / "file" / "out")):
        write_failure(tmp_path / "file" / "out", "x", "x.dcm", None, InputError("broken"))


@pytest.mark.parametrize("fails", [True, False])
def test_an_input_png_in_the_output_folder_is_never_touched(make_result, pixels, tmp_path, fails):
    (tmp_path / "x.png").write_bytes(b"the mammogram itself")
    with pytest.raises(UsageError, match="other than that of the inputs"):
        if fails:
            write_failure(tmp_path, "x", "x.png", None, InputError("broken"))
        else:
            write_result(tmp_path, "x", pixels, make_result(), OutputOptions())
    assert (tmp_path / "x.png").read_bytes() == b"the mammogram itself" and names(tmp_path) == {"x.png"}


FOREIGN = [
    {"x.json": b'{"benign": 0}'},
    {"x.json": b"[]"},
    {"x.json": b"no JSON"},
    {"x.json": b'{"schema": "glam-deploy.other"}'},
    {"x.npz": b"arrays"},
    {"x.npz": b"arrays", "x.png": b"picture"},
    {"x.npz": b"arrays", "x.json": b'{"schema": "glam-deploy.result"}'},
    {"x.png": b"picture", "x.json": b'{"schema": "glam-deploy.result", "files": {"arrays": null, "picture": null}}'},
]


@pytest.mark.parametrize("fails", [True, False])
@pytest.mark.parametrize("files", FOREIGN)
def test_files_of_others_are_in_the_way_and_stay(make_result, pixels, tmp_path, files, fails):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=r"x\.(json|npz|png) exists and was not written by glam-deploy"):
        if fails:
            write_failure(tmp_path, "x", "x.png", None, InputError("broken"))
        else:
            write_result(tmp_path, "x", pixels, make_result(), OutputOptions())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


@pytest.mark.parametrize("name", ["x.json", "x.npz"])
def test_folders_and_links_of_others_stay(tmp_path, name):
    (tmp_path / name).symlink_to("nowhere")
    with pytest.raises(UsageError, match="was not written by glam-deploy"):
        write_failure(tmp_path, "x", "x.png", None, InputError("broken"))
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match="was not written by glam-deploy"):
        write_failure(tmp_path, "x", "x.png", None, InputError("broken"))
    assert names(tmp_path) == {name}


def test_a_picture_that_came_after_a_run_without_one_stays(make_result, pixels, tmp_path):
    write_result(tmp_path, "x", pixels, make_result(), OutputOptions(picture=False))
    (tmp_path / "x.png").write_bytes(b"the mammogram itself")
    with pytest.raises(UsageError, match=r"x\.png exists and was not written"):
        write_result(tmp_path, "x", pixels, make_result(), OutputOptions(picture=False))
    assert (tmp_path / "x.png").read_bytes() == b"the mammogram itself"


def test_files_of_ours_are_known_by_name(make_result, pixels, tmp_path):
    write_result(tmp_path, "1.2.840", pixels, make_result(), OutputOptions())
    for other in ("1.2.png", "1.2.840.dcm", "1.2.840", "y.json"):
        (tmp_path / other).touch()
    ours = {path.name for path in tmp_path.iterdir() if is_result(path)}
    assert ours == {"1.2.840.json", "1.2.840.npz", "1.2.840.png"}


@pytest.mark.parametrize("stem", ["", ".", "..", "a/b", "../x", "a\0b", "\ud800"])
def test_a_stem_is_a_plain_name(tmp_path, stem):
    with pytest.raises(UsageError, match="plain file name"):
        write_failure(tmp_path, stem, "x.dcm", None, InputError("broken"))
    assert not names(tmp_path)


def test_a_folder_that_no_system_has(tmp_path):
    with pytest.raises(UsageError, match="not a folder name"):
        write_failure(tmp_path / "a\0b", "x", "x.dcm", None, InputError("broken"))


def test_a_name_that_is_not_utf_8_still_makes_valid_json(make_result, pixels, tmp_path):
    name = os.fsdecode(b"caf\xe9.png")
    (stem,) = unique_stems([Path(name)]).values()
    result = make_result(source=Source(name=name, kind="png"))
    written = write_result(tmp_path, stem, pixels, result, OutputOptions(picture=False))
    assert json.loads(written[-1].read_bytes().decode("utf-8"))["input"]["name"] == name


@pytest.mark.parametrize(
    ("paths", "stems"),
    [
        (["in/1.dcm"], ["1"]),
        (["a/1.dcm", "b/1.dcm"], ["a_1", "b_1"]),
        (["1.png", "1.dcm"], ["1.png", "1.dcm"]),
        (["x/a/1.dcm", "y/a/1.dcm", "2.png"], ["x_a_1", "y_a_1", "2"]),
        (["1.2.840.10008.5", "1.2.840.10008.6"], ["1.2.840.10008.5", "1.2.840.10008.6"]),
        (["../one/1.dcm", "../two/1.dcm"], ["one_1", "two_1"]),
    ],
)
def test_stems_are_the_shortest_that_differ(paths, stems):
    assert list(unique_stems(map(Path, paths)).values()) == stems


PARTS = st.sampled_from(["a", "A", "b", "a_1", "1", "e\u0301", "\u00e9", "ß", "ss", "1.2", "..", "x" * 200])
PATHS = st.builds(
    lambda folders, name, suffix: Path(*folders, name + suffix),
    st.lists(PARTS, max_size=3),
    PARTS.filter(lambda part: part != ".."),
    st.sampled_from(["", ".dcm", ".DCM", ".png", ".1"]),
)


@given(st.lists(PATHS, max_size=12))
def test_no_output_can_overwrite_another(paths):
    stems = unique_stems(paths)
    assert set(stems) == set(paths)
    outputs = [stem + suffix for stem in stems.values() for suffix in (".npz", ".png", ".json")]
    folded = {normalize("NFKD", name.casefold()) for name in outputs}
    assert len(folded) == 3 * len(stems)
    assert all(len(os.fsencode(name)) <= 255 and PurePosixPath(name).name == name for name in outputs)


@given(st.lists(PATHS, max_size=8, unique=True).flatmap(lambda p: st.tuples(st.just(p), st.permutations(p))))
def test_stems_do_not_depend_on_the_order(both):
    first, second = both
    assert unique_stems(first) == unique_stems(second)
