"""Which objects, views and studies a worker's results are of: kinds of a target, routes, twins, rotated views."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from support.jobs import config_of, rows, send
from support.until import until
from support.working import BARE, ONE_TARGET, assemble, states, working

from glam_deploy.appliance.state import overview
from glam_deploy.dicom.acceptance import FOR_PRESENTATION, FOR_PROCESSING
from glam_deploy.dicom.results.kinds import KINDS
from glam_deploy.records import View


def test_a_target_gets_only_its_kinds_of_objects_and_they_are_of_the_classes_to_be_negotiated(tmp_path: Path) -> None:
    """Doctor negotiates by KINDS; the worker's files are the truth."""
    few = ONE_TARGET.replace("pacs", "few") + '\nobjects = ["cad_sr", "sc"]'
    none = ONE_TARGET.replace("pacs", "none") + '\nobjects = ["seg"]'
    config = config_of(tmp_path, ONE_TARGET, few, none, "[results]\nseg_fractional = true\ngsps = true")
    send(config, View.L_CC)
    assemble(config)
    with working(config) as data:
        until(lambda: states(data) == ["done"])
    files = {path.stem: dcmread(path) for path in data.root.glob("results/**/*.dcm")}
    found = {
        name: (each.file_meta.MediaStorageSOPClassUID, each.file_meta.TransferSyntaxUID) for name, each in files.items()
    }
    assert found == {name: (kind.sop_class, kind.transfer_syntax) for name, kind in KINDS.items()}

    def kinds(target: str) -> set[str]:
        paths = rows(data, "SELECT path FROM parcel_object WHERE target = ?", target)
        return {Path(str(path)).stem for (path,) in paths}

    assert (kinds("pacs"), kinds("few"), kinds("none")) == (set(KINDS), {"cad_sr", "sc"}, {"seg"})


def rotated(content: bytes) -> bytes:
    """An upright MLO view, stored rotated by 180 degrees."""
    dataset = dcmread(BytesIO(content))
    dataset.PixelData = dataset.pixel_array[::-1, ::-1].tobytes()
    dataset.PatientOrientation = ["A", "HR"] if dataset.ImageLaterality == "R" else ["P", "HL"]
    file = BytesIO()
    dataset.save_as(file)
    return file.getvalue()


@pytest.mark.parametrize("view", [View.L_MLO, View.R_MLO])
def test_a_view_stored_rotated_has_the_results_of_the_upright_one_turned(tmp_path: Path, view: View) -> None:
    config = config_of(tmp_path)
    send(config, view, exam="upright")
    send(config, view, exam="rotated", change=rotated)
    assemble(config)
    with working(config) as data:
        until(lambda: states(data) == ["done", "done"])
    found = rows(data, "SELECT folder FROM job_view JOIN job ON job.id = job_id ORDER BY job.id")
    folders = [data.root / str(folder) for (folder,) in found]
    reports = [json.loads((folder / "report.json").read_text()) for folder in folders]
    if reports[0]["preprocessing"]["half_turn"]:
        folders, reports = folders[::-1], reports[::-1]
    plain, turned = reports
    rows_, columns = plain["preprocessing"]["source_shape"]

    def turn(box: list[int]) -> list[int]:
        return [rows_ - box[2], columns - box[3], rows_ - box[0], columns - box[1]]

    assert [notice["code"] for notice in turned["warnings"]] == [
        "stored-rotated", *(notice["code"] for notice in plain["warnings"])]  # fmt: skip
    assert turned["predictions"] == plain["predictions"]
    boxes = [[patch["source_box"] for patch in report["patches"]] for report in reports]
    assert boxes[1] == [turn(box) for box in boxes[0]]
    upright, stored = (np.load(folder / "saliency.npz") for folder in folders)
    assert set(upright) == set(stored)
    for name in upright:
        np.testing.assert_array_equal(stored[name], upright[name])
    segments = [dcmread(folder / "seg.dcm").pixel_array for folder in folders]
    assert segments[0].any()
    np.testing.assert_array_equal(segments[1], segments[0][..., ::-1, ::-1])
    summaries = [json.loads((folder / "finding.json").read_text())["summary"] for folder in folders]
    regions = [
        sorted((each["label"], each["pixels"], each["box"]) for each in summary["regions"]) for summary in summaries
    ]
    assert regions[0]
    assert regions[1] == sorted((label, pixels, turn(box)) for label, pixels, box in regions[0])


def test_routes_decide_which_targets_get_a_study_and_which_study_is_not_processed(tmp_path: Path) -> None:
    other = ONE_TARGET.replace("pacs", "other")
    routes = '[[routes]]\nview = ["R-CC"]\ndiscard = true\n[[routes]]\ncalling_ae = ["modality"]\ntargets = ["other"]'
    config = config_of(tmp_path, ONE_TARGET, other, routes, BARE.replace("sr = false", "sr = true"))
    send(config, View.L_CC)
    assemble(config)
    with working(config) as data:
        until(lambda: states(data) == ["done"])
        assert rows(data, "SELECT target, state FROM parcel") == [("other", "pending")]
        send(config, View.L_CC, View.R_CC, exam="second")
        assemble(config)
        until(lambda: states(data) == ["done", "done"])
    assert rows(data, "SELECT DISTINCT outcome FROM job_view WHERE job_id = 2") == [("skipped",)]
    assert rows(data, "SELECT count(*) FROM parcel") == [(1,)]
    assert len(list((data.root / "results/jobs").iterdir())) == 1


def test_a_for_processing_twin_is_skipped_and_no_failure(tmp_path: Path) -> None:
    """PS3.16 TID 4000: algorithms that were not attempted are not mentioned in the summaries of a CAD SR."""
    config = config_of(tmp_path, ONE_TARGET)
    send(config, View.L_CC)
    send(config, View.L_CC, for_processing=True)
    assemble(config)
    with working(config) as data:
        until(lambda: states(data) == ["done"])
    outcomes = dict(rows(data, "SELECT sop_class, outcome FROM job_view JOIN instance USING (sop_uid)"))
    assert outcomes == {FOR_PRESENTATION: "done", FOR_PROCESSING: "skipped"}
    ((reason,),) = rows(data, "SELECT reason FROM job_view WHERE outcome = 'skipped'")
    assert "[accept] of the configuration" in str(reason) and "--" not in str(reason)
    with overview.open_read_only(data.database) as connection:
        assert set(overview.failures_by_code(connection).values()) == {0}
        assert overview.skipped(connection) == {"instance": 1, "view": 1}
    (report,) = (dcmread(path) for path in data.root.glob("results/jobs/*/cad_sr.dcm"))
    meanings = [element.value for element in report.iterall() if element.keyword == "CodeMeaning"]
    assert "Failed Detections" not in meanings
    assert any(meaning.startswith("All algorithms succeeded") for meaning in meanings)
    told = "".join(element.value for element in report.iterall() if element.keyword == "TextValue")
    assert "Not processed, because it is not meant for this network: the image is For Processing" in told
