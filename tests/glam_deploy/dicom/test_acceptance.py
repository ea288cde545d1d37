"""Every rule of acceptance: the sound phantom passes, and each change to it is answered in words."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydicom import dcmread, uid
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


SYNTAXES = (uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.RLELossless, uid.JPEGLSLossless)


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize(
    ("keyword", "words"),
    [
        ("Rows", "None x 70 .None: it is missing"),
        ("Columns", "96 x None .None: it is missing"),
        ("SamplesPerPixel", "with missing samples per pixel .SamplesPerPixel"),
        ("BitsAllocated", "are missing, 12, 11"),
        ("BitsStored", "are 16, missing, 11"),
        ("HighBit", "are 16, 12, missing"),
        ("PixelRepresentation", "PixelRepresentation is missing"),
        ("PixelData", "PixelData is (missing|empty)|is damaged or incomplete: "),
    ],
)
@pytest.mark.parametrize("missing", [True, False], ids=["missing", "empty"])
def test_an_element_that_pixels_need_is_told_as_missing(
    write: Write, syntax: uid.UID, keyword: str, words: str, missing: bool
) -> None:
    path = write(syntax=syntax)
    dataset = dcmread(path)
    if missing:
        del dataset[keyword]
    elif keyword == "PixelData" and dataset[keyword].is_undefined_length:
        dataset[keyword].value = b"\xfe\xff\x00\xe0\0\0\0\0"  # an offset table alone
    else:
        dataset[keyword].value = None
    dataset.save_as(path)
    with pytest.raises(DicomError, match=words) as caught:
        read_view(path)
    assert "Error)" not in str(caught.value)


@pytest.mark.parametrize(("photometric", "shape"), [("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")])
def test_a_shape_against_the_photometric_interpretation(write: Write, photometric: str, shape: str) -> None:
    """PS3.3 C.8.11.3.1; viewers show such an object in opposite ways."""
    with pytest.raises(DicomError, match=f"PresentationLUTShape is {shape}, expected .* with {photometric}"):
        read_view(write(_set(PresentationLUTShape=shape), photometric=photometric))
    read_view(write(lambda dataset: dataset.__delattr__("PresentationLUTShape"), photometric=photometric))


@pytest.mark.parametrize(
    ("change", "notice"),
    [
        ({"PartialView": "YES"}, "partial-view"),
        ({"LossyImageCompression": "01"}, "lossy"),
        ({"PatientOrientation": ""}, "orientation-unknown"),
        ({"ImagerPixelSpacing": ["0.1", "0.05"]}, "pixels-not-square"),
    ],
)
def test_what_is_accepted_with_a_notice(write: Write, change: dict[str, object], notice: str) -> None:
    assert [each.code for each in read_view(write(_set(**change))).notices] == [notice]


@pytest.mark.parametrize("spacing", [["0.0941", "0.094090909"], ["0.05", "0.05"], ["0.0998", "0.1"]])
def test_square_pixels(write: Write, spacing: list[str]) -> None:
    assert read_view(write(_set(ImagerPixelSpacing=spacing))).notices == ()


@pytest.mark.parametrize("factor", ["1", "1.08", "1.2"])
def test_contact_views_are_not_called_magnified(write: Write, factor: str) -> None:
    read_view(write(_set(EstimatedRadiographicMagnificationFactor=factor)))


def test_for_processing_passes_only_when_allowed(write: Write) -> None:
    path = write(for_processing=True)
    with pytest.raises(NotForThisNetwork, match="For Processing"):
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
