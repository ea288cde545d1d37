"""Days and lists: what is taken, and what is refused before an archive could take it for a pattern."""

from datetime import date
from io import StringIO

import pytest

from glam_deploy.appliance.fetch import selection
from glam_deploy.appliance.fetch.selection import Selection, days, read_list
from glam_deploy.errors import UsageError


def test_days_of_a_range_both_ends_included() -> None:
    assert days(date(2024, 2, 27), date(2024, 3, 1)) == ["20240227", "20240228", "20240229", "20240301"]
    assert days(date(2024, 2, 27), date(2024, 2, 27)) == ["20240227"]


@pytest.mark.parametrize(
    ("first", "last"), [(date(2024, 2, 2), date(2024, 2, 1)), (date(1900, 1, 1), date(2024, 1, 1))]
)
def test_no_days_or_too_many(first: date, last: date) -> None:
    with pytest.raises(UsageError, match="--from and --to"):
        days(first, last)


@pytest.mark.parametrize(
    "text",
    [
        "StudyInstanceUID,AccessionNumber\n1.2.3,A1\n,A2\n\n1.2.4,\n",
        "accession number;study_uid\nA1;1.2.3\nA2;\n;1.2.4\n",
        "Name\tStudy Instance UID\tAccession-Number\nDOE\t1.2.3\t\nROE\t\tA2\nX\t 1.2.4 \t\r\n",
    ],
)
def test_a_list(text: str) -> None:
    assert read_list(text.splitlines(keepends=True)) == Selection(studies=["1.2.3", "1.2.4"], accessions=["A2"])


def test_accession_numbers_alone() -> None:
    assert read_list(["AccessionNumber\n", '"A,1"\n', "A 2\n"]) == Selection(accessions=["A,1", "A 2"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.2.3\n1.2.4\n", "has no column StudyInstanceUID or AccessionNumber"),
        ("", "has no column"),
        ("StudyInstanceUID\n1.2.3\n1.2.*\n", "line 3 .* Study Instance UID"),
        ("StudyInstanceUID\nDOE^JANE\n", "line 2 "),
        ("AccessionNumber\nA*\n", "line 2 "),
        ("AccessionNumber\nA?\n", "line 2 "),
        ("AccessionNumber\nA\\B\n", "line 2 "),
        ("AccessionNumber\n0001*\n", r"line 2 .* expected an accession number .* without \*, \?"),
        ("AccessionNumber\n12345678901234567\n", "line 2 .* 16 characters"),
        ("sep=;\nAccessionNumber;x\n1,2346E+04;1\n", "line 3 .* spreadsheet .* format Text"),
        ("AccessionNumber\n1.2346E+11\n", "line 2 .* spreadsheet"),
        ("StudyInstanceUID\n1.2E+25\n", "line 2 .* spreadsheet"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        read_list(text.splitlines(keepends=True))
    assert "DOE" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        'sep=;\r\nAccessionNumber;Name\r\n00012346;"a,b"\r\n',
        'AccessionNumber;Name\r\n="00012346";x\r\n',
        'AccessionNumber,Name\r\n"=""00012346""",x\r\n',
    ],
)
def test_what_excel_writes(text: str) -> None:
    assert read_list(StringIO(text, newline="")) == Selection(accessions=["00012346"])


def test_letters_that_look_like_an_exponent_stay() -> None:
    assert read_list(["AccessionNumber\n", "12E05\n"]) == Selection(accessions=["12E05"])


def test_too_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "MOST_ROWS", 2)
    assert read_list(["AccessionNumber\n", "A1\n", "A2\n"]).accessions == ["A1", "A2"]
    with pytest.raises(UsageError, match="more than 2 studies: split it"):
        read_list(["AccessionNumber\n", "A1\n", "A2\n", "A3\n"])
