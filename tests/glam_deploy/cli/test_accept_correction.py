"""`queue accept-correction`: a later version of an image takes the place of the stored one, and results follow."""

import json
from contextlib import closing
from io import BytesIO
from pathlib import Path

from pydicom import dcmread
from support.commands import Cli
from support.jobs import config_of, database_of, made, pixels_of, receive, rows, worked

from glam_deploy.appliance.ingest import Status
from glam_deploy.dicom.mammography import Exam, write_view
from glam_deploy.records import View

CONFIG = 'license_acknowledged = true\ndata = "data"\n[worker]\nbundle = "bundle"\n[receive]\nreserve_bytes = 0\n'
TARGET = '[[targets]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 104'


def corrected(path: Path, **elements: str) -> bytes:
    write_view(path, pixels_of(View.L_CC), view=View.L_CC, exam=Exam())
    dataset = dcmread(path)
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    out = BytesIO()
    dataset.save_as(out)
    return out.getvalue()


def test_accepted_demographics_get_a_superseding_result_set(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "glam.toml").write_text(f"{CONFIG}{TARGET}\n")
    config, data = config_of(tmp_path, TARGET), made(config_of(tmp_path, TARGET))
    study, queue = str(Exam().uid("study")), lambda *words: cli("queue", *words, "--config", tmp_path / "glam.toml")
    assert receive(config, corrected(tmp_path / "a.dcm")).status == Status.SUCCESS
    worked(config)
    assert receive(config, corrected(tmp_path / "a.dcm", PatientID="MERGED")).status == Status.UID_COLLISION
    shown = queue("show", study)
    assert "version 1  L-CC  quarantine: equal pixels, but other PatientID" in shown.out
    assert json.loads(queue("show", study, "--json").out)[0]["versions"][0]["replaced"] == 0

    assert queue("accept-correction", study, "--version", 9).code == 2
    said = queue("accept-correction", study, "--yes")
    assert (said.code, said.out) == (0, "version 1 of L-CC accepted\n")
    assert rows(data, "SELECT state FROM parcel") == [("discarded",)], "what was not delivered is withdrawn"
    worked(config)
    assert rows(data, "SELECT state, predecessor FROM job") == [("done", None), ("done", None)]
    (parcel,) = rows(data, "SELECT id, state FROM parcel WHERE state = 'pending'")
    paths = rows(data, "SELECT path FROM parcel_object WHERE parcel_id = ? AND state = 'pending'", parcel[0])
    assert len(paths) == 4
    assert {dcmread(data.root / str(path)).PatientID for (path,) in paths} == {"MERGED"}

    # delivered now, then the first version is restored: the reports replace the second ones
    with closing(database_of(data)) as connection:
        connection.execute("UPDATE parcel SET state = 'delivered' WHERE state = 'pending'")
        connection.execute("UPDATE parcel_object SET state = 'proven' WHERE state = 'pending'")
    assert queue("accept-correction", study, "--yes").code == 1, "none waits for a decision"
    (number,) = rows(data, "SELECT id FROM quarantine WHERE replaced")
    assert queue("accept-correction", study, "--version", number[0], "--yes").code == 0
    worked(config)
    assert rows(data, "SELECT predecessor FROM job ORDER BY id DESC LIMIT 1") == [(2,)]
    assert rows(data, "SELECT count(DISTINCT key), count(*) FROM job") == [(3, 3)]
    (last,) = rows(data, "SELECT key FROM job ORDER BY id DESC LIMIT 1")
    report = dcmread(data.job_results(str(last[0])) / "cad_sr.dcm")
    assert report.PatientID == "PHANTOM"
    replaced = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    second = rows(data, "SELECT key FROM job WHERE id = 2")[0][0]
    assert replaced.ReferencedSOPInstanceUID == dcmread(data.job_results(str(second)) / "cad_sr.dcm").SOPInstanceUID
    told = [json.loads(line)["event"] for path in data.audit.iterdir() for line in path.read_text().splitlines()]
    assert told.count("correction_accepted") == 2
