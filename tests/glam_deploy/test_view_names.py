"""Which view a file name tells, in the ways of the public data sets, and which names are no mammogram's."""

from pathlib import Path

import pytest

from glam_deploy.errors import InputError, NotForThisNetwork
from glam_deploy.view_names import is_mask, other_kind, require_mammogram_name, view_from_name

CBIS = "CBIS-DDSM/Mass-Training_P_00001_LEFT_CC/07-20-2016-DDSM-NA-30104/1.000000-full mammogram images-53582/1-1.dcm"


@pytest.mark.parametrize(
    ("name", "view"),
    [
        ("0_L-CC.png", "L-CC"),
        ("patient_RMLO_2.png", "R-MLO"),
        ("r_mlo.tif", "R-MLO"),
        ("LCC", "L-CC"),
        ("exam L CC (2).png", "L-CC"),
        ("L-CC_LCC.png", "L-CC"),
        ("protocol_cc.png", None),
        ("LXCCL.png", None),
        ("LCCID.png", None),
        ("R-ML.png", None),
        ("image.png", None),
        # DDSM, also as converters name its files
        ("A_1141_1.LEFT_CC.LJPEG", "L-CC"),
        ("A_1141_1.LEFT_CC.png", "L-CC"),
        ("C-0029-1.RIGHT_MLO.LJPEG.1_highpass.tif", "R-MLO"),
        ("D_4110_1.LEFT_MLO", "L-MLO"),
        # CBIS-DDSM
        ("Mass-Training_P_00001_LEFT_CC.png", "L-CC"),
        ("Calc-Test_P_00038_RIGHT_MLO.tif", "R-MLO"),
        (CBIS, "L-CC"),
        (CBIS.replace("Mass-Training", "Calc-Test").replace("LEFT_CC", "RIGHT_MLO"), "R-MLO"),
        # INbreast calls its oblique views ML
        ("20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm", "R-CC"),
        ("20586934_6c613a14b80a8591_MG_L_ML_ANON.dcm", "L-MLO"),
        ("22678622_61b13c59bcba149d_MG_L_ML_ANON.png", "L-MLO"),
        # CSAW and others
        ("00001_20990909_L_CC_1.png", "L-CC"),
        ("scan_CC_Left.png", "L-CC"),
        ("MLO-R.tif", "R-MLO"),
        ("R. Smith, left breast, L-CC.png", "L-CC"),
        ("L_Smith_1_RMLO.png", "R-MLO"),
        ("left breast.png", None),
        # VinDr-Mammo: an identifier
        ("d8125545210c08e1b1793a5af6458ee2.dicom", None),
    ],
)
def test_views_told_by_names(name: str, view: str | None) -> None:
    assert view_from_name(Path("R-MLO folder") / name) == view


@pytest.mark.parametrize("name", ["L-CC_R-CC.png", "LEFT_CC RIGHT_CC.png", "CC_L CC_R.png", "L_CC_R.png"])
def test_a_name_that_tells_two_views_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="L-CC, R-CC"):
        view_from_name(Path(name))


@pytest.mark.parametrize(
    ("name", "views"),
    [
        ("L-CC_R-MLO.png", "L-CC, R-MLO"),
        ("R_MLO L_CC.png", "L-CC, R-MLO"),
        ("CC-L_MLO-R.png", "L-CC, R-MLO"),
        ("L-CC_L-MLO_R-CC.png", "L-CC, L-MLO, R-CC"),
        ("CC_R-MLO.png", "R-CC, R-MLO"),
        ("RCC-L.png", "L-CC, R-CC"),
        ("RMLO_L.png", "L-MLO, R-MLO"),
        ("SMITH_R_LCC.png", "L-CC, R-CC"),
        ("CC_L_R.dcm", "L-CC, R-CC"),
        ("left_right_cc.png", "L-CC, R-CC"),
        ("right breast, LCC.png", "L-CC, R-CC"),
        ("L_CC.MLO.png", "L-CC, L-MLO"),
        ("MLO study L_CC.png", "L-CC, L-MLO"),
        ("R_L_CC_MLO.png", "L-CC, L-MLO, R-CC, R-MLO"),
    ],
)
def test_the_views_of_the_message_are_those_in_the_name(name: str, views: str) -> None:
    with pytest.raises(InputError) as caught:
        view_from_name(Path(name))
    assert f"({views})" in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "1_L-CC_mask.png",
        "L-CC-MASK.TIF",
        "mask.png",
        "x_mask_2.png",
        "0_L-CC_benign_seg.png",
        "Mass-Training_P_00001_LEFT_CC_1.png",
        "Calc-Test_P_00038_RIGHT_MLO_2.png",
        CBIS.replace("LEFT_CC/", "LEFT_CC_1/").replace(".dcm", ".png"),
    ],
)
def test_names_of_outlines_and_crops(name: str) -> None:
    with pytest.raises(NotForThisNetwork, match="it is not a mammogram"):
        require_mammogram_name(Path(name))


@pytest.mark.parametrize(
    "name",
    ["1_L-CC.png", "unmasked_L-CC.png", "mask_study/L-CC.png", "Mass-Training_P_00001_LEFT_CC_1-1.png", "L_CC_1.png"],
)
def test_names_that_may_be_those_of_mammograms(name: str) -> None:
    require_mammogram_name(Path(name))
    assert not is_mask(Path(name))


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("L-CC_MAG.png", "MAG"),
        ("L-CC mag2.tif", "MAG"),
        ("Magnification-RMLO.png", "MAGNIFICATION"),
        ("RCC_SpotMag.png", "SPOTMAG"),
        ("spot.R-MLO.npy", "SPOT"),
        ("L-CC-implant.png", "IMPLANT"),
        ("p1_L-CC_ID.png", "ID"),
        ("L-CC_tomo.png", "TOMO"),
        ("DBT_slice_30_L-CC.png", "DBT"),
        ("L-CC_synthetic.png", "SYNTHETIC"),
        ("L-CC C-View.png", "C-VIEW"),
        ("CVIEW_L-CC.png", "CVIEW"),
        ("L-CC_CESM.png", "CESM"),
        ("LCC_ID.png", "ID"),
        ("RMLO ID.png", "ID"),
        ("L-CC s-view.png", "S-VIEW"),
        ("I2D_L-CC.png", "I2D"),
        ("L-CC Intelligent 2D.png", "INTELLIGENT 2D"),
        ("stereo R-CC.png", "STEREO"),
        ("R-CC-biopsy.png", "BIOPSY"),
        ("L_CC_recombined.png", "RECOMBINED"),
        ("L_CC_XCCL.png", "XCCL"),
        ("L_CC_ML.png", "ML"),
        ("RCC-RL.png", "RL"),
        ("L-CC_MAGN.png", "MAGN"),
        ("L-CC.spotcompression.png", "SPOTCOMPRESSION"),
        ("L-CC spot compression.png", "SPOT COMPRESSION"),
        ("L-CC_tomo2d.png", "TOMO2D"),
        ("L-CC_CEDM.png", "CEDM"),
        ("ml_set_L-CC.png", None),
        ("L-CC.png", None),
        ("image_L-CC.png", None),
        ("magnus_L-CC.png", None),
        ("spotless_L-CC.png", None),
        ("Zoë_éspot_L-CC.png", None),
        ("tomograph1c_L-CC.png", None),
        ("study_ID_12_L-CC.png", None),
        ("L-CC_ID12a.png", None),
        ("photosynthetic_L-CC.png", None),
        ("mag/L-CC.png", None),
        ("20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm", None),
    ],
)
def test_words_for_images_that_the_network_was_not_made_for(name: str, word: str | None) -> None:
    found = other_kind(Path(name))
    assert (found and found[0]) == word
