"""Every rule of acceptance: the sound phantom passes, and each change to it is answered in words."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from glam_deploy.dicom.read import read_view
from glam_deploy.errors import DicomError, InputError, NotForThisNetwork

Write = Callable[..., Path]


def _set(**values: object) -> Callable[[Dataset], None]:
    def edit(dataset: Dataset) -> None:
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    return edit


REFUSED: list[tuple[dict[str, object], type[InputError], str]] = [
    ({"SOPClassUID": uid.BreastTomosynthesisImageStorage}, NotForThisNetwork, "Breast Tomosynthesis"),
    ({"SOPClassUID": uid.BreastProjectionXRayImageStorageForPresentation}, NotForThisNetwork, "Breast Projection"),
    ({"SOPClassUID": uid.SecondaryCaptureImageStorage}, NotForThisNetwork, "Secondary Capture"),
    ({"SOPClassUID": uid.MammographyCADSRStorage}, NotForThisNetwork, "Mammography CAD SR"),
    ({"SOPClassUID": uid.GrayscaleSoftcopyPresentationStateStorage}, NotForThisNetwork, "Presentation State"),
    ({"SOPClassUID": uid.KeyObjectSelectionDocumentStorage}, NotForThisNetwork, "Key Object"),
    ({"SOPClassUID": uid.DigitalXRayImageStorageForPresentation}, NotForThisNetwork, "Digital X-Ray"),
    ({"PresentationIntentType": "FOR PROCESSING"}, DicomError, "PresentationIntentType"),
    ({"Modality": "CR"}, DicomError, "Modality is CR"),
    ({"NumberOfFrames": 2}, DicomError, "NumberOfFrames is 2"),
    ({"ImageType": ["DERIVED", "PRIMARY", "TOMO_2D", "GENERATED_2D"]}, NotForThisNetwork, "tomosynthesis"),
    ({"ImageType": ["DERIVED", "PRIMARY", "", "GENERATED_2D"]}, NotForThisNetwork, "synthesized"),
    ({"ImageType": ["DERIVED", "PRIMARY", "TOMO"]}, NotForThisNetwork, "tomosynthesis"),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "STEREO_SCOUT"]}, NotForThisNetwork, "biopsy"),
    (
        {"ImageType": ["DERIVED", "PRIMARY", "POST_CONTRAST", "SUBTRACTION", ""]},
        NotForThisNetwork,
        "contrast-enhanced",
    ),
    ({"ImageType": ["ORIGINAL", "PRIMARY", "", "", "LOW_ENERGY"]}, NotForThisNetwork, "contrast-enhanced"),
    ({"BreastImplantPresent": "YES"}, NotForThisNetwork, "implant"),
    ({"EstimatedRadiographicMagnificationFactor": "1.5"}, NotForThisNetwork, "magnified 1.5 times"),
    ({"PhotometricInterpretation": "RGB"}, DicomError, "is RGB with"),
    ({"SamplesPerPixel": 3}, DicomError, "3 samples"),
    ({"PresentationLUTShape": "INVERSE"}, DicomError, "expected IDENTITY with MONOCHROME2"),
    ({"Rows": 30_000, "Columns": 30_000}, DicomError, "30000 x 30000"),
    ({"Rows": 0}, DicomError, "0 x 70"),
    ({"Rows": None}, DicomError, "None x 70"),
    ({"BitsStored": 4}, DicomError, "16, 4, 11"),
    ({"BitsAllocated": 32}, DicomError, "32, 12, 11"),
    ({"HighBit": 15}, DicomError, "16, 12, 15"),
    ({"RescaleSlope": "2"}, DicomError, "rescale slope is 2.0"),
    ({"RescaleIntercept": "-1024"}, DicomError, "intercept -1024.0"),
]


@pytest.mark.parametrize(("change", "error", "words"), REFUSED, ids=lambda value: str(value)[:60])
def test_refusals_say_why(write: Write, change: dict[str, object], error: type[InputError], words: str) -> None:
    with pytest.raises(error) as caught:
        read_view(write(_set(**change)))
    assert type(caught.value) is error
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("change", "notice"),
    [
        ({"PartialView": "YES"}, "partial-view"),
        ({"LossyImageCompression": "01"}, "lossy"),
        ({"PatientOrientation": ""}, "orientation-unknown"),
    ],
)
def test_what_is_accepted_with_a_notice(write: Write, change: dict[str, object], notice: str) -> None:
    assert [each.code for each in read_view(write(_set(**change))).notices] == [notice]


@pytest.mark.parametrize("factor", ["1", "1.08", "1.2"])
def test_contact_views_are_not_called_magnified(write: Write, factor: str) -> None:
    read_view(write(_set(EstimatedRadiographicMagnificationFactor=factor)))


def test_for_processing_passes_only_when_allowed(write: Write) -> None:
    path = write(for_processing=True)
    with pytest.raises(DicomError, match="For Processing"):
        read_view(path)
    mammogram = read_view(path, for_processing=True)
    assert [notice.code for notice in mammogram.notices] == ["for-processing"]
    assert mammogram.source.facts["presentation_intent"] == "FOR PROCESSING"


def test_signed_monochrome1_is_refused(write: Write) -> None:
    with pytest.raises(DicomError, match="signed"):
        read_view(write(_set(PixelRepresentation=1), photometric="MONOCHROME1"))


@pytest.mark.parametrize(
    "modifier", ["Magnification", "SpotCompression", "RolledLateral", "Cleavage", "AxillaryTissue", "ImplantDisplaced"]
)
def test_a_view_modifier_is_refused_by_its_name(write: Write, modifier: str) -> None:
    concept = getattr(codes.cid4015, modifier)

    def modify(dataset: Dataset) -> None:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = concept.value, "SCT", concept.meaning
        dataset.ViewCodeSequence[0].ViewModifierCodeSequence = [item]

    with pytest.raises(NotForThisNetwork) as caught:
        read_view(write(modify))
    assert concept.meaning.lower() in str(caught.value)
