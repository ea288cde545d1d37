"""A peer that lacks SOP classes: dcmtk's storescp with a configuration that accepts few of them."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from pacs.appliance import Appliance
from pacs.exams import write_exam
from pacs.senders import storescu
from pydicom import dcmread
from pydicom.uid import (
    ComprehensiveSRStorage,
    MammographyCADSRStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]
from support.orthanc import free_port, wait_for

from glam_deploy.records import View

FEW = (SecondaryCaptureImageStorage, MammographyCADSRStorage, ComprehensiveSRStorage)


@contextmanager
def storescp(folder: Path, port: int, classes: Sequence[str]) -> Iterator[Path]:
    """A peer that accepts these storage classes, uncompressed; the folder of what it has received."""
    contexts = "\n".join(
        f"PresentationContext{n} = {uid}\\Plain" for n, uid in enumerate((Verification, *classes), start=1)
    )
    folder.mkdir()
    (folder / "storescp.cfg").write_text(
        "[[TransferSyntaxes]]\n[Plain]\nTransferSyntax1 = LittleEndianExplicit\nTransferSyntax2 = "
        f"LittleEndianImplicit\n[[PresentationContexts]]\n[Few]\n{contexts}\n[[Profiles]]\n[Few]\n"
        "PresentationContexts = Few\n"
    )
    received = folder / "received"
    received.mkdir()
    command = [
        "storescp",
        "-aet",
        "STORESCP",
        "-xf",
        str(folder / "storescp.cfg"),
        "Few",
        "-od",
        str(received),
        str(port),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        echo = ["echoscu", "127.0.0.1", str(port)]
        wait_for(lambda: subprocess.run(echo, capture_output=True, check=False).returncode == 0, "storescp to listen")
        yield received
    finally:
        process.kill()
        process.wait()


def classes_in(folder: Path) -> list[str]:
    return sorted(str(dcmread(path, specific_tags=["SOPClassUID"]).SOPClassUID) for path in folder.iterdir())


def command(appliance: Appliance, *words: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "glam_deploy", *words, "--config", str(appliance.config)]
    return subprocess.run(program, capture_output=True, text=True, check=False)


@pytest.fixture
def appliance(bundle: Path, tmp_path: Path) -> Iterator[Appliance]:
    target = {"name": "viewer", "ae_title": "STORESCP", "host": "127.0.0.1", "port": free_port(), "query": False}
    served = Appliance(
        folder=tmp_path / "appliance",
        bundle=bundle,
        targets=[target],
        settings={"dispatch": {"first_retry_s": 0.2, "longest_retry_s": 0.2, "attempts": 2}},
    )
    served.start()
    yield served
    assert served.stop() in (0, 143)


def test_a_viewer_without_segmentations(appliance: Appliance, tmp_path: Path) -> None:
    assert shutil.which("storescp")
    port = int(str(appliance.targets[0]["port"]))
    with storescp(tmp_path / "few", port, FEW) as received:
        found = {each["what"]: each for each in json.loads(command(appliance, "doctor", "--json").stdout)}
        assert found["target viewer"]["state"] == "FAILS"
        assert found["target viewer"]["found"].endswith("does not accept from GLAM: Segmentation Storage")
        assert 'objects = ["cad_sr", "sr", "sc"]' in found["target viewer"]["remedy"]
        storescu(appliance, write_exam(tmp_path / "exam", "restricted", [View.L_CC, View.R_CC]))
        wait_for(lambda: appliance.count("SELECT count(*) FROM parcel WHERE state = 'dead'"), "its attempts to end")
        arrived = classes_in(received)
    assert arrived == sorted([*FEW, SecondaryCaptureImageStorage])
    (parcel,) = appliance.rows("SELECT * FROM parcel")
    assert parcel["reason"].startswith(
        "4 of 6 objects delivered, 2 not (2 seg): the target accepts no Segmentation Storage"
    )
    (study,) = (row["pseudonym"] for row in appliance.rows("SELECT pseudonym FROM study"))
    assert f"    viewer: {parcel['reason']}" in command(appliance, "queue", "list").stdout.splitlines()
    shown = command(appliance, "queue", "show", study).stdout
    assert f"to viewer  dead, 4 of 6 objects, 2 attempts: {parcel['reason']}" in shown
    assert "    2 sc accepted" in shown
    assert "    2 seg not delivered: the target accepts no Segmentation Storage" in shown
    assert parcel["reason"].partition("(")[0] in appliance.get(f"/study/{study}").text
    metrics = appliance.get("/metrics").text.splitlines()
    assert 'glam_undelivered_objects{state="missing",target="viewer"} 2.0' in metrics
    assert 'glam_undelivered_objects{state="arrived",target="viewer"} 4.0' in metrics

    with storescp(tmp_path / "all", port, (*FEW, SegmentationStorage)) as received:
        found = {each["what"]: each for each in json.loads(command(appliance, "doctor", "--json").stdout)}
        assert "accepts seg, cad_sr, sr, sc" in found["target viewer"]["found"]
        assert command(appliance, "queue", "retry", study).returncode == 0
        appliance.wait_idle()
        assert classes_in(received) == [SegmentationStorage] * 2
    assert [row["state"] for row in appliance.rows("SELECT state FROM parcel")] == ["delivered"]
