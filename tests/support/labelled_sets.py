"""Small copies of public labelled sets: names, columns, quoting, line ends and headers as their documentation has them.

The pixels are those of `mammograms.breast`, [96, 70].
"""

import plistlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from mammograms import breast, write_mg
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

from glam_deploy.records import Pixels, View

CBIS_MASS = (
    "patient_id,breast_density,left or right breast,image view,abnormality id,abnormality type,mass shape,mass margins,"
    "assessment,pathology,subtlety,image file path,cropped image file path,ROI mask file path"
)
CBIS_CALC = (
    "patient_id,breast density,left or right breast,image view,abnormality id,abnormality type,calc type,"
    "calc distribution,assessment,pathology,subtlety,image file path,cropped image file path,ROI mask file path"
)
INBREAST = "Patient ID;Patient age;Laterality;View;Acquisition date;File Name;ACR;Bi-Rads"
VINDR_BREASTS = "study_id,series_id,image_id,laterality,view_position,height,width,breast_birads,breast_density,split"
VINDR_FINDINGS = (
    "study_id,series_id,image_id,laterality,view_position,height,width,breast_birads,breast_density,"
    "finding_categories,finding_birads,xmin,ymin,xmax,ymax,split"
)
CMMD = "ID1,LeftRight,Age,number,abnormality,classification,subtype"


def write_capture(path: Path, pixels: Pixels, *, series: str = "full mammogram images") -> Path:
    """A secondary capture as MATLAB's dicomwrite makes it: no view, no presentation intent, Modality MG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset, bits = Dataset(), 8 * pixels.itemsize
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.Modality, dataset.ConversionType, dataset.SeriesDescription = "MG", "WSD", series
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.save_as(path, enforce_file_format=True)
    return path


def film() -> Pixels:
    """uint16 [96, 70]: a left breast of 16 bits with a white label outside it."""
    pixels = breast(View.L_CC, bits=16)
    pixels[4:8, 55:65] = 65535
    return pixels


def mask(rows: slice, columns: slice, shape: tuple[int, int] = (96, 70)) -> Pixels:
    """uint8, 255 in a rectangle."""
    pixels = np.zeros(shape, np.uint8)
    pixels[rows, columns] = 255
    return pixels


def write_lines(path: Path, lines: Sequence[str], *, end: str = "\r\n", encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}{end}" for line in lines).encode(encoding))
    return path


def write_outlines(path: Path, rois: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> Path:
    """A property list of OsiriX. `rois`: name and points (x, y)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = [
        {"Name": name, "NumberOfPoints": len(points), "Point_px": [f"({x:.6f}, {y:.6f})" for x, y in points]}
        for name, points in rois
    ]
    image = {"ImageIndex": 0, "NumberOfROIs": len(found), "ROIs": found}
    path.write_bytes(plistlib.dumps({"Images": [image]}))
    return path


def write_digital(path: Path, *, view: View = View.L_CC, values: Mapping[str, object] | None = None) -> Path:
    """A mammogram for presentation; `values`: keyword -> value that replaces the written one, None deletes it."""

    def edit(dataset: Dataset) -> None:
        for keyword, value in (values or {}).items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)

    path.parent.mkdir(parents=True, exist_ok=True)
    return write_mg(path, edit, view=view)
