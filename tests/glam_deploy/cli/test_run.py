"""`glam-deploy run`: what is written, what is said and what a shell sees, for good input, bad input and damage."""

import json
import re
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mammograms import write_mg
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import BreastTomosynthesisImageStorage
from support import engines as support_engines
from support.commands import Cli, names, strict
from support.engines import in_step

from glam_deploy.cli import job
from glam_deploy.engines.registry import OWNERS
from glam_deploy.reading import read
from glam_deploy.records import Mammogram


def tomosynthesis(path: Path) -> Path:
    def edit(dataset: Dataset) -> None:
        dataset.SOPClassUID = BreastTomosynthesisImageStorage
        dataset.file_meta.MediaStorageSOPClassUID = BreastTomosynthesisImageStorage

    return write_mg(path, edit)


def broken(path: Path) -> Path:
    path.write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return path


# good input


def test_one_image(cli: Cli, bundle: Path, image: Path, tmp_path: Path) -> None:
    said = cli("run", "--bundle", bundle, "--out", tmp_path / "out", image)
    assert (said.code, said.err) == (0, "")
    assert names(tmp_path / "out") == ["1_L-CC.json", "1_L-CC.npz", "1_L-CC.png"]
    first, *_, last = said.out.splitlines()
    assert re.match(re.escape(f"done    {image}  L-CC  ") + r"y_global: benign 0\.\d{3}, malignant 0\.\d{3}  ", first)
    assert last == f"1 done, 0 skipped, 0 failed; results in {tmp_path / 'out'}"
    assert "view-from-name: the view L-CC was taken from the file name" in said.out


def test_defaults_are_bundle_and_results_here(
    cli: Cli, bundle: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bundle.parent)
    assert cli("run", "in").code == 0
    assert names(Path("results")) == ["1_L-CC.json", "1_L-CC.npz", "1_L-CC.png", "results.csv"]


def test_bundle_from_the_environment(
    cli: Cli, bundle: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLAM_BUNDLE", str(bundle))
    assert cli("run", "--out", tmp_path / "out", image).code == 0
    assert cli("run", "--out", tmp_path / "out", "--bundle", tmp_path / "other", image).code == 2


@pytest.mark.parametrize(("option", "said"), [(("--device", 0), "device = 0"), (("--flavour", "tensorrt"), "flavour")])
def test_options_of_a_gpu_are_refused_on_a_cpu(
    cli: Cli, bundle: Path, image: Path, tmp_path: Path, option: tuple[str, object], said: str
) -> None:
    refused = cli("run", "--bundle", bundle, "--out", tmp_path / "out", *option, image)
    assert refused.code == 2
    assert f"engine 'auto' does not support the option {said}" in refused.err
    assert cli("verify", "--bundle", bundle, *option).code == 2


@pytest.mark.parametrize(("option", "said"), [(("--streams", 2), "streams = 2"), (("--cache", "c"), "cache = ")])
def test_options_of_openvino_are_refused_by_others(
    cli: Cli, bundle: Path, image: Path, tmp_path: Path, option: tuple[str, object], said: str
) -> None:
    refused = cli("run", "--bundle", bundle, "--engine", "onnx", "--out", tmp_path / "out", *option, image)
    assert refused.code == 2
    assert f"engine 'onnx' does not support the option {said}" in refused.err


def test_streams_work_on_several_views_at_once(
    cli: Cli, bundle: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(2, 7):
        (image.parent / f"{n}_L-CC.png").write_bytes(image.read_bytes())
    monkeypatch.setitem(OWNERS, "onnx", replace(OWNERS["onnx"], options=("threads", "streams", "cache")))
    monkeypatch.setattr(support_engines, "open_engines", lambda bundle, options: in_step(options.streams))
    options = ("--engine", "onnx", "--ungated", "--streams", 2, "--cache", tmp_path / "cache", "--no-picture")
    said = cli("run", "--bundle", bundle, "--out", tmp_path / "out", *options, image.parent)
    assert (said.code, said.err) == (0, "")
    done = [line.split()[1] for line in said.out.splitlines() if line.startswith("done")]
    assert [Path(path).name for path in done] == [f"{n}_L-CC.png" for n in range(1, 7)]


def test_an_engine_without_its_hardware_says_what_could_run_here(
    cli: Cli, bundle: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OWNERS, "fp16", replace(OWNERS["fp16"], packages=("no_such_package",)))
    said = cli("run", "--bundle", bundle, "--engine", "fp16", "--out", tmp_path / "out", image)
    assert said.code == 3
    told = " ".join(said.err.split())
    assert "engine 'fp16' needs no_such_package" in told
    assert "Engines that can run on this machine, if the bundle has them: onnx," in told


def test_full_and_save_input(cli: Cli, bundle: Path, image: Path, tmp_path: Path) -> None:
    options = ("--full", "--save-input", "--no-picture", "--patches", 3)
    assert cli("run", "--bundle", bundle, "--out", tmp_path / "out", *options, image).code == 0
    assert names(tmp_path / "out") == ["1_L-CC.json", "1_L-CC.npz"]
    with np.load(tmp_path / "out/1_L-CC.npz") as arrays:
        assert arrays["saliency"].shape == (2, 2944, 1920)
        assert arrays["saliency_source"].shape == (2, 500, 400)
        assert arrays["patch_locations"].shape == (3, 2)
        assert abs(float(arrays["input"].mean())) < 1e-4
        assert arrays["input"].std() == pytest.approx(1, abs=1e-4)


def test_json_gives_one_strict_line_an_input(cli: Cli, bundle: Path, image: Path, tmp_path: Path) -> None:
    inputs = [image, broken(image.with_name("2_L-CC.png")), tomosynthesis(image.with_name("3.dcm"))]
    said = cli("run", "--json", "--bundle", bundle, "--out", tmp_path / "out", *inputs)
    reports = [strict(line) for line in said.out.splitlines()]
    assert [r["status"] for r in reports] == ["done", "failed", "skipped"]
    assert [r["input"]["name"] for r in reports] == [path.name for path in inputs]
    for stem, report in zip(("1_L-CC", "2_L-CC", "3"), reports, strict=True):
        assert strict((tmp_path / "out" / f"{stem}.json").read_text()) == report
    assert said.code == 1


def test_standardized_array(cli: Cli, bundle: Path, image: Path, tmp_path: Path) -> None:
    cli("run", "--bundle", bundle, "--out", tmp_path / "raw", "--save-input", image)
    with np.load(tmp_path / "raw/1_L-CC.npz") as arrays:
        np.save(tmp_path / "case.npy", arrays["input"])
        expected = arrays["saliency_global"]
    said = cli("run", "--standardized", "--bundle", bundle, "--out", tmp_path / "out", tmp_path / "case.npy")
    assert said.code == 0
    with np.load(tmp_path / "out/case.npz") as arrays:
        np.testing.assert_array_equal(arrays["saliency_global"], expected)
    assert json.loads((tmp_path / "out/case.json").read_text())["input"]["view"] is None


# what is not done, and goes on


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2944, 1920), np.uint16),
        np.zeros((1920, 2944), np.float32),
        np.full((2944, 1920), np.nan, np.float32),
        np.full((2944, 1920), 7, np.float32),
    ],
    ids=["raw pixels", "turned", "NaN", "not standardized"],
)
def test_standardized_with_a_wrong_array(cli: Cli, bundle: Path, tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "case.npy", array)
    said = cli("run", "--standardized", "--bundle", bundle, "--out", tmp_path / "out", tmp_path / "case.npy")
    assert said.code == 1
    assert names(tmp_path / "out") == ["case.json"]
    assert "Traceback" not in said.out + said.err


def test_one_bad_file_does_not_stop_the_others(cli: Cli, bundle: Path, image: Path, tmp_path: Path) -> None:
    broken(image.with_name("0_L-CC.png"))
    said = cli("run", "--bundle", bundle, "--out", tmp_path / "out", image.parent)
    assert said.code == 1
    assert said.out.splitlines()[0].startswith(f"failed  {image.with_name('0_L-CC.png')}  the png is ")
    assert said.out.splitlines()[-1].startswith("1 done, 0 skipped, 1 failed")
    assert names(tmp_path / "out") == ["0_L-CC.json", "1_L-CC.json", "1_L-CC.npz", "1_L-CC.png", "results.csv"]
    assert "Traceback" not in said.err


def test_several_come_out_in_order_and_as_each_alone(cli: Cli, bundle: Path, image: Path, tmp_path: Path) -> None:
    inputs = [image, broken(image.with_name("0_L-CC.png"))]
    for n in range(2, 4):
        with Image.open(image) as first:
            pixels = np.asarray(first) // n
        inputs.append(image.with_name(f"{9 - n}_L-CC.png"))
        Image.fromarray(pixels).save(inputs[-1])
    inputs += [tomosynthesis(image.with_name("3.dcm")), write_mg(image.with_name("2.dcm"))]
    arguments = ("run", "--json", "--bundle", bundle, "--out")
    lines = [strict(line) for line in cli(*arguments, tmp_path / "out", *inputs).out.splitlines()]
    together = [line for line in lines if line["schema"] == "glam-deploy.result"]
    alone = [strict(cli(*arguments, tmp_path / "alone", path).out) for path in inputs]
    assert [report["status"] for report in alone] == ["done", "failed", "done", "done", "skipped", "failed"]
    for found, expected in zip(together, alone, strict=True):
        assert list(found.pop("timings_ms")) == list(expected.pop("timings_ms"))
        assert found == expected
    assert names(tmp_path / "out") == names(tmp_path / "alone")
    for path in (tmp_path / "out").glob("*.npz"):
        assert path.read_bytes() == (tmp_path / "alone" / path.name).read_bytes()


def test_no_more_than_three_inputs_are_in_memory(
    cli: Cli, bundle: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = [image, *(image.with_name(f"{n}_L-CC.png") for n in range(2, 8))]
    held: list[weakref.ref[np.ndarray]] = []
    most = 0

    def counted(path: Path, **options: Any) -> Mammogram:
        nonlocal most
        mammogram = read(path, **options)
        held.append(weakref.ref(mammogram.pixels))
        most = max(most, sum(pixels() is not None for pixels in held))
        return mammogram

    for copy in inputs[1:]:
        copy.write_bytes(image.read_bytes())
    monkeypatch.setattr("glam_deploy.cli.job.read", counted)
    assert cli("run", "--bundle", bundle, "--out", tmp_path / "out", *inputs).code == 0
    assert len(held) == 7
    assert most <= 3


def test_skipped_among_good_ones_is_no_failure(cli: Cli, bundle: Path, image: Path, tmp_path: Path) -> None:
    tomosynthesis(image.with_name("0.dcm"))
    said = cli("run", "--bundle", bundle, "--out", tmp_path / "out", image.parent)
    assert said.code == 0
    assert said.out.splitlines()[-1].startswith("1 done, 1 skipped, 0 failed")
    assert json.loads((tmp_path / "out/0.json").read_text())["status"] == "skipped"


def test_nothing_but_skipped_is_no_success(cli: Cli, bundle: Path, tmp_path: Path) -> None:
    path = tomosynthesis(tmp_path / "0.dcm")
    assert cli("run", "--bundle", bundle, "--out", tmp_path / "out", path).code == 1


def test_view_that_nothing_tells(cli: Cli, bundle: Path, image: Path, tmp_path: Path) -> None:
    nameless = image.rename(image.with_name("scan.png"))
    said = cli("run", "--bundle", bundle, "--out", tmp_path / "out", nameless)
    assert said.code == 1
    assert "name it with --view, one of L-CC, R-CC, L-MLO, R-MLO" in said.out
    assert cli("run", "--bundle", bundle, "--out", tmp_path / "out", "--view", "L-CC", nameless).code == 0


def test_wrong_view_is_noticed_by_the_chest_wall(cli: Cli, bundle: Path, image: Path, tmp_path: Path) -> None:
    said = cli("run", "--bundle", bundle, "--out", tmp_path / "out", "--view", "R-CC", image)
    assert said.code == 1


def test_values_that_are_not_finite_are_never_results(
    cli: Cli, bundle: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLAM_TEST_NAN", "1")
    said = cli("run", "--bundle", bundle, "--out", tmp_path / "out", image)
    assert said.code == 1
    assert "are NaN or infinite" in said.out
    assert names(tmp_path / "out") == ["1_L-CC.json"]


def test_fault_of_our_own_costs_one_input_and_shows_its_trace(
    cli: Cli, bundle: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLAM_TEST_FAULT", "1")
    said = cli("run", "--bundle", bundle, "--out", tmp_path / "out", image)
    assert said.code == 1
    assert "ZeroDivisionError in run, line " in said.out
    assert "This is a fault of glam-deploy; please report it" in said.out
    assert "support/engines.py" in said.err
    # another library may quote a patient's name in its own words
    assert "made up for a test" not in said.out + (tmp_path / "out/1_L-CC.json").read_text()


def test_too_little_memory_for_one_input_is_no_fault_of_our_own(
    cli: Cli, bundle: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise MemoryError("Unable to allocate 86.2 MiB for an array")

    monkeypatch.setattr(job, "read_input", read)
    said = cli("run", "--bundle", bundle, "--out", tmp_path / "out", image)
    assert (said.code, said.err) == (3, "")
    assert "failed  " in said.out and "too little memory" in said.out and "86.2 MiB" in said.out


def test_failure_removes_the_results_of_an_earlier_run(cli: Cli, bundle: Path, image: Path, tmp_path: Path) -> None:
    cli("run", "--bundle", bundle, "--out", tmp_path / "out", image)
    broken(image)
    assert cli("run", "--bundle", bundle, "--out", tmp_path / "out", image).code == 1
    assert names(tmp_path / "out") == ["1_L-CC.json"]


# damage


@pytest.mark.parametrize("bundle_is_changed", [True, False])
def test_graphs_are_hashed_before_the_engine_sees_them(
    cli: Cli, image: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bundle_is_changed: bool
) -> None:
    monkeypatch.undo()
    graph = bundle / "graphs/global.onnx"
    if bundle_is_changed:
        graph.write_bytes(graph.read_bytes()[::-1])
    said = cli("run", "--bundle", bundle, "--out", tmp_path / "out", image)
    told = "graphs/global.onnx was changed" if bundle_is_changed else "is not an ONNX file"
    assert (said.code, told in said.err, "Traceback" in said.err) == (4, True, False)


def test_no_name_of_a_file_reaches_the_terminal_as_a_command(
    cli: Cli, bundle: Path, image: Path, tmp_path: Path
) -> None:
    """ESC [2J clears a terminal, ESC ]0; sets its title, BEL rings (ECMA-48)."""
    good = image.rename(image.with_name("a\x1b[2J_L-CC.png"))
    bad = image.with_name("b\x07\x1b]0;x.png")
    bad.write_bytes(b"no picture")
    said = cli("run", "--no-picture", "--bundle", bundle, "--out", tmp_path / "out", good, bad)
    missing = cli("run", "--bundle", bundle, "--out", tmp_path / "out", tmp_path / "c\x1b[2J.png")
    for text in (said.out, said.err, missing.out, missing.err):
        assert not {"\x1b", "\x07"} & set(text)
    assert r"a\x1b[2J" in said.out
    assert r"c\x1b[2J" in missing.err
