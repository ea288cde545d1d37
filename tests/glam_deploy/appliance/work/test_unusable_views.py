"""Views that cannot be used: what the reports say of them, and what follows when a usable version arrives."""

from contextlib import closing
from pathlib import Path

import gdcm
import pytest
from mammograms import transcode
from pydicom import Dataset, dcmread
from support.decoders import HANG_S, MISDEEDS, program
from support.jobs import config_of, database_of, made, pixels_of, receive, rows, send, worked

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.state import study_detail
from glam_deploy.decoding import view_reader
from glam_deploy.dicom.mammography import Exam, write_view
from glam_deploy.records import View


def reports(config: Config) -> list[Dataset]:
    """The CAD SR of each job, in order."""
    keys = rows(made(config), "SELECT key FROM job ORDER BY id")
    return [dcmread(made(config).job_results(str(key)) / "cad_sr.dcm") for (key,) in keys]


def summary(report: Dataset) -> str:
    """Value of the CAD Processing and Findings Summary."""
    (item,) = [each for each in report.ContentSequence if each.ConceptNameCodeSequence[0].CodeValue == "111017"]
    return str(item.ConceptCodeSequence[0].CodeValue)


def test_refused_view_keeps_its_side_and_view_in_the_cad_report(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    path = tmp_path / "refused.dcm"
    write_view(path, pixels_of(View.R_MLO), view=View.R_MLO, exam=Exam(seed="exam"))
    dataset = dcmread(path)
    dataset.BitsStored = 30
    dataset.save_as(path)
    send(config, View.L_CC)
    assert receive(config, path.read_bytes()).reason == ""
    worked(config)
    (report,) = made(config).root.glob("results/jobs/*/cad_sr.dcm")
    library = dcmread(report).ContentSequence[1].ContentSequence
    found = {
        tuple(each.ConceptCodeSequence[0].CodeValue for each in image.ContentSequence if "ConceptCodeSequence" in each)
        for image in library
    }
    right, mlo, left, cc = "73056007", "399368009", "80248007", "399162004"
    assert found == {(left, cc), (right, mlo)}
    assert rows(made(config), "SELECT view, state, outcome FROM instance JOIN job_view USING (sop_uid)") == [
        ("L-CC", "candidate", "done"),
        ("R-MLO", "refused", "failed"),
    ]


@pytest.mark.parametrize("misdeed", ["crashes", "hangs", "eats", "connects", "starts", "writes"])
def test_a_decoder_that_misbehaves_costs_its_view(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, misdeed: str
) -> None:
    """The job is done, with the other view of the study, and no attempt counts as lost."""
    limit = HANG_S if misdeed == "hangs" else 60
    config = config_of(tmp_path, f'[worker]\nbundle = "bundle"\nlongest_read_s = {limit}\n')
    send(config, View.R_CC, View.L_CC)
    ((path,),) = rows(made(config), "SELECT path FROM instance WHERE view = 'R-CC'")
    (tmp_path / "rights").mkdir()
    bad = program(tmp_path / "rights", {Path(str(path)).stem: misdeed})
    monkeypatch.setattr(view_reader, "_PROGRAM", bad)
    worked(config)
    assert rows(made(config), "SELECT state, attempts FROM job") == [("done", 0)]
    found = {view: (outcome, str(reason)) for view, outcome, reason in rows(made(config), OUTCOMES)}
    assert found["L-CC"][0] == "done"
    assert found["R-CC"][0] == "failed" and MISDEEDS[misdeed][1] in found["R-CC"][1]
    assert ("raise `longest_read_s`" in found["R-CC"][1]) == (misdeed == "hangs")
    assert not list((tmp_path / "rights").iterdir())


OUTCOMES = "SELECT view, outcome, job_view.reason FROM instance JOIN job_view USING (sop_uid)"


def test_whole_version_of_a_damaged_view_gets_a_superseding_result_set(tmp_path: Path) -> None:
    config, path = config_of(tmp_path), tmp_path / "view.dcm"
    write_view(path, pixels_of(View.L_CC), view=View.L_CC, exam=Exam(seed="exam"))
    whole = path.read_bytes()
    stream = transcode(path, gdcm.TransferSyntax.JPEGLSLossless).read_bytes()
    at = stream.index(b"\xff\xd8")
    assert receive(config, stream[:at] + bytes(200) + stream[at + 200 :]).reason == ""
    worked(config)
    assert rows(made(config), "SELECT outcome FROM job_view") == [("failed",)]
    assert receive(config, whole).reason == ""
    worked(config)
    assert rows(made(config), "SELECT predecessor, outcome FROM job JOIN job_view ON job_id = id ORDER BY id") == [
        (None, None),
        (1, "done"),
    ]
    with closing(database_of(made(config))) as connection:
        assert study_detail.failures(connection).views == [], "it is resolved"
    first, second = reports(config)
    no_algorithm_succeeded = "111245"
    assert summary(first) == no_algorithm_succeeded
    assert summary(second) != no_algorithm_succeeded
    replaced = second.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    assert replaced.ReferencedSOPInstanceUID == first.SOPInstanceUID
