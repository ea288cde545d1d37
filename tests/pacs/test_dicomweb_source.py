"""A DICOMweb source against Debian's Orthanc: every mammogram as it was uploaded, byte for byte, and nothing else."""

from pathlib import Path

import pytest
from mammograms import write_mg
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from support.orthanc import USER, Orthanc

from glam_deploy.archive.sources import open_source
from glam_deploy.archive.sources.base import SourceUnavailable
from glam_deploy.dicom.net import wado
from glam_deploy.errors import InputError


def test_orthanc(pacs: Orthanc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def edit(modality: str, study: str) -> object:
        def change(dataset: Dataset) -> None:
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.Modality = study, generate_uid(), modality
            dataset.SOPInstanceUID = generate_uid()
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID

        return change

    studies = [generate_uid() for _ in range(3)]
    files = [write_mg(tmp_path / f"{n}.dcm", edit("MG", study)) for n, study in enumerate(studies * 2)]
    others = [write_mg(tmp_path / "other.dcm", edit("OT", studies[0]))]
    pacs.upload([*files, *others])
    monkeypatch.setattr(wado, "PAGE", 2)
    monkeypatch.setenv("GLAM_DICOMWEB_USER", USER[0])
    monkeypatch.setenv("GLAM_DICOMWEB_PASSWORD", USER[1])
    source = open_source([f"dicomweb+{pacs.dicomweb}"])
    entries = list(source.entries())
    assert len({entry.location for entry in entries}) == len(entries) == len(files)
    assert sorted(source.read(entry) for entry in entries) == sorted(file.read_bytes() for file in files)
    gone = entries[0]
    pacs.delete_all()
    with pytest.raises(InputError, match="404"):
        source.read(gone)
    monkeypatch.setenv("GLAM_DICOMWEB_PASSWORD", "wrong")
    with pytest.raises(SourceUnavailable, match="401"):
        list(open_source([f"dicomweb+{pacs.dicomweb}"]).entries())
