"""`glam-deploy gate`: its verdict in the manifest, its exit codes, its files, and who is let through then."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from support.bundles import snapshot
from support.commands import Cli
from support.engines import small_view
from support.gate import Candidate
from support.labelled_sets import VINDR_BREASTS, VINDR_FINDINGS

from glam_deploy.bundle import MANIFEST, open_bundle
from glam_deploy.dicom.mammography import Encoding, write_view
from glam_deploy.json_records import to_json
from glam_deploy.records import View


@pytest.fixture
def candidate(monkeypatch: pytest.MonkeyPatch) -> Candidate:
    """The engine "openvino" from now on."""
    return Candidate(monkeypatch)


@pytest.fixture
def gate(cli: Cli, bundle: Path, image: Path, candidate: Candidate) -> Any:
    """Runs the gate on the bundle; what it said."""

    def run(*arguments: object, images: Path = image) -> Any:
        fixed = ("--bundle", bundle, "--engine", "openvino", "--reference", "onnx", "--images", images)
        return cli("gate", *fixed, *arguments)

    return run


def verdicts(bundle: Path) -> list[dict[str, Any]]:
    return [to_json(entry) for entry in open_bundle(bundle).gates]


def outline(folder: Path, image: Path, value: int = 100) -> None:
    folder.mkdir()
    mask = np.zeros(small_view().pixels.shape, np.uint8)
    mask[200:260, 100:160] = value
    cv2.imwrite(str(folder / f"{image.stem}.png"), mask)


def test_an_engine_that_passes_may_run(
    cli: Cli, gate: Any, bundle: Path, image: Path, candidate: Candidate, tmp_path: Path
) -> None:
    run = ("run", image, "--bundle", bundle, "--engine", "openvino", "--out", tmp_path / "out", "--json")
    refused = cli(*run)
    assert (refused.code, refused.out) == (4, "")
    assert f"glam-deploy gate --bundle {bundle} --engine openvino" in refused.err

    said = gate()
    assert said.code == 0, said.err
    (entry,) = verdicts(bundle)
    assert said.out.splitlines()[-1].startswith(f"PASSED gate {entry['id']}: engine openvino, 1 image;")
    assert (entry["passed"], entry["failures"], entry["engine"], entry["reference"]) == (True, [], "openvino", "onnx")
    assert entry["digest"] == candidate.identity.digest

    passed = cli(*run)
    assert passed.code == 0
    assert json.loads(passed.out)["provenance"]["gate"] == entry["id"]
    assert cli("verify", "--bundle", bundle).code == 0
    shown = " ".join(cli("inspect", "--bundle", bundle).out.split())
    assert f"{entry['id']} │ openvino │ PASSED │ 1 │" in shown


def test_a_damaged_engine_fails_and_stays_out(
    cli: Cli, gate: Any, bundle: Path, image: Path, candidate: Candidate, tmp_path: Path
) -> None:
    assert gate().code == 0
    candidate.wrong = {"saliency_patches": -0.2}
    said = gate("--out", tmp_path / "gate")
    assert said.code == 4
    (entry,) = verdicts(bundle)
    assert not entry["passed"]
    assert entry["figures"]["reasons"] == {"local differs": 1}
    assert entry["failures"][-1] == "lesions lost or new: 2, limit 0"
    assert "reasons: local differs in 1" in said.out
    assert "FAILED gate" in said.out

    run = ("run", image, "--bundle", bundle, "--engine", "openvino", "--out", tmp_path / "out", "--json")
    refused = cli(*run)
    assert refused.code == 4
    assert f"failed its gate {entry['id']}" in refused.err
    ungated = cli(*run, "--ungated")
    assert ungated.code == 0
    assert json.loads(ungated.out)["provenance"]["gate"] == "ungated"


def test_the_number_of_images_that_were_timed(gate: Any, image: Path) -> None:
    """The first image only warms up both engines."""
    for number in range(2, 5):
        shutil.copy(image, image.parent / f"{number}_L-CC.png")
    said = " ".join(gate(images=image.parent).out.split())
    assert "beside onnx, in turns on 3 of the 4 images, without the first: " in said
    assert "engine openvino, 4 images;" in said


def test_files(gate: Any, image: Path, tmp_path: Path, bundle: Path) -> None:
    outline(tmp_path / "masks", image)
    assert gate("--out", tmp_path / "gate", "--masks", tmp_path / "masks").code == 0
    found = json.loads((tmp_path / "gate/gate.json").read_text())
    assert found["gate"] == verdicts(bundle)[0]
    (row,) = found["images"]
    assert (row["image"], row["positive"], row["lowest"]) == (image.name, {"benign": True, "malignant": False}, 1)
    assert [path.name for path in (tmp_path / "gate/worst").iterdir()] == ["01_1_L-CC.png"]
    assert cv2.imread(str(tmp_path / "gate/worst/01_1_L-CC.png")).shape == (856, 1968, 3)
    assert found["gate"]["figures"]["truth"]["benign"]["images"] == 1


def test_limits(gate: Any, candidate: Candidate, bundle: Path, tmp_path: Path) -> None:
    candidate.wrong = {"saliency_patches": -0.2}
    assert gate().code == 4
    (tmp_path / "limits.toml").write_text("dice_median = 0\ndice_worst = 0\nlost = 2\n")
    assert gate("--limits", tmp_path / "limits.toml").code == 0
    assert verdicts(bundle)[0]["limits"]["lost"] == 2


def test_an_image_that_cannot_be_read_lets_nobody_pass(gate: Any, image: Path, bundle: Path) -> None:
    (image.parent / "2_R-CC.png").write_bytes(b"no PNG")
    said = gate(images=image.parent)
    assert said.code == 1
    assert "unreadable: 2_R-CC.png: " in said.err
    assert verdicts(bundle)[0]["failures"] == ["1 image could not be read"]


def test_numbers_that_are_not_finite(gate: Any, candidate: Candidate, bundle: Path, tmp_path: Path) -> None:
    candidate.wrong = {"saliency_patches": np.nan}
    said = gate("--out", tmp_path / "gate")
    assert said.code == 4
    assert verdicts(bundle)[0]["failures"] == [
        "1 image gave NaN, infinite numbers or an error",
    ]
    assert json.loads((tmp_path / "gate/gate.json").read_text())["left_out"][0]["status"] == "not computed"


def test_a_mask_of_another_form(gate: Any, image: Path, tmp_path: Path) -> None:
    outline(tmp_path / "masks", image, value=7)
    said = gate("--masks", tmp_path / "masks")
    assert said.code == 2  # of the only image
    assert "has values [7], expected 0, 100 (benign), 200 (malignant)" in said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--engine", "onnx"], "engine 'onnx' cannot be compared with itself"),
        (["--limits", "nowhere.toml"], "nowhere.toml: the limits cannot be read (No such file or directory)"),
        (["--limits", "/dev/zero"], "/dev/zero: the limits cannot be read (it is a pipe, socket or device"),
        (["--images", "nowhere"], "nowhere does not exist"),
        (["--masks", "/"], "no mask is named like an image"),
        (["--masks", "/nope"], "/nope: does not exist; check --masks"),
        (["--masks", "/dev/null"], "/dev/null: is not a folder; check --masks"),
        (["--bundle", "nowhere"], "is not a bundle"),
        (["--engine", "auto"], "'auto' is not one of"),
        (["--patches", "7"], "7 is not in the range"),
    ],
)
def test_wrong_usage(gate: Any, bundle: Path, arguments: list[str], said: str) -> None:
    before = snapshot(bundle)
    refused = gate(*arguments)
    assert (refused.code, refused.out) == (2, "")
    assert said in refused.err
    assert snapshot(bundle) == before


def test_masks_without_images(cli: Cli, bundle: Path, candidate: Candidate, tmp_path: Path) -> None:
    arguments = ("--bundle", bundle, "--engine", "openvino", "--reference", "onnx", "--masks", tmp_path)
    refused = cli("gate", *arguments)
    assert (refused.code, "go with --images" in refused.err) == (2, True)


def test_the_demos_own_exam_where_no_images_are_named(
    cli: Cli, bundle: Path, image: Path, candidate: Candidate
) -> None:
    image.parent.rename(bundle.parent / "exam")
    outline(bundle.parent / "masks", image)
    said = cli("gate", "--bundle", bundle, "--engine", "openvino", "--reference", "onnx")
    assert said.code == 0, said.err
    assert "against the outlines, benign: Dice " in said.out


def test_an_exam_made_for_the_occasion(
    cli: Cli, bundle: Path, image: Path, candidate: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the bundle lies in no demo; a stand-in for `glam_export.demo.material`."""
    rooms = []

    def write_exam(exam: Path, masks: Path, seed: int) -> None:
        rooms.append((exam, seed))
        exam.mkdir()
        image.rename(exam / image.name)
        outline(masks, image)

    maker = SimpleNamespace(write_exam=write_exam)
    monkeypatch.setattr("glam_deploy.cli.gate_images.export_module", lambda name, *extras: maker)
    said = cli("gate", "--bundle", bundle, "--engine", "openvino", "--reference", "onnx")
    assert said.code == 0, said.err
    assert "against the outlines, benign: Dice " in said.out
    assert [(exam.exists(), seed) for exam, seed in rooms] == [(False, 0)]


def test_a_verdict_leaves_all_else_in_the_bundle(gate: Any, bundle: Path) -> None:
    before = snapshot(bundle)
    gate()
    gate()
    after = snapshot(bundle)
    assert {name for name in after if after[name] != before.get(name)} == {MANIFEST}
    old, new = (json.loads(shot[MANIFEST]) for shot in (before, after))
    assert {key: value for key, value in new.items() if key != "gates"} == old
    assert len(new["gates"]) == 1
    open_bundle(bundle).check()


def test_auto_takes_the_gated_engine_and_says_so(
    cli: Cli, gate: Any, bundle: Path, image: Path, tmp_path: Path
) -> None:
    run = ("run", image, "--bundle", bundle, "--out", tmp_path / "out", "--json")
    assert cli(*run).err == ""
    gate()
    said = cli(*run)
    assert said.err.startswith("auto selected openvino: ")
    provenance = json.loads(said.out)["provenance"]
    assert (provenance["engine"]["name"], provenance["auto"]) == ("openvino", said.err.strip())


# what is no verdict, and stores none


def test_a_folder_of_which_nothing_can_be_read_leaves_a_passed_verdict(
    gate: Any, image: Path, bundle: Path, tmp_path: Path
) -> None:
    assert gate().code == 0
    before = snapshot(bundle)
    (tmp_path / "scans").mkdir()
    image.rename(tmp_path / "scans/without_a_view.png")
    said = gate("--out", tmp_path / "gate", images=tmp_path / "scans")
    assert (said.code, said.out) == (2, "")
    assert (
        "no image was compared: 1 could not be read, 0 are not for this network; the first, without_a_view" in said.err
    )
    assert "No verdict is stored, and earlier ones stand. Check --images, --view and --masks" in said.err
    assert snapshot(bundle) == before
    assert gate("--view", "L-CC", images=tmp_path / "scans").code == 0


def test_some_images_that_cannot_be_read_do_not_revoke_a_passed_verdict(gate: Any, image: Path, bundle: Path) -> None:
    assert gate().code == 0
    before = snapshot(bundle)
    (image.parent / "2_R-CC.png").write_bytes(b"no PNG")
    said = gate(images=image.parent)
    assert said.code == 1
    assert "not stored, the earlier passed verdict stands" in said.out
    assert "Repair or remove the others, and run the gate again" in said.out
    assert snapshot(bundle) == before


def test_a_reference_that_fails_says_nothing_of_the_candidate(
    gate: Any, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gate().code == 0
    before = snapshot(bundle)
    monkeypatch.setenv("GLAM_TEST_NAN", "1")
    said = gate()
    assert said.code == 4
    assert "the reference engine failed, so there is no comparison and no verdict is stored" in said.err
    assert snapshot(bundle) == before


def test_ctrl_c_stores_nothing(gate: Any, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = snapshot(bundle)
    monkeypatch.setattr("glam_deploy.cli.gate.examine", press)
    said = gate()
    assert said.code == 130
    assert "0 of 1 images were compared; no verdict is stored, and earlier ones stand" in said.err
    assert snapshot(bundle) == before


def test_after_a_failure_nobody_is_sent_to_the_same_gate(
    cli: Cli, gate: Any, bundle: Path, image: Path, candidate: Candidate, tmp_path: Path
) -> None:
    candidate.wrong = {"saliency_patches": -0.2}
    advice = gate().out
    assert "The same gate would fail again: choose another engine" in advice
    refused = cli("run", image, "--bundle", bundle, "--engine", "openvino", "--out", tmp_path / "out")
    assert "The same gate would fail again: choose another engine" in refused.err
    assert "glam-deploy gate" not in refused.err


# outlines


@pytest.mark.parametrize("stray", [None, "9_L-CC_MASK.png"])
def test_masks_beside_png_images(gate: Any, image: Path, tmp_path: Path, stray: str | None) -> None:
    """x.png is no mask of its own, and x_mask.png no image."""
    outline(tmp_path / "masks", image)
    (tmp_path / "masks" / image.name).rename(image.with_stem(f"{image.stem}_mask"))
    if stray:
        (image.parent / stray).write_bytes(b"of an image that is not there")
    said = gate("--out", tmp_path / "gate", "--masks", image.parent, images=image.parent)
    assert said.code == 0, said.err
    (row,) = json.loads((tmp_path / "gate/gate.json").read_text())["images"]
    assert (row["image"], row["positive"]) == (image.name, {"benign": True, "malignant": False})


def test_one_mask_for_two_images_is_refused(gate: Any, image: Path, bundle: Path, tmp_path: Path) -> None:
    outline(tmp_path / "masks", image)
    (image.parent / "other").mkdir()
    (image.parent / "other" / image.name).write_bytes(image.read_bytes())
    said = gate("--masks", tmp_path / "masks", images=image.parent)
    assert said.code == 2
    assert f"{tmp_path / 'masks' / image.name} is named like two images" in said.err
    assert verdicts(bundle) == []


def test_a_mask_of_another_shape_is_named(gate: Any, image: Path, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    cv2.imwrite(str(tmp_path / "masks" / image.name), np.zeros((7, 9), np.uint8))
    said = gate("--masks", tmp_path / "masks")
    assert said.code == 2
    assert f"the mask {image.name} is [7, 9], expected a grey PNG of the image's" in said.err
    assert verdicts(bundle) == []


def test_standardized_images_are_those_that_run_takes(gate: Any, image: Path, tmp_path: Path) -> None:
    pixels = np.zeros((2944, 1920), np.uint16)
    pixels[500:1500, :900] = np.random.default_rng(2).integers(900, 3000, (1000, 900))
    (tmp_path / "cropped").mkdir()
    cv2.imwrite(str(tmp_path / "cropped/a_L-CC.png"), pixels)
    np.save(tmp_path / "cropped/b_L-CC.npy", ((pixels - pixels.mean()) / pixels.std()).astype(np.float32))
    said = gate("--standardized", images=tmp_path / "cropped")
    assert said.code == 0, said.err
    assert "engine openvino, 2 images" in said.out


# labelled sets


def write_vindr(folder: Path, malignant: str = "BI-RADS 4,100.0,200.0,160.0,260.0") -> Path:
    """VinDr-Mammo with one view, whose benign and malignant boxes overlap."""
    head = "b8d2,d931,d812,L,CC,512,384,BI-RADS 4,DENSITY C"
    pixels = small_view().pixels
    finding = f"{VINDR_FINDINGS}\n{head},['Mass'],{malignant},test\n{head},['Mass'],BI-RADS 3,90,190,160,260,test\n"
    (folder / "images/b8d2").mkdir(parents=True)
    (folder / "breast-level_annotations.csv").write_text(f"{VINDR_BREASTS}\n{head},test\n")
    (folder / "finding_annotations.csv").write_text(finding)
    write_view(folder / "images/b8d2/d812.dicom", pixels, view=View.L_CC, encoding=Encoding(bits_stored=16))
    return folder


def test_a_labelled_set_with_outlines_that_overlap(
    cli: Cli, bundle: Path, candidate: Candidate, tmp_path: Path
) -> None:
    folder = write_vindr(tmp_path / "vindr")
    gate = ("gate", "--bundle", bundle, "--engine", "openvino", "--reference", "onnx", "--out", tmp_path / "gate")
    said = cli(*gate, "--dataset", "vindr-mammo", folder, "--split", "test")
    assert said.code == 0, said.err
    assert "vindr-mammo: Labels are readings, not pathology: BI-RADS 4, 5 and 6 count as malignant" in said.err
    (row,) = json.loads((tmp_path / "gate/gate.json").read_text())["images"]
    assert row["image"] == "images/b8d2/d812.dicom"
    assert row["positive"] == {"benign": None, "malignant": True}
    assert set(row["truth"]) == {"benign", "malignant"}
    first, _ = verdicts(bundle)[0], write_vindr(tmp_path / "other", "BI-RADS 4,100.0,200.0,160.0,261.0")
    assert cli(*gate, "--dataset", "vindr-mammo", tmp_path / "other").code == 0
    hashes = {first["images_sha256"], verdicts(bundle)[-1]["images_sha256"]}
    assert len(hashes) == 2  # of the same pixels with another box


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--dataset", "ddsm", "."], "'ddsm' is not one of 'cbis-ddsm', 'inbreast'"),
        (["--dataset", "cmmd", "/nowhere"], "/nowhere does not exist"),
        (["--dataset", "cmmd", ".", "--view", "L-CC"], "--dataset has images, views and outlines of its own"),
        (["--split", "test"], "--split goes with --dataset"),
    ],
)
def test_a_labelled_set_that_is_none(
    cli: Cli, bundle: Path, candidate: Candidate, arguments: list[str], said: str
) -> None:
    found = cli("gate", "--bundle", bundle, "--engine", "openvino", "--reference", "onnx", *arguments)
    assert (found.code, found.out) == (2, "")
    assert said in found.err
