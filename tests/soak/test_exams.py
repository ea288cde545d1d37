"""The images of a soak are what they are meant to be: taken or refused, readable or not."""

from collections import Counter
from io import BytesIO
from pathlib import Path

import pytest
from soak.exams import TAKEN, Exams, Kind, SentView
from support.receive import box, config_of

from glam_deploy.appliance.ingest import Status
from glam_deploy.dicom.read import read_view
from glam_deploy.errors import DicomError, NotForThisNetwork

REFUSED = {Kind.CUT: Status.INCOMPLETE, Kind.COLLISION: Status.UID_COLLISION}


@pytest.fixture(scope="module")
def exams(tmp_path_factory: pytest.TempPathFactory) -> Exams:
    return Exams(tmp_path_factory.mktemp("templates"), full=False)


def of_kind(exams: Exams, kind: Kind) -> list[SentView]:
    """An exam in which there is one."""
    made = (exams.exam(f"exam-{n}") for n in range(1000))
    return next(exam for exam in made if kind in {view.kind for view in exam})


def part10(view: SentView) -> bytes:
    out = BytesIO()
    view.dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


@pytest.mark.parametrize("kind", Kind)
def test_what_is_taken_and_refused(kind: Kind, exams: Exams, tmp_path: Path) -> None:
    with box(config_of(tmp_path)) as receiver:
        for view in of_kind(exams, kind):
            receipt = receiver.take(part10(view))
            assert receipt.status == REFUSED.get(view.kind, Status.SUCCESS), receipt.reason


@pytest.mark.parametrize("kind", TAKEN)
def test_what_can_be_read(kind: Kind, exams: Exams, tmp_path: Path) -> None:
    view = next(view for view in of_kind(exams, kind) if view.kind is kind)
    (tmp_path / "view.dcm").write_bytes(part10(view))
    if kind is Kind.SOUND:
        assert read_view(tmp_path / "view.dcm").pixels.max() == 3500
    else:
        with pytest.raises(NotForThisNetwork if kind is Kind.FOR_PROCESSING else DicomError):
            read_view(tmp_path / "view.dcm")


def test_every_exam_is_another_one_and_the_same_again(exams: Exams) -> None:
    names = [f"exam-{n}" for n in range(50)]
    studies = {name: {str(view.dataset.StudyInstanceUID) for view in exams.exam(name)} for name in names}
    assert all(len(study) == 1 for study in studies.values())
    assert len(set.union(*studies.values())) == len(names)
    uids = Counter(view.sop_uid for name in names for view in exams.exam(name) if view.kind is not Kind.COLLISION)
    assert set(uids.values()) == {1}
    assert [view.sop_uid for view in exams.exam("exam-1")] == [view.sop_uid for view in exams.exam("exam-1")]
