"""UIDs of result objects. The values are those that release 0.1.0 derived: another UID would be another object."""

from support.results import ALGORITHM

from glam_deploy.dicom.results.kinds import KINDS
from glam_deploy.dicom.results.provenance import ResultProvenance, view_number
from glam_deploy.dicom.uids import derived_uid, digest, is_uid, random_uid
from glam_deploy.records import View

RECORDED = {
    "seg": ("2.25.4557792039517416544400022527814469014", "2.25.217610952463203390263106178008570841635", 9001),
    "seg_fractional": (
        "2.25.111792525481681575529305101481238983978",
        "2.25.85751946632719328715396033898051178895",
        9002,
    ),
    "sc": ("2.25.18284818795112573701982175307242551056", "2.25.196674356662642606750351583955889248841", 9003),
    "gsps": ("2.25.323941964309802348782157406989294597630", "2.25.208043422241754130027795797782356837940", 9004),
    "cad_sr": ("2.25.102321631223933530249509062063522720743", "2.25.203572754683197263183920574425196588815", 9005),
    "sr": ("2.25.241575557346227276929754663578197283830", "2.25.167904525333324019841989672762125164353", 9006),
}
"""Kind -> SOP Instance UID, Series Instance UID and series number of the object of one view."""


def test_uids_are_those_that_were_derived_before() -> None:
    made = ResultProvenance(algorithm=ALGORITHM, settings="e5" * 32)
    assert made.digest == "d8a32766a69a407a46dc4dd08fa67d7f2daadc0ee2b42d4d190f6de725512d25"
    key = made.view_key("1.2.3.4", "d4" * 32)
    assert key == "83ead6b77fa576bba4dd9b36ec66136580c442e065ff466227ba3ba1575c27d7"
    found = {kind: made.identity(kind, "1.2.3", key, 2) for kind in KINDS}
    assert {kind: (one.sop_uid, one.series_uid, one.series_number) for kind, one in found.items()} == RECORDED
    report = made.identity("sr", "1.2.3", made.study_key("f6" * 32))
    assert report.sop_uid == "2.25.110763120083687695350720053252393060510"
    assert report.series_uid == RECORDED["sr"][1]


def test_texts_do_not_run_together() -> None:
    assert len({digest("ab", "c"), digest("a", "bc"), digest("abc")}) == 3
    assert len({derived_uid("ab", "c"), derived_uid("a", "bc")}) == 2


def test_random_uids_are_valid_and_different() -> None:
    found = {random_uid() for _ in range(100)}
    assert len(found) == 100 and all(map(is_uid, found))


def test_numbers_by_view() -> None:
    assert [view_number(view) for view in (*View, None)] == [1, 2, 3, 4, 5]
