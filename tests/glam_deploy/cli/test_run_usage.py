"""`glam-deploy run`: wrong usage, what counts as an input, and where results may go."""

import gzip
from pathlib import Path

import pytest
from mammograms import write_mg
from support.commands import Cli, names

# wrong usage: exit code 2, before anything is written


def test_no_bundle(cli: Cli, bundle: Path, image: Path, tmp_path: Path) -> None:
    said = cli("run", "--bundle", tmp_path / "nothing", "--out", tmp_path / "out", image)
    assert said.code == 2
    assert said.err.startswith(f"glam-deploy: {tmp_path / 'nothing'}: is not a bundle")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Missing argument 'INPUT...'"),
        (["--patches", "7"], "7 is not in the range 1<=x<=6"),
        (["--patches", "0"], "0 is not in the range 1<=x<=6"),
        (["--patches", "two"], "'two' is not a valid integer"),
        (["--view", "X"], "'L-CC', 'R-CC', 'L-MLO', 'R-MLO'"),
        (["--engine", "tensorflow"], "'auto', 'onnx', 'onnx-winograd', 'openvino'"),
        (["--threads", "0"], "0 is not in the range x>=1"),
        (["--nonsense"], "No such option"),
        (["--standardized", "--horizontal-flip"], "leave --horizontal-flip and --for-processing off"),
        (["--standardized", "--for-processing"], "leave --horizontal-flip and --for-processing off"),
        (["missing.png"], "missing.png does not exist"),
        (["empty"], "empty contains no DICOM, PNG, TIFF or npy file"),
    ],
)
def test_wrong_usage(
    cli: Cli, bundle: Path, image: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(bundle.parent)
    Path("empty").mkdir()
    given = [image] if arguments and arguments[0].startswith("--") else []
    said = cli("run", *arguments, *given)
    assert said.code == 2
    assert told in said.err
    assert said.out == ""
    assert "Traceback" not in said.err
    assert not Path("results").exists()


@pytest.mark.parametrize("place", ["file", "file/out"])
def test_out_that_is_no_folder(cli: Cli, bundle: Path, image: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    said = cli("run", "--bundle", bundle, "--out", tmp_path / place, image)
    assert (said.code, said.out) == (2, "")
    assert "cannot write to" in said.err


def test_output_never_replaces_an_input(cli: Cli, bundle: Path, image: Path) -> None:
    before = image.read_bytes()
    said = cli("run", "--bundle", bundle, "--out", image.parent, image)
    assert said.code == 2
    assert "is an input" in said.err
    assert (image.read_bytes(), names(image.parent)) == (before, [image.name])


def test_picture_that_is_not_ours_is_never_replaced(cli: Cli, bundle: Path, image: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/1_L-CC.png").write_bytes(b"mine")
    said = cli("run", "--bundle", bundle, "--out", tmp_path / "out", image)
    assert said.code == 2
    assert (tmp_path / "out/1_L-CC.png").read_bytes() == b"mine"
    assert names(tmp_path / "out") == ["1_L-CC.png"]


def test_same_stems_stay_apart(cli: Cli, bundle: Path, image: Path, tmp_path: Path) -> None:
    (tmp_path / "in/b").mkdir()
    (tmp_path / "in/b" / image.name).write_bytes(image.read_bytes())
    assert cli("run", "--no-picture", "--bundle", bundle, "--out", tmp_path / "out", tmp_path / "in").code == 0
    assert [n for n in names(tmp_path / "out") if n.endswith("npz")] == ["b_1_L-CC.npz", "in_1_L-CC.npz"]


def test_results_inside_the_searched_folder_are_no_inputs(cli: Cli, bundle: Path, image: Path) -> None:
    out = image.parent / "results"
    for _ in range(2):
        said = cli("run", "--bundle", bundle, "--out", out, image.parent)
        assert said.out.splitlines()[-1].startswith("1 done, 0 skipped, 0 failed")
    assert names(out) == ["1_L-CC.json", "1_L-CC.npz", "1_L-CC.png", "results.csv"]
    image.unlink()
    said = cli("run", "--bundle", bundle, "--out", out, image.parent)
    assert said.code == 2
    assert "all images there are results" in said.err


def test_images_of_the_user_inside_the_results_are_inputs(cli: Cli, bundle: Path, image: Path) -> None:
    out = image.parent / "results"
    out.mkdir()
    mine = image.rename(out / image.name)
    (inside := out / "deep").mkdir()
    mine.rename(inside / "2_L-CC.png")
    for _ in range(2):
        said = cli("run", "--bundle", bundle, "--out", out, image.parent)
        assert (said.code, said.err) == (0, "")
        assert said.out.splitlines()[0].startswith(f"done    {inside / '2_L-CC.png'}  ")
    (out / "3_L-CC.png").write_bytes((inside / "2_L-CC.png").read_bytes())
    said = cli("run", "--bundle", bundle, "--out", out, image.parent)
    assert said.code == 2
    assert f"{out / '3_L-CC.png'} is an input" in said.err


def test_results_of_any_run_are_no_inputs(cli: Cli, bundle: Path, image: Path) -> None:
    for out in ("first", "second"):
        said = cli("run", "--bundle", bundle, "--out", image.parent / out, image.parent)
        assert (said.code, said.err) == (0, "")
        assert said.out.splitlines()[-1].startswith("1 done, 0 skipped, 0 failed")


@pytest.mark.parametrize("name", ["2_L-CC.json", "2_L-CC.npz", "2_L-CC.png"])
def test_files_in_the_way_are_seen_before_the_first_input(
    cli: Cli, image: Path, bundle: Path, tmp_path: Path, name: str
) -> None:
    (image.parent / "2_L-CC.png").write_bytes(image.read_bytes())
    (out := tmp_path / "out").mkdir()
    (out / name).write_text("mine")
    for place in (bundle, tmp_path / "no bundle"):
        said = cli("run", "--bundle", place, "--out", out, image.parent)
        assert (said.code, said.out) == (2, "")
        assert said.err.startswith(f"glam-deploy: {out / name} exists and was not written by glam-deploy")
    assert (names(out), (out / name).read_text()) == ([name], "mine")


# what a folder holds besides


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_files_passed_over_are_told_in_one_line(cli: Cli, bundle: Path, image: Path, option: list[str]) -> None:
    (image.parent / "notes.txt").touch()
    arguments = ("run", *option, "--bundle", bundle, "--out", image.parent / "out", image.parent)
    assert cli(*arguments).err == f"1 other file in {image.parent} was passed over\n"
    (image.parent / "list.csv").touch()
    assert cli(*arguments).err == f"2 other files in {image.parent} were passed over\n"


def test_no_image_is_lost_without_a_word(cli: Cli, bundle: Path, image: Path, tmp_path: Path) -> None:
    (image.parent / "0.dcm").touch()
    (image.parent / "2.DCM").write_bytes(write_mg(tmp_path / "whole.dcm").read_bytes()[132:])
    (image.parent / "3").symlink_to("gone")
    (image.parent / "IM1").write_bytes(gzip.compress(b"an exam"))
    (image.parent / "IM2").write_bytes(bytes(600))
    (image.parent / "README").write_text("Für den Betrachter", encoding="latin-1")
    said = cli("run", "--bundle", bundle, "--out", tmp_path / "out", image.parent)
    assert (said.code, said.err) == (1, f"1 other file in {image.parent} was passed over\n")
    lines = [line for line in said.out.splitlines() if not line.startswith(" ")]
    failed = ("2.DCM", "3", "IM1", "IM2")
    told = [("failed", "0.dcm"), ("done", image.name), *(("failed", name) for name in failed)]
    for line, (status, name) in zip(lines, told, strict=False):
        assert line.startswith(f"{status:8}{image.parent / name}  ")
    assert lines[-1].startswith("1 done, 0 skipped, 5 failed")


def test_name_that_no_file_has(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    said = cli("run", "--bundle", bundle, "--out", tmp_path / "out", tmp_path / ("x" * 256))
    assert (said.code, said.out) == (2, "")
    assert "cannot be accessed (File name too long)" in said.err
