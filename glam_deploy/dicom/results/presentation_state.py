"""Regions -> Grayscale Softcopy Presentation State (PS3.3 A.33.1): boxes and banner over the mammogram."""

from contextlib import suppress
from pathlib import Path
from typing import Any

from highdicom.color import CIELabColor
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import GrayscaleSoftcopyPresentationStateStorage

from glam_deploy.dicom.header import dicom_errors
from glam_deploy.dicom.results.objects import finished, written_at
from glam_deploy.dicom.results.records import BANNER, COLOURS, Algorithm, Identity, Region, ViewSummary
from glam_deploy.dicom.results.source import Source, read_source
from glam_deploy.errors import DicomError

_BANNER_COLOUR = (255, 201, 60)


def presentation_state(source: Path, summary: ViewSummary, algorithm: Algorithm, identity: Identity) -> Dataset:
    """Presentation state of the image in `source`: a box with class and peak around each region, and BANNER at the top.

    The window or lookup table of the image applies. Raises DicomError if the source cannot be read.
    """
    image, network = read_source(source), algorithm.network
    dataset = Dataset()
    dataset.SOPClassUID = GrayscaleSoftcopyPresentationStateStorage
    dataset.Laterality = ""  # of the series, which has states for both breasts
    _add_identification(dataset, image, identity, label=network.title)
    _add_relationship(dataset, image)
    _add_grey(dataset, image)
    _add_displayed_area(dataset, image)
    layers = {name: f"{network.title} {name.upper()}" for name in (*network.classes, "banner")}
    marks = (_annotation(region, layers[region.label]) for region in summary.regions)
    dataset.GraphicAnnotationSequence = [_banner(layers["banner"]), *marks]
    colours = {**COLOURS, "banner": _BANNER_COLOUR}
    dataset.GraphicLayerSequence = [
        _layer(order, layer, colours[name]) for order, (name, layer) in enumerate(layers.items(), start=1)
    ]
    return finished(dataset, image, algorithm, identity, modality="PR", title=f"{network.title} marks")


def _add_identification(dataset: Dataset, source: Source, identity: Identity, *, label: str) -> None:
    created = written_at(source, identity)
    dataset.ContentLabel, dataset.ContentDescription, dataset.ContentCreatorName = label, BANNER, ""
    dataset.PresentationCreationDate = created.strftime("%Y%m%d")
    dataset.PresentationCreationTime = created.strftime("%H%M%S")


def _add_relationship(dataset: Dataset, source: Source) -> None:
    image, series = Dataset(), Dataset()
    image.ReferencedSOPClassUID = source.header.sop_class
    image.ReferencedSOPInstanceUID = source.header.uids["SOPInstanceUID"]
    series.SeriesInstanceUID = source.header.uids["SeriesInstanceUID"]
    series.ReferencedImageSequence = [image]
    dataset.ReferencedSeriesSequence = [series]


def _add_grey(dataset: Dataset, source: Source) -> None:
    """Modality LUT, Softcopy VOI LUT and Softcopy Presentation LUT, which replace those of the image."""
    header = source.header
    if header.slope is not None and header.intercept is not None:
        dataset.RescaleSlope, dataset.RescaleIntercept = header.slope, header.intercept
        dataset.RescaleType = "US"
    # a window that cannot be read is left out, because viewers then choose one
    with suppress(DicomError), dicom_errors("the window is damaged"):
        if voi := _voi(source.elements):
            dataset.SoftcopyVOILUTSequence = [voi]
    dataset.PresentationLUTShape = "INVERSE" if source.header.photometric == "MONOCHROME1" else "IDENTITY"


def _voi(elements: Dataset) -> Dataset | None:
    """The first window of the image, else its first lookup table, without explanations, because they are free text."""
    voi = Dataset()
    if elements.get("WindowCenter") is not None and elements.get("WindowWidth") is not None:
        voi.WindowCenter, voi.WindowWidth = _first(elements.WindowCenter), _first(elements.WindowWidth)
        if elements.get("VOILUTFunction"):
            voi.VOILUTFunction = elements.VOILUTFunction
        return voi
    if not elements.get("VOILUTSequence"):
        return None
    voi.VOILUTSequence = [Dataset()]
    for keyword in ("LUTDescriptor", "LUTData"):
        voi.VOILUTSequence[0][keyword] = elements.VOILUTSequence[0][keyword]
    return voi


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, MultiValue) else value


def _add_displayed_area(dataset: Dataset, source: Source) -> None:
    area = Dataset()
    area.DisplayedAreaTopLeftHandCorner = [1, 1]
    area.DisplayedAreaBottomRightHandCorner = [source.header.columns, source.header.rows]
    area.PresentationSizeMode, area.PresentationPixelAspectRatio = "SCALE TO FIT", [1, 1]
    dataset.DisplayedAreaSelectionSequence = [area]


def _layer(order: int, name: str, colour: tuple[int, int, int]) -> Dataset:
    layer = Dataset()
    layer.GraphicLayer, layer.GraphicLayerOrder = name, order
    layer.GraphicLayerRecommendedDisplayCIELabValue = list(CIELabColor.from_rgb(*colour).value)
    return layer


def _annotation(region: Region, layer: str) -> Dataset:
    top, left, bottom, right = region.box
    box, text = Dataset(), Dataset()
    box.GraphicAnnotationUnits, box.GraphicDimensions, box.GraphicType = "PIXEL", 2, "POLYLINE"
    box.NumberOfGraphicPoints, box.GraphicFilled = 5, "N"
    box.GraphicData = [left, top, right, top, right, bottom, left, bottom, left, top]
    text.AnchorPointAnnotationUnits, text.AnchorPoint, text.AnchorPointVisibility = "PIXEL", [left, top], "N"
    text.UnformattedTextValue = f"{region.label} {region.peak:.2f}"
    annotation = Dataset()
    annotation.GraphicLayer = layer
    annotation.TextObjectSequence, annotation.GraphicObjectSequence = [text], [box]
    return annotation


def _banner(layer: str) -> Dataset:
    """Banner across the top of the display area, independent of the part of the image that is shown."""
    text = Dataset()
    text.BoundingBoxAnnotationUnits, text.BoundingBoxTextHorizontalJustification = "DISPLAY", "CENTER"
    text.BoundingBoxTopLeftHandCorner, text.BoundingBoxBottomRightHandCorner = [0, 0], [1, 0.05]
    text.UnformattedTextValue = BANNER
    annotation = Dataset()
    annotation.GraphicLayer, annotation.TextObjectSequence = layer, [text]
    return annotation
