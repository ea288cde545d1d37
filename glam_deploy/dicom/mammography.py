"""Writer of mammograms: standard-conformant MG objects of a fictitious patient, for demos, tests and commissioning."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from glam_deploy.dicom import acceptance, terms
from glam_deploy.dicom.pixels import UNCOMPRESSED
from glam_deploy.errors import DicomError
from glam_deploy.records import Pixels, View

IMPLEMENTATION_UID = UID("1.2.826.0.1.3680043.8.498.45787841905473114233124723359129632652")
"""ImplementationClassUID of all files written, under the UID root of pydicom."""

PIXEL_SPACING_MM = 0.07


@dataclass(frozen=True, kw_only=True)
class Exam:
    """A fictitious examination: the same `seed` gives the same UIDs, so views of one exam share their study."""

    seed: str = "phantom"
    patient_name: str = "PHANTOM^GLAM"
    patient_id: str = "PHANTOM"
    date: str = "20200101"
    """Study and content date, YYYYMMDD."""
    series_per_view: bool = False
    """One series for each view instead of one for all."""

    def uid(self, *part: str) -> UID:
        """The UID of a part of this exam, such as ("series", "L-CC")."""
        return generate_uid(entropy_srcs=[self.seed, *part])


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How an image is stored."""

    photometric: str = "MONOCHROME2"
    """MONOCHROME2, or MONOCHROME1 with pixels stored inverted within `bits_stored`."""
    bits_stored: int = 12


def write_view(
    path: Path,
    pixels: Pixels,
    *,
    view: View,
    exam: Exam | None = None,
    encoding: Encoding | None = None,
    for_processing: bool = False,
    transfer_syntax: UID = ExplicitVRLittleEndian,
) -> None:
    """Write `pixels` as a DICOM file from which `read.read_view` reads the same pixels.

    Other arguments as for `build_view`. `transfer_syntax` is uncompressed (little or big endian, deflated) or lossless:
    RLE, JPEG-LS, JPEG 2000.
    """
    dataset = build_view(pixels, view=view, exam=exam, encoding=encoding, for_processing=for_processing)
    save(dataset, path, transfer_syntax=transfer_syntax)


def build_view(
    pixels: Pixels,
    *,
    view: View,
    exam: Exam | None = None,
    encoding: Encoding | None = None,
    for_processing: bool = False,
) -> Dataset:
    """One view as a Digital Mammography X-Ray Image (PS3.3 A.27), little endian, with file meta.

    `pixels`: uint8 or uint16 [rows, columns], brighter is denser, background 0, oriented as stored: a left breast
    faces right, a right one faces left. Raises DicomError if the values do not fit `encoding`.
    """
    exam, encoding = exam or Exam(), encoding or Encoding()
    dataset = Dataset()
    _add_exam(dataset, exam, view)
    _add_object(dataset, exam, view, for_processing)
    _add_view(dataset, view)
    _add_pixels(dataset, pixels, encoding)
    if not for_processing:
        _add_window(dataset, encoding)
    dataset.file_meta = _file_meta(dataset)
    return dataset


def save(dataset: Dataset, path: Path, *, transfer_syntax: UID = ExplicitVRLittleEndian) -> None:
    """Encode the pixels of `dataset`, made by `build_view`, in `transfer_syntax` and write it; changes `dataset`.

    Raises OSError, with its number: that of pydicom, where it opens the file itself, has none.
    """
    if transfer_syntax not in UNCOMPRESSED:
        dataset.compress(transfer_syntax, generate_instance_uid=False)
    elif not transfer_syntax.is_little_endian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, f"<u{dataset.BitsAllocated // 8}").byteswap().tobytes()
    dataset.file_meta.TransferSyntaxUID = transfer_syntax
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    path.write_bytes(file.getvalue())


def _file_meta(dataset: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    return meta


def _add_exam(dataset: Dataset, exam: Exam, view: View) -> None:
    """Patient, General Study, General Series, General Equipment."""
    dataset.PatientName, dataset.PatientID = exam.patient_name, exam.patient_id
    dataset.PatientBirthDate, dataset.PatientSex = "", "F"
    dataset.StudyInstanceUID, dataset.StudyID = exam.uid("study"), "1"
    dataset.StudyDate, dataset.StudyTime = exam.date, "120000"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "", ""
    series = view.value if exam.series_per_view else "all"
    dataset.SeriesInstanceUID = exam.uid("series", series)
    dataset.SeriesNumber = list(View).index(view) + 1 if exam.series_per_view else 1
    dataset.Manufacturer, dataset.ManufacturerModelName = "glam-deploy", "phantom"


def _add_object(dataset: Dataset, exam: Exam, view: View, for_processing: bool) -> None:
    """SOP Common, DX and Mammography Series, General Image, Acquisition Context."""
    dataset.SOPClassUID = acceptance.FOR_PROCESSING if for_processing else acceptance.FOR_PRESENTATION
    intent = "FOR PROCESSING" if for_processing else "FOR PRESENTATION"
    dataset.SOPInstanceUID = exam.uid("image", view.value, intent)
    dataset.Modality, dataset.PresentationIntentType = "MG", intent
    dataset.InstanceNumber = list(View).index(view) + 1
    dataset.ContentDate = dataset.AcquisitionDate = exam.date
    dataset.ContentTime = dataset.AcquisitionTime = "120000"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", ""]
    dataset.AcquisitionContextSequence = []


def _add_view(dataset: Dataset, view: View) -> None:
    """DX Anatomy Imaged, Mammography Image, DX Detector, and the orientation of an upright view."""
    dataset.ImageLaterality = "R" if view.is_right else "L"
    medial = "L" if view.is_right else "R"
    dataset.PatientOrientation = ["P" if view.is_right else "A", "F" if view.is_mlo else medial]
    term = terms.MLO if view.is_mlo else terms.CC
    dataset.ViewCodeSequence = [_coded(term.sct, term.meaning)]
    dataset.ViewCodeSequence[0].ViewModifierCodeSequence = []
    dataset.AnatomicRegionSequence = [_coded("76752008", "Breast")]
    dataset.BodyPartExamined, dataset.OrganExposed = "BREAST", "BREAST"
    dataset.BreastImplantPresent, dataset.PartialView = "NO", "NO"
    dataset.PositionerType, dataset.DetectorType = "MAMMOGRAPHIC", "DIRECT"
    dataset.ImagerPixelSpacing = [PIXEL_SPACING_MM, PIXEL_SPACING_MM]


def _coded(code: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code, "SCT", meaning
    return item


def _add_pixels(dataset: Dataset, pixels: Pixels, encoding: Encoding) -> None:
    """Image Pixel and DX Image (PS3.3 C.8.11.3)."""
    top = (1 << encoding.bits_stored) - 1
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim != 2 or pixels.max(initial=0) > top:
        raise DicomError(
            f"pixels are {pixels.dtype} {pixels.shape} with values up to {pixels.max(initial=0)}, expected uint8 or "
            f"uint16 [rows, columns] with values up to {top}: convert them or increase bits_stored"
        )
    inverted = encoding.photometric == "MONOCHROME1"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, encoding.photometric
    dataset.BitsAllocated, dataset.BitsStored = 8 * pixels.itemsize, encoding.bits_stored
    dataset.HighBit, dataset.PixelRepresentation = encoding.bits_stored - 1, 0
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", 1 if inverted else -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.PresentationLUTShape = "INVERSE" if inverted else "IDENTITY"
    dataset.BurnedInAnnotation, dataset.LossyImageCompression = "NO", "00"
    stored = top - pixels if inverted else pixels
    data = stored.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"


def _add_window(dataset: Dataset, encoding: Encoding) -> None:
    """VOI LUT, required in a For Presentation image: a window over the whole range."""
    dataset.WindowCenter = 1 << (encoding.bits_stored - 1)
    dataset.WindowWidth = 1 << encoding.bits_stored
