"""Saliency maps -> Segmentation objects (PS3.3 A.51) in the pixel grid of the mammogram."""

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import Segmentation, SegmentDescription
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGLSLossless

from glam_deploy.dicom.results.objects import MANUFACTURER, facts, finished, own_uid, software_versions
from glam_deploy.dicom.results.records import BANNER, COLOURS, Algorithm, Identity, ViewFinding
from glam_deploy.dicom.results.source import read_source
from glam_deploy.records import Float32


def segmentation(finding: ViewFinding, algorithm: Algorithm, identity: Identity) -> Dataset:
    """BINARY segmentation for display: segments 1 (benign) and 2 (malignant), set where saliency > threshold.

    Two frames of the Rows x Columns of the source, also empty ones. Raises DicomError if the source cannot be read.
    """
    masks = finding.saliency.above([algorithm.thresholds[name] for name in algorithm.network.classes])
    return _segmentation(finding, algorithm, identity, masks=masks)


def fractional_segmentation(finding: ViewFinding, algorithm: Algorithm, identity: Identity) -> Dataset:
    """FRACTIONAL segmentation for archives and programs: round(255 * saliency), two segments, JPEG-LS lossless.

    Common viewers do not display it. Raises DicomError if the source cannot be read.
    """
    return _segmentation(finding, algorithm, identity, saliency=finding.saliency.whole())


def _segmentation(
    finding: ViewFinding,
    algorithm: Algorithm,
    identity: Identity,
    *,
    masks: NDArray[np.bool_] | None = None,
    saliency: Float32 | None = None,
) -> Dataset:
    """Segmentation from `masks` (BINARY) or `saliency` (FRACTIONAL), one of them given: [2, rows, columns]."""
    source, fractional, network = read_source(finding.source), masks is None, algorithm.network
    # masks replace the frames of a small placeholder in `_fill`: a fifth of the time at the size of a mammogram
    pixels = np.zeros((len(network.classes), 8, 8), np.bool_) if saliency is None else saliency
    image = source.anonymous()
    image.Rows, image.Columns = pixels.shape[1:]
    dataset = Segmentation(
        source_images=[image],
        pixel_array=np.moveaxis(pixels, 0, -1)[None],
        segmentation_type="FRACTIONAL" if fractional else "BINARY",
        segment_descriptions=[_segment(n, algorithm, fractional) for n in range(len(network.classes))],
        series_instance_uid=identity.series_uid,
        series_number=identity.series_number,
        sop_instance_uid=identity.sop_uid,
        instance_number=identity.instance_number,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=network.title,
        software_versions=software_versions(algorithm)[0],
        device_serial_number=algorithm.device_uid,
        content_label=network.title,
        content_description=BANNER,
        transfer_syntax_uid=JPEGLSLossless if fractional else ExplicitVRLittleEndian,
        omit_empty_frames=False,
    )
    if masks is not None:
        _fill(dataset, masks)
    _orient(dataset)
    _name_dimensions(dataset, own_uid(identity, "dimensions"))
    title = f"{network.title} saliency" if fractional else f"{network.title} segmentation"
    return finished(dataset, source, algorithm, identity, modality="SEG", title=title)


def _fill(dataset: Dataset, masks: NDArray[np.bool_]) -> None:
    """Replace the frames of the placeholder: one bit per pixel, frames without gaps (PS3.5 8.1.1)."""
    dataset.Rows, dataset.Columns = masks.shape[1:]
    bits = np.packbits(masks, bitorder="little").tobytes()
    dataset.PixelData = bits + b"\0" * (len(bits) % 2)


def _segment(n: int, algorithm: Algorithm, fractional: bool) -> SegmentDescription:
    """Description of the n-th segment; the type of both is Lesion, because the network does not classify lesions."""
    name = algorithm.network.classes[n]
    threshold = algorithm.thresholds[name]
    segment = SegmentDescription(
        segment_number=n + 1,
        segment_label=name,
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=codes.SCT.Lesion,
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=algorithm.name,
            family=codes.DCM.ArtificialIntelligence,
            version=algorithm.version,
            source=MANUFACTURER,
            parameters=facts(algorithm),
        ),
        anatomic_regions=[codes.SCT.Breast],
        display_color=CIELabColor.from_rgb(*COLOURS[name]),
    )
    shown = f"Saliency for {name}, 0 to 1" if fractional else f"Pixels with {name} saliency above {threshold:g}"
    segment.SegmentDescription = f"{shown}. {BANNER}."
    return segment


def _orient(dataset: Dataset) -> None:
    """State that rows run right and columns down: viewers need it, although mammograms have no frame of reference."""
    orientation = Dataset()
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence = [orientation]


def _name_dimensions(dataset: Dataset, uid: UID) -> None:
    """Replace the random dimension organization UID of highdicom by `uid`."""
    for item in (*dataset.DimensionOrganizationSequence, *dataset.DimensionIndexSequence):
        item.DimensionOrganizationUID = uid
