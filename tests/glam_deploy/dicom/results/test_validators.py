"""Every kind of object, judged by other people's programs: dicom3tools, dcmtk, PixelMed, and a viewer's own loader."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from expected import need
from mammograms import write_mg
from pydicom import dcmread
from pydicom.dataset import Dataset
from support.results import ALGORITHM, finding, identity, picture, saliency, study

from glam_deploy.dicom.results.cad_sr import cad_sr
from glam_deploy.dicom.results.measurement_report import measurement_report
from glam_deploy.dicom.results.objects import save
from glam_deploy.dicom.results.presentation_state import presentation_state
from glam_deploy.dicom.results.records import Algorithm
from glam_deploy.dicom.results.regions import summarize
from glam_deploy.dicom.results.secondary_capture import secondary_capture
from glam_deploy.dicom.results.segmentation import fractional_segmentation, segmentation
from glam_deploy.networks import CAM, GLAM, GMIC, NetworkSpec

ADAPTERS = Path(__file__).parent / "adapters"


def with_triage(algorithm: Algorithm) -> Algorithm:
    return replace(algorithm, triage_threshold=0.3)


OF_VIEWS = {
    "seg": lambda found, algorithm: segmentation(found, algorithm, identity(1)),
    "seg-fractional": lambda found, algorithm: fractional_segmentation(found, algorithm, identity(2)),
    "sc": lambda found, algorithm: secondary_capture(found, picture(), algorithm, identity(3)),
    "pr": lambda found, algorithm: presentation_state(
        found.source, summarize(found, algorithm, segmentation=None), algorithm, identity(5)
    ),
}
OF_STUDIES = {
    "cad": lambda outcomes, algorithm: cad_sr(outcomes, algorithm, identity(6)),
    "cad-probability": lambda outcomes, algorithm: cad_sr(outcomes, algorithm, identity(7), probability=True),
    "cad-skipped": lambda outcomes, algorithm: cad_sr(outcomes[3:], algorithm, identity(9)),
    "cad-triage": lambda outcomes, algorithm: cad_sr(outcomes, with_triage(algorithm), identity(10)),
    "sr": lambda outcomes, algorithm: measurement_report(outcomes, algorithm, identity(8)),
    "sr-triage": lambda outcomes, algorithm: measurement_report(outcomes, with_triage(algorithm), identity(11)),
}
IODS = {
    "seg": "Segmentation",
    "sc": "SCImage",
    "pr": "GrayscaleSoftcopyPresentationState",
    "cad": "MammographyCADSR",
    "sr": "ComprehensiveSR",
}
"""As dciodvfy calls them."""

JVM = (
    "-Djdk.xml.xpathTotalOpLimit=0 -Djdk.xml.xpathExprOpLimit=0 -Djdk.xml.xpathExprGrpLimit=0 -Djava.awt.headless=true"
)
"""DicomSRValidator's rules are larger than Java's XML parser lets them be by default."""

UNKNOWN_ROWS = (
    'Row 5] SCOORD (111030,DCM,"Image Region")',
    'Row 7] IMAGE (121214,DCM,"Referenced Segmentation Frame")',
)
"""What DicomSRValidator (of 2022) misses in measurement groups on whole images: it judges all groups of a report by one
template, here TID 1410 of planar regions, while these are of TID 1501, which has no region."""

BEYOND_DSRDUMP = ("template constraints not yet supported", "ISO 2022 IR 87")
"""What dsrdump says that it cannot check."""

WHOLE_IMAGES = ("1.10.1", "1.10.7", "1.10.8", "1.10.9")
"""Where the groups on whole images stand in the report on `support.results.study`: one of each view."""


def bare(dataset: Dataset) -> None:
    """As little as a source may have: type 2 elements empty or missing, a lossy past, stored as MONOCHROME1."""
    for keyword in ("PatientSex", "StudyID", "AccessionNumber", "ImagerPixelSpacing", "PatientOrientation"):
        del dataset[keyword]
    dataset.PatientBirthDate = dataset.StudyTime = ""
    dataset.LossyImageCompression, dataset.LossyImageCompressionRatio = "01", "12.5"
    dataset.LossyImageCompressionMethod = "ISO_10918_1"


def japanese(dataset: Dataset) -> None:
    dataset.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    dataset.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
    dataset.StudyDescription, dataset.PatientComments = "乳房", "乳房"


def plain_source(dataset: Dataset) -> None:
    """As `write_mg` makes it."""


SOURCES = {
    "plain": (plain_source, GLAM),
    "bare": (bare, GLAM),
    "japanese": (japanese, GLAM),
    "gmic": (plain_source, GMIC),
    "cam": (plain_source, CAM),
}
SIX_BOXES = [(0, 0, 50, 50), (10, 10, 60, 60), (0, 8, 50, 58), None, (46, 20, 96, 70), (20, 0, 70, 50)]
SCORES = {"benign": 0.25, "malignant": 0.75}
FINDINGS: dict[NetworkSpec, dict[str, Any]] = {
    GLAM: {},
    GMIC: {"boxes": SIX_BOXES, "scores": dict.fromkeys(GMIC.scores, SCORES)},
    CAM: {"boxes": [], "scores": dict.fromkeys(CAM.scores, SCORES)},
}
"""What the result of a network has: GMIC six patches and three scores, CAM no patch and one score."""


@pytest.fixture(scope="module", params=SOURCES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file of each kind of object, by name."""
    return write_all(tmp_path_factory.mktemp(request.param), *SOURCES[request.param])


@pytest.fixture(scope="module", params=FINDINGS, ids=lambda network: network.name)
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same, of a source without particulars, by each network."""
    return write_all(tmp_path_factory.mktemp("plain"), plain_source, request.param)


def write_all(folder: Path, edit: Callable[[Dataset], object], network: NetworkSpec) -> dict[str, Path]:
    source = write_mg(folder / "source.dcm", edit, photometric="MONOCHROME1")
    algorithm, changes = replace(ALGORITHM, network=network), FINDINGS[network]
    objects = {name: write(finding(source, **changes), algorithm) for name, write in OF_VIEWS.items()}
    objects |= {name: write(study(folder, edit, algorithm, **changes), algorithm) for name, write in OF_STUDIES.items()}
    for name, dataset in objects.items():
        save(dataset, folder / name)
    return {name: folder / name for name in objects} | {"source": source}


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, env=os.environ | environment
    )


@pytest.mark.parametrize("kind", [*OF_VIEWS, *OF_STUDIES])
def test_dciodvfy_finds_no_error(made: dict[str, Path], kind: str) -> None:
    need("dciodvfy", "dicom3tools" if shutil.which("dciodvfy") is None else "")
    told = run("dciodvfy", "-new", made[kind]).stderr.splitlines()
    assert IODS[kind.split("-", maxsplit=1)[0]] in told
    assert [line for line in told if line.startswith("Error")] == []


@pytest.mark.parametrize("kind", [*OF_VIEWS, *OF_STUDIES])
def test_dcmdump_shows_the_network_in_the_titles(
    plain: dict[str, Path], kind: str, request: pytest.FixtureRequest
) -> None:
    need("dcmtk", "dcmtk" if shutil.which("dcmdump") is None else "")
    name = request.node.callspec.params["plain"].title
    told = run("dcmdump", "+P", "SeriesDescription", "+P", "ContentDescription", plain[kind]).stdout
    others = {network.title for network in FINDINGS} - {name}
    assert name in told and not any(other in told for other in others)


@pytest.mark.parametrize("kind", OF_STUDIES)
def test_dsrdump_reads_it_without_a_complaint(made: dict[str, Path], kind: str) -> None:
    need("dcmtk", "dcmtk" if shutil.which("dsrdump") is None else "")
    told = run("dsrdump", "+Pl", made[kind])
    assert [line for line in told.stderr.splitlines() if not any(said in line for said in BEYOND_DSRDUMP)] == []
    assert told.returncode == 0 and "Research use only" in told.stdout and "the view is a magnification" in told.stdout


@pytest.mark.parametrize("kind", OF_STUDIES)
def test_dcsrdump_reads_all_of_it(made: dict[str, Path], kind: str) -> None:
    need("dciodvfy", "dicom3tools" if shutil.which("dcsrdump") is None else "")
    told = run("dcsrdump", made[kind])
    assert told.returncode == 0 and "Error" not in told.stdout + told.stderr
    assert "the view is a magnification" in told.stdout + told.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", OF_STUDIES)
def test_pixelmed_finds_no_error_but_those_known(plain: dict[str, Path], kind: str) -> None:
    need("pixelmed", "pixelmed-apps" if shutil.which("DicomSRValidator") is None else "")
    options = ("-checktemplateid", "-checkcontentitemorder")
    told = run("DicomSRValidator", *options, plain[kind], JAVA_TOOL_OPTIONS=JVM)
    lines = (told.stdout + told.stderr).splitlines()
    assert "Root Template Validation Complete" in lines and "IOD validation complete" in lines
    errors = [line for line in lines if line.startswith("Error")]
    assert len(errors) == len(UNKNOWN_ROWS) * (len(WHOLE_IMAGES) if kind in ("sr", "sr-triage") else 0), errors
    for line in errors:
        assert any(f"{row}: within {place}:" in line for row in UNKNOWN_ROWS for place in WHOLE_IMAGES), line


def test_adapters_of_a_viewer_count_the_pixels_that_numpy_counts(plain: dict[str, Path]) -> None:
    need("adapters", "node" if shutil.which("node") is None else "")
    need("adapters", "" if (ADAPTERS / "node_modules").is_dir() else "`npm ci` in tests/.../results/adapters")
    image = dcmread(plain["source"], stop_before_pixels=True)
    keywords = ("SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "Rows", "Columns")
    source = json.dumps({keyword: getattr(image, keyword) for keyword in keywords})
    told = run("node", ADAPTERS / "load.mjs", plain["seg"], source)
    assert told.returncode == 0, told.stderr
    counted = (saliency() > 0).sum(axis=(1, 2)).tolist()
    assert json.loads(told.stdout) == {
        "counts": {"1": counted[0], "2": counted[1]},
        "labels": [None, "benign", "malignant"],
    }
