"""Coded views against pydicom's copy of PS3.16, and the ways to store a view."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping

from glam_deploy.dicom import terms
from glam_deploy.dicom.read import read_view
from glam_deploy.errors import DicomError, NotForThisNetwork
from glam_deploy.reading import read
from glam_deploy.records import View

Write = Callable[..., Path]


@pytest.mark.parametrize(("cid", "table"), [(4014, terms.VIEWS), (4015, terms.MODIFIERS)])
def test_the_tables_are_those_of_the_standard(cid: int, table: tuple[terms.Term, ...]) -> None:
    standard = {
        code: mapping["SCT"][code]
        for named in concepts["SCT"].values()
        for code, (_, cids) in named.items()
        if cid in cids
    }
    assert {term.sct: term.srt for term in table if term.sct} == standard


def _recode(scheme: str, value: str) -> Callable[[Dataset], None]:
    def edit(dataset: Dataset) -> None:
        dataset.ViewCodeSequence[0].CodingSchemeDesignator = scheme
        dataset.ViewCodeSequence[0].CodeValue = value

    return edit


@pytest.mark.parametrize("view", View)
@pytest.mark.parametrize("scheme", ["SCT", "SRT", "SNM3"])
def test_a_view_is_known_in_every_scheme(write: Write, view: View, scheme: str) -> None:
    standard = {"CC": ("399162004", "R-10242"), "MLO": ("399368009", "R-10226")}[view.value[2:]]
    path = write(_recode(scheme, standard[scheme != "SCT"]), view=view)
    mammogram = read_view(path)
    assert mammogram.view is view
    assert mammogram.faces_left is view.is_right


@pytest.mark.parametrize("code", ["R-10224", "R-10228", "R-1024A", "Y-X1770", "G-8310"])
def test_another_view_is_not_for_this_network(write: Write, code: str) -> None:
    with pytest.raises(NotForThisNetwork, match="the view is"):
        read_view(write(_recode("SRT", code)))


def test_a_code_outside_the_standard_is_refused(write: Write) -> None:
    with pytest.raises(DicomError, match="outside CID 4014"):
        read_view(write(_recode("99XYZ", "CC")))


def _tags(**values: object) -> Callable[[Dataset], None]:
    def edit(dataset: Dataset) -> None:
        for keyword, value in values.items():
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)

    return edit


def test_older_tags_stand_in_where_the_newer_are_missing(write: Write) -> None:
    edit = _tags(ViewCodeSequence=None, ViewPosition="CC", ImageLaterality=None, Laterality="L")
    assert read_view(write(edit)).view is View.L_CC


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"Laterality": "R"}, DicomError),
        ({"ViewPosition": "MLO"}, DicomError),
        ({"ImageLaterality": "B"}, NotForThisNetwork),
        ({"ViewCodeSequence": None, "ViewPosition": "XCCL"}, NotForThisNetwork),
        ({"ViewCodeSequence": None, "ViewPosition": "AP"}, NotForThisNetwork),
    ],
)
def test_contradictions_and_other_views(write: Write, values: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error):
        read_view(write(_tags(**values)))


def test_an_mlo_view_with_the_orientation_of_the_other_breast(write: Write) -> None:
    path = write(_tags(PatientOrientation=["P", "FL"]), view=View.L_MLO)
    with pytest.raises(DicomError, match="laterality wrong: PatientOrientation is P and FL, as in an R-MLO view"):
        read_view(path)


@pytest.mark.parametrize(("view", "columns"), [(View.L_MLO, "FR"), (View.R_MLO, "FL"), (View.L_MLO, "F")])
def test_an_upright_mlo_view(write: Write, view: View, columns: str) -> None:
    mammogram = read_view(write(_tags(PatientOrientation=["P" if view.is_right else "A", columns]), view=view))
    assert (mammogram.view, mammogram.horizontal_flip, mammogram.notices) == (view, False, ())


def test_a_contradiction_names_what_gave_the_view(write: Write, tmp_path: Path) -> None:
    path = write(_tags(ViewCodeSequence=None))
    named = path.rename(tmp_path / "R_CC.dcm")
    with pytest.raises(DicomError, match=r"the file name states R\): correct the object or the file name$"):
        read(named)
    with pytest.raises(DicomError, match=r"the view option states R\): correct the object or the view option$"):
        read(named, view=View.R_CC)
    with pytest.raises(DicomError, match=r"Laterality states R\): correct the object$"):
        read_view(write(_tags(Laterality="R")))


def test_the_view_option_completes_tags_and_never_overrules_them(write: Write) -> None:
    untagged = write(_tags(ViewCodeSequence=None, ImageLaterality=None))
    assert read_view(untagged, view=View.L_CC).view is View.L_CC
    with pytest.raises(DicomError, match="pass view="):
        read_view(untagged)
    with pytest.raises(DicomError, match="is contradictory"):
        read_view(write(), view=View.R_CC)
    with pytest.raises(DicomError, match="is contradictory"):
        read_view(write(_tags(ViewCodeSequence=None)), view=View.R_CC)


@pytest.mark.parametrize(
    ("view", "rows", "columns"),
    [(View.L_CC, "P", "R"), (View.R_CC, "A", "L"), (View.L_MLO, "P", "F"), (View.R_MLO, "A", "FL")],
)
def test_an_image_stored_mirrored_is_recognized(write: Write, view: View, rows: str, columns: str) -> None:
    mammogram = read_view(write(_tags(PatientOrientation=[rows, columns]), view=view))
    assert mammogram.horizontal_flip
    assert mammogram.faces_left is (rows == "P")
    assert [notice.code for notice in mammogram.notices] == ["stored-mirrored"]


@pytest.mark.parametrize(
    ("view", "orientation"),
    [
        (View.L_CC, ["P", "L"]),
        (View.L_CC, ["A", "L"]),
        (View.R_CC, ["L", "P"]),
        (View.L_MLO, ["A", "H"]),
        (View.R_MLO, ["A", "HL"]),
        (View.R_MLO, ["F", "P"]),
        # the medial side of the other breast (PS3.3 C.8.11.7: A\\FR for L-MLO, P\\FL for R-MLO)
        (View.L_MLO, ["P", "FL"]),
        (View.L_MLO, ["A", "FL"]),
        (View.R_MLO, ["A", "FR"]),
        (View.R_MLO, ["P", "FR"]),
    ],
)
def test_a_rotated_or_upside_down_image_is_refused(write: Write, view: View, orientation: list[str]) -> None:
    with pytest.raises(DicomError, match="PatientOrientation"):
        read_view(write(_tags(PatientOrientation=orientation), view=view))


@pytest.mark.parametrize(
    ("view", "rows", "columns"),
    [(View.L_MLO, "P", "H"), (View.L_MLO, "P", "HL"), (View.R_MLO, "A", "HR"), (View.R_MLO, "AL", "RH")],
)
def test_an_mlo_view_stored_rotated_is_recognized(write: Write, view: View, rows: str, columns: str) -> None:
    """Its pixels are those of the file, and upright ones are its turned ones, with the chest wall on the left."""
    mammogram = read_view(write(_tags(PatientOrientation=[rows, columns]), view=view))
    assert (mammogram.half_turn, mammogram.horizontal_flip) == (True, False)
    assert [notice.code for notice in mammogram.notices] == ["stored-rotated"]
    plain = read_view(write(view=view))
    np.testing.assert_array_equal(mammogram.pixels, plain.pixels)
    turned = plain.pixels[::-1, ::-1]
    np.testing.assert_array_equal(mammogram.upright, turned[:, ::-1] if view.is_right else turned)


def test_a_cc_view_stored_rotated_may_as_well_have_a_wrong_laterality(write: Write) -> None:
    with pytest.raises(DicomError, match=r"laterality wrong \(or a view stored rotated\): .* as in an R-CC view"):
        read_view(write(_tags(PatientOrientation=["P", "L"]), view=View.L_CC))


def test_the_flip_option_completes_the_orientation_and_never_overrules_it(write: Write) -> None:
    assert read_view(write(_tags(PatientOrientation=None)), horizontal_flip=True).horizontal_flip
    assert read_view(write(_tags(PatientOrientation=["P", "R"])), horizontal_flip=True).horizontal_flip
    with pytest.raises(DicomError, match="not stored mirrored"):
        read_view(write(), horizontal_flip=True)
