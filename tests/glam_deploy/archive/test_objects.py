"""Files of an instance, made by a predictor with a real pipeline of tiny graphs; needs no Ray."""

import shutil
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from expected import need
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ImplicitVRLittleEndian
from support.commands import install_line, start_process
from support.engines import small_view
from support.tiny_bundle import write_tiny_bundle

import glam_deploy
from glam_deploy import installation
from glam_deploy.archive import objects, view_objects
from glam_deploy.archive.actors import EnginePlan, Predictor, PredictorFacts, Refusal, open_pipeline
from glam_deploy.archive.decoder import decode_here
from glam_deploy.archive.identifiers import Identifiers
from glam_deploy.archive.objects import NO_DICOM, ObjectPlan, prepared, withdraw
from glam_deploy.archive.reader import EntryReader
from glam_deploy.archive.rows import Finding, instance_id
from glam_deploy.archive.shipping import shipped
from glam_deploy.archive.sources import open_source
from glam_deploy.dicom.mammography import Exam, build_view, save
from glam_deploy.dicom.uids import is_uid
from glam_deploy.errors import UsageError
from glam_deploy.outputs.writer import named_arrays, write_npz
from glam_deploy.records import View

ALL = frozenset({"npz", "png", "seg", "sr"})
BOTH = frozenset({"seg", "sr"})
Edit = Callable[[Dataset], object]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> Predictor:
    one = Predictor(shipped(bundle), EnginePlan(engine="onnx"), open_pipeline)
    assert isinstance(one.open(None, None, ALL), PredictorFacts)
    return one


def write_view(path: Path, view: View = View.R_MLO, edit: Edit = lambda _: None) -> Path:
    """A mammogram with a bright spot, of a fictitious patient."""
    pixels = small_view().pixels
    if view.is_right:
        pixels = pixels[:, ::-1].copy()
    dataset = build_view(pixels, view=view, exam=Exam(patient_name="CANARY^NAME", patient_id="CANARY-ID"))
    edit(dataset)
    save(dataset, path)
    return path


def write_implicit(path: Path) -> Path:
    """Write a file again with implicit VR."""
    dataset = dcmread(path)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    dataset.save_as(path, implicit_vr=True, little_endian=True)
    return path


@dataclass(frozen=True)
class Written:
    finding: Finding
    instance: str
    plan: ObjectPlan

    def path(self, suffix: str) -> Path:
        return self.plan.path(self.instance, suffix)

    @property
    def names(self) -> set[str]:
        """Ends of the names of all files."""
        folder = self.plan.path(self.instance, "").parent
        return {path.name.removeprefix(self.instance) for path in folder.iterdir()} if folder.exists() else set()


def write(
    predictor: Predictor, path: Path, dest: Path, kinds: frozenset[str] = BOTH, *, ambiguous: bool = False
) -> Written:
    """Read a file as a reader does, and compute it as a predictor does."""
    source = open_source([str(path)])
    (entry,) = source.entries()
    fingerprint, view = EntryReader(source=source, headers=True).read(entry, decode_here)
    assert view is not None
    instance = instance_id(
        fingerprint.uids, fingerprint.sha256, entry.path, Identifiers(), has_view_of_name=fingerprint.has_view_of_name
    )
    dest.mkdir(exist_ok=True)
    plan = prepared(ObjectPlan(folder=dest / "objects/0123456789ab", kinds=kinds, ambiguous=ambiguous), dest)
    return Written(predictor.predict(view, instance, plan), instance, plan)


def test_the_segmentation_is_the_saliency_of_run_above_the_threshold(
    predictor: Predictor, bundle: Path, tmp_path: Path
) -> None:
    path = write_view(tmp_path / "a.dcm")
    made = write(predictor, path, tmp_path / "out", ALL)
    assert made.finding.status == "done" and made.names == {".npz", ".png", ".seg.dcm", ".sr.dcm"}
    result = glam_deploy.load(bundle, engine="onnx")(path)
    write_npz(tmp_path / "run.npz", named_arrays(result, full=True, save_input=False))
    with np.load(tmp_path / "run.npz") as arrays:
        expected = arrays["saliency_source"] > 0.5
    seg, image = hd.seg.segread(made.path(".seg.dcm")), dcmread(path)
    masks = seg.get_pixels_by_source_instance([image.SOPInstanceUID], segment_numbers=[1, 2])
    np.testing.assert_array_equal(np.moveaxis(masks[0], -1, 0).astype(bool), expected)
    assert expected.any() and not expected.all()
    assert (seg.Rows, seg.Columns) == (image.Rows, image.Columns) == (500, 400)
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == ["benign", "malignant"]


def test_both_belong_to_patient_and_study_and_refer_to_the_image(predictor: Predictor, tmp_path: Path) -> None:
    path = write_view(tmp_path / "a.dcm")
    made = write(predictor, path, tmp_path / "out")
    image, seg, sr = dcmread(path), dcmread(made.path(".seg.dcm")), dcmread(made.path(".sr.dcm"))
    for one in (seg, sr):
        assert (one.PatientName, one.PatientID) == ("CANARY^NAME", "CANARY-ID")
        assert one.StudyInstanceUID == image.StudyInstanceUID
        assert one.SeriesInstanceUID != image.SeriesInstanceUID and is_uid(one.SeriesInstanceUID)
        assert "Research use only" in one.SeriesDescription and one.InstanceNumber == 4
        assert one.DeviceUID == (tmp_path / "out/device.uid").read_text()
    assert (seg.SeriesNumber, sr.SeriesNumber) == (9001, 9006)
    (study,) = sr.CurrentRequestedProcedureEvidenceSequence
    referred = {ref.ReferencedSOPInstanceUID for s in study.ReferencedSeriesSequence for ref in s.ReferencedSOPSequence}
    assert referred == {image.SOPInstanceUID, seg.SOPInstanceUID}


def test_the_report_has_the_scores_of_the_row_and_no_score_of_an_exam(predictor: Predictor, tmp_path: Path) -> None:
    made = write(predictor, write_view(tmp_path / "a.dcm"), tmp_path / "out")
    sr = dcmread(made.path(".sr.dcm"))
    numbers, texts = {}, []
    waiting = [*sr.ContentSequence]
    while waiting:
        item = waiting.pop()
        waiting += item.get("ContentSequence", [])
        if item.ValueType == "NUM":
            numbers[item.ConceptNameCodeSequence[0].CodeValue] = float(item.MeasuredValueSequence[0].NumericValue)
        texts += [item.TextValue] if item.ValueType == "TEXT" else []
    for column, value in made.finding.scores.items():
        score, _, name = column.rpartition("_")
        assert numbers[f"{score}.{name[0]}"] == pytest.approx(value, rel=1e-5)
    assert not any("xam-level" in text for text in texts)
    assert any("R-MLO: Processed" in text for text in texts)


def uids(made: Written, *suffixes: str) -> list[tuple[str, str]]:
    found = [dcmread(made.path(suffix)) for suffix in suffixes]
    return [(one.SOPInstanceUID, one.SeriesInstanceUID) for one in found]


def test_the_same_image_and_settings_give_the_same_uids(predictor: Predictor, bundle: Path, tmp_path: Path) -> None:
    path, other = write_view(tmp_path / "a.dcm"), write_view(tmp_path / "b.dcm", View.L_CC)
    first = uids(write(predictor, path, tmp_path / "out"), ".seg.dcm", ".sr.dcm")
    again = Predictor(shipped(bundle), EnginePlan(engine="onnx"), open_pipeline)
    again.open(None, None)
    assert uids(write(again, path, tmp_path / "out"), ".seg.dcm", ".sr.dcm") == first
    assert uids(write(again, path, tmp_path / "elsewhere"), ".seg.dcm", ".sr.dcm") == first
    beside = uids(write(again, other, tmp_path / "out"), ".seg.dcm", ".sr.dcm")
    assert not {sop for sop, _ in first} & {sop for sop, _ in beside}
    assert [series for _, series in first] == [series for _, series in beside]  # of one study and one algorithm
    alone = uids(write(again, path, tmp_path / "alone", frozenset({"sr"})), ".sr.dcm")
    assert alone[0][0] != first[1][0]  # another object, because it refers to no segmentation

    more = Predictor(shipped(bundle), EnginePlan(engine="onnx", patches=2), open_pipeline)
    more.open(None, None)
    source = open_source([str(path)])
    (entry,) = source.entries()
    _, view = EntryReader(source=source, headers=True).read(entry, decode_here)
    assert view is not None
    plan = replace(write(again, path, tmp_path / "out").plan, folder=tmp_path / "out/objects/ba9876543210")
    more.predict(view, "ab" * 16, plan)
    assert dcmread(plan.path("ab" * 16, ".seg.dcm")).SeriesInstanceUID != first[0][1]


def test_the_header_is_passed_on_on_request_only(tmp_path: Path) -> None:
    def private(dataset: Dataset) -> None:
        dataset.add_new(0x00290010, "LO", "MAKER")
        dataset.add_new(0x00291001, "UN", b"private!")

    path = write_view(tmp_path / "a.dcm", edit=private)
    source = open_source([str(path)])
    (entry,) = source.entries()
    plain, asked = (
        EntryReader(source=source, headers=headers).read(entry, decode_here)[1] for headers in (False, True)
    )
    assert plain is not None and plain.header == b""
    assert asked is not None and path.read_bytes().startswith(asked.header) and len(asked.header) < 8192
    header = dcmread(BytesIO(asked.header))
    assert header.PatientID == "CANARY-ID" and header[0x00291001].value == b"private!" and "PixelData" not in header
    assert "CANARY" not in repr(asked)


def without_study(dataset: Dataset) -> None:
    del dataset.StudyInstanceUID


def test_an_image_without_a_study_says_why_it_has_no_object(predictor: Predictor, tmp_path: Path) -> None:
    Image.fromarray(small_view().pixels).save(tmp_path / "a_L-CC.png")
    for path in (tmp_path / "a_L-CC.png", write_view(tmp_path / "b.dcm", edit=without_study)):
        made = write(predictor, path, tmp_path / "out", ALL)
        assert made.finding.status == "done" and made.finding.notices[-1] == NO_DICOM
        assert made.names >= {".npz", ".png", ".no-dicom.txt"} and not made.path(".seg.dcm").exists()
        assert made.path(".no-dicom.txt").read_text() == f"{made.finding.reason}\n"
        assert "not DICOM, or its header has no UID" in made.finding.reason
        assert made.plan.is_complete(made.instance)
        made.path(".npz").unlink()
        assert not made.plan.is_complete(made.instance)
    plain = write(predictor, path, tmp_path / "plain", frozenset({"npz"}))
    assert NO_DICOM not in plain.finding.notices and plain.names == {".npz"}
    assert not (tmp_path / "plain/device.uid").exists()


def test_an_image_with_an_ambiguous_uid_has_its_other_files(predictor: Predictor, tmp_path: Path) -> None:
    path = write_view(tmp_path / "a.dcm")
    plain = write(predictor, path, tmp_path / "plain", ALL)
    made = write(predictor, path, tmp_path / "out", ALL, ambiguous=True)
    assert made.names == {".npz", ".png", ".no-dicom.txt"} and made.plan.is_complete(made.instance)
    assert made.path(".no-dicom.txt").read_text() == f"{made.finding.reason}\n"
    assert "has the same SOPInstanceUID" in made.finding.reason and made.finding.notices[-1] == NO_DICOM
    assert (made.finding.status, made.finding.scores) == ("done", plain.finding.scores)
    assert withdraw(plain.plan, plain.instance) and withdraw(plain.plan, plain.instance)
    assert plain.names == made.names
    assert plain.path(".no-dicom.txt").read_bytes() == made.path(".no-dicom.txt").read_bytes()


def test_a_header_that_cannot_be_copied_costs_no_result(predictor: Predictor, tmp_path: Path) -> None:
    """The image itself can be read, because decoding skips this element."""
    path = write_implicit(write_view(tmp_path / "a.dcm"))
    comments = b"CANARY " * 10_000  # as bytes, because pydicom refuses this length
    element = struct.pack("<HHL", 0x0010, 0x4000, len(comments)) + comments
    head, mark, rest = path.read_bytes().partition(struct.pack("<HH", 0x0018, 0x0015))
    path.write_bytes(head + element + mark + rest)
    made = write(predictor, path, tmp_path / "out")
    plain = write(predictor, path, tmp_path / "plain", frozenset({"npz"})).finding
    assert (made.finding.status, made.finding.scores) == ("done", plain.scores) and plain.reason == ""
    assert made.finding.notices == (*plain.notices, NO_DICOM) and made.names == {".no-dicom.txt"}
    assert "70000 bytes, expected up to 65536" in made.finding.reason and "CANARY" not in made.finding.reason


def test_a_fault_while_objects_are_made_costs_these_only(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("CANARY, made up for a test")

    path = write_view(tmp_path / "a.dcm")
    with monkeypatch.context() as patch:
        patch.setattr(objects, "overlay", broken)
        pictured = write(predictor, path, tmp_path / "out", ALL)
        assert (pictured.finding.status, pictured.finding.error) == ("failed", "InternalError")
        assert pictured.names == set() and not list((pictured.plan.folder / ".unfinished").iterdir())
    monkeypatch.setattr(view_objects, "measurement_report", broken)
    made = write(predictor, path, tmp_path / "out")
    assert made.finding.status == "done" and made.finding.scores and made.names == {".no-dicom.txt"}
    assert "a fault of glam-deploy" in made.finding.reason and "CANARY" not in made.finding.reason
    monkeypatch.undo()
    assert write(predictor, path, tmp_path / "out").names == {".seg.dcm", ".sr.dcm"}


def test_a_node_without_highdicom_is_refused_before_any_view(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = installation.is_installed
    monkeypatch.setattr(installation, "is_installed", lambda name: name != "highdicom" and known(name))
    one = Predictor(shipped(bundle), EnginePlan(engine="onnx"), open_pipeline)
    refusal = one.open(None, None, BOTH)
    assert isinstance(refusal, Refusal) and refusal.exit_code == 3
    assert "--write seg needs highdicom" in refusal.message and install_line("dicom") in refusal.message
    assert isinstance(one.open(None, None, frozenset({"npz"})), PredictorFacts)


def test_a_device_uid_that_was_damaged(tmp_path: Path) -> None:
    plan = ObjectPlan(folder=tmp_path / "objects/d", kinds=BOTH)
    first = prepared(plan, tmp_path).device_uid
    assert is_uid(first) and prepared(plan, tmp_path).device_uid == first
    (tmp_path / "device.uid").write_text("")
    with pytest.raises(UsageError, match=r"device\.uid has no UID: restore it"):
        prepared(plan, tmp_path)


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
import test_objects
from glam_deploy.archive import objects
from glam_deploy.archive.actors import EnginePlan, Predictor, open_pipeline
from glam_deploy.archive.shipping import shipped
from support.killed_steps import end_before

predictor = Predictor(shipped(Path(sys.argv[5])), EnginePlan(engine="onnx"), open_pipeline)
predictor.open(None, None)
test_objects.prepared(objects.ObjectPlan(folder=Path(), kinds=test_objects.BOTH), Path(sys.argv[2]))
end_before(int(sys.argv[3]), (os, "fsync"), (Path, "replace"))
test_objects.write(predictor, Path(sys.argv[1]), Path(sys.argv[2]))
os._exit(0)
"""
"""Ends without any clean-up before its n-th step."""


@pytest.mark.slow
def test_a_kill_leaves_whole_files_only(predictor: Predictor, bundle: Path, tmp_path: Path) -> None:
    path, ends = write_view(tmp_path / "a.dcm"), []
    whole = {suffix: write(predictor, path, tmp_path / "whole").path(suffix) for suffix in (".seg.dcm", ".sr.dcm")}
    for steps in range(8):
        dest = tmp_path / str(steps)
        dest.mkdir()
        process = start_process(path, dest, steps, Path(__file__).parent, bundle, code=KILLED)
        _, err = process.communicate()
        assert err == ""
        ends.append(process.returncode)
        found = [each for each in dest.rglob("*.dcm") if ".unfinished" not in each.parts]
        for file in found:
            (model,) = (one for suffix, one in whole.items() if file.name.endswith(suffix))
            assert dcmread(file).SOPInstanceUID == dcmread(model).SOPInstanceUID
            assert abs(file.stat().st_size - model.stat().st_size) < 64
        again = write(predictor, path, dest)
        assert again.names == {".seg.dcm", ".sr.dcm"} and not list((again.plan.folder / ".unfinished").iterdir())
    assert ends[:5] == [9] * 5 and ends[-1] == 0  # two files with two steps each, and the folder


@pytest.fixture(scope="module", params=["plain", "implicit", "japanese"])
def judged(request: pytest.FixtureRequest, predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Objects of an image for other people's programs."""

    def japanese(dataset: Dataset) -> None:
        dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
        dataset.PatientName, dataset.StudyDescription = "Yamada^Tarou=山田^太郎=やまだ^たろう", "乳房"

    folder = tmp_path_factory.mktemp(request.param)
    path = write_view(folder / "a.dcm", edit=japanese if request.param == "japanese" else lambda _: None)
    if request.param == "implicit":
        write_implicit(path)
    return write(predictor, path, folder / "out")


@pytest.mark.parametrize(("suffix", "iod"), [(".seg.dcm", "Segmentation"), (".sr.dcm", "ComprehensiveSR")])
def test_dciodvfy_finds_no_error(judged: Written, suffix: str, iod: str) -> None:
    need("dciodvfy", "dicom3tools" if shutil.which("dciodvfy") is None else "")
    command = ["dciodvfy", "-new", str(judged.path(suffix))]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stderr.splitlines()
    assert iod in told and [line for line in told if line.startswith("Error")] == []


def test_dcmftest_and_dsrdump_read_them(judged: Written) -> None:
    need("dcmtk", "dcmtk" if shutil.which("dsrdump") is None else "")
    seg, sr = str(judged.path(".seg.dcm")), str(judged.path(".sr.dcm"))
    told = subprocess.run(["dcmftest", seg, sr], capture_output=True, text=True, check=False)
    assert told.returncode == 0 and told.stdout.count("yes:") == 2
    shown = subprocess.run(["dsrdump", "+Pl", sr], capture_output=True, text=True, check=False)
    assert shown.returncode == 0 and "Research use only" in shown.stdout


def test_an_image_whose_class_is_in_the_header_of_the_file_only(predictor: Predictor, tmp_path: Path) -> None:
    """Both objects refer to the class that the image has (PS3.3 table 10-11: type 1)."""
    dataset = dcmread(path := write_view(tmp_path / "a.dcm"))
    del dataset.SOPClassUID
    dataset.save_as(path, enforce_file_format=False)
    made = write(predictor, path, tmp_path / "out")
    for suffix in (".seg.dcm", ".sr.dcm"):
        found = [one.value for one in dcmread(made.path(suffix)).iterall() if one.keyword == "ReferencedSOPClassUID"]
        assert DigitalMammographyXRayImageStorageForPresentation in found and "" not in found
