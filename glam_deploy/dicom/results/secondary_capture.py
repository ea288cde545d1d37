"""Overlay picture -> Secondary Capture image (PS3.3 A.8.1), with the banner burned in."""

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGLSLossless, SecondaryCaptureImageStorage

from glam_deploy.dicom.results.objects import coded, finished, statement
from glam_deploy.dicom.results.records import BANNER, Algorithm, Identity, ViewFinding
from glam_deploy.dicom.results.source import Source, read_source

BANNER_HEIGHT = 48
"""Height in pixels of the strip above the picture, independent of its size, so that the text is always legible."""

_TEXT_HEIGHT = 28
_LONGEST = 4
"""Largest number of encoded bytes per byte: a code has up to 32 bits (ITU-T T.87, LIMIT for 8 bits)."""
_MARKERS = 4096
"""Upper limit of the bytes of all markers in a stream."""

_YELLOW, _BLACK = (255, 201, 60), (0, 0, 0)


def secondary_capture(
    finding: ViewFinding, picture: NDArray[np.uint8], algorithm: Algorithm, identity: Identity
) -> Dataset:
    """The picture under a strip with the text BANNER: RGB, JPEG-LS lossless, for any viewer, not for measurements.

    `picture`: uint8 [rows, columns, 3], RGB, the findings over the mammogram; any size. Raises DicomError if the source
    cannot be read.
    """
    source = read_source(finding.source)
    dataset = Dataset()
    _add_image(dataset, source, finding, algorithm)
    _add_pixels(dataset, with_banner(picture))
    return finished(dataset, source, algorithm, identity, modality="OT", title=f"{algorithm.network.title} overlay")


def with_banner(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture, uint8 [rows, columns, 3] RGB, under a strip of `BANNER_HEIGHT` rows with the text BANNER."""
    columns = picture.shape[1]
    strip = Image.new("RGB", (columns, BANNER_HEIGHT), _YELLOW)
    font = ImageFont.load_default(_text_height(columns))
    ImageDraw.Draw(strip).text((columns // 2, BANNER_HEIGHT // 2), BANNER.upper(), _BLACK, font=font, anchor="mm")
    return np.concatenate([np.asarray(strip), picture])


def _text_height(columns: int) -> int:
    """Text height in pixels, reduced if the banner would not fit into `columns`."""
    width = ImageFont.load_default(_TEXT_HEIGHT).getlength(BANNER.upper())
    return max(1, min(_TEXT_HEIGHT, int(_TEXT_HEIGHT * columns / width * 0.95)))


def _add_image(dataset: Dataset, source: Source, finding: ViewFinding, algorithm: Algorithm) -> None:
    """General Image, General Reference, SC Equipment and SC Image."""
    dataset.SOPClassUID, dataset.ConversionType = SecondaryCaptureImageStorage, "WSD"
    dataset.ImageType = ["DERIVED", "SECONDARY", "OVERLAY"]
    dataset.BurnedInAnnotation, dataset.RecognizableVisualFeatures = "NO", "NO"
    dataset.PatientOrientation = list(source.header.patient_orientation)
    dataset.ImageLaterality = "R" if finding.view.is_right else "L"
    dataset.DerivationDescription = statement(algorithm)[:1024]
    dataset.SourceImageSequence = [_source_image(source)]
    dataset.LossyImageCompression = "00"


def _source_image(source: Source) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = source.header.sop_class
    item.ReferencedSOPInstanceUID = source.header.uids["SOPInstanceUID"]
    item.PurposeOfReferenceCodeSequence = [coded("121322", "DCM", "Source image for image processing operation")]
    return item


def _add_pixels(dataset: Dataset, picture: NDArray[np.uint8]) -> None:
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = picture.shape
    dataset.PlanarConfiguration, dataset.PhotometricInterpretation = 0, "RGB"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    # JPEG 2000 needs half the bytes and three times as long, and neither DCMTK nor Orthanc without plugins decodes it.
    # pyjpegls, the same library, holds the GIL, so that the thread that runs the network would wait
    stream = imagecodecs.jpegls_encode(picture, out=_LONGEST * picture.nbytes + _MARKERS)
    dataset.PixelData = encapsulate([bytes(stream)])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = JPEGLSLossless
