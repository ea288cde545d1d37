"""Lists of paths and URLs as sources: CSV, Parquet and text."""

from pathlib import Path

import pytest
from support.archives import dicom, locations, reason, write_zip

from glam_deploy.archive.sources import open_source
from glam_deploy.errors import UsageError

PAGE = b"<html><body>404 Not Found</body></html>\n"


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.csv", PAGE, "a web page (HTML or XML), perhaps the error page of a download, expected text"),
        ("a.txt", PAGE, "a web page (HTML or XML), perhaps the error page of a download, expected text"),
        ("a.csv", b"PK\3\4\0\0", "a zip archive, expected text"),  # xlsx
        ("a.lst", b"%PDF-1.4", "a PDF document, expected text"),
        ("a.csv", b"PAR1\x15\4", "a Parquet file, whose name must end with .parquet, expected text"),
        ("a.parquet", b"", "empty (0 bytes), expected Parquet"),
        ("a.parquet", PAGE, "a web page (HTML or XML), perhaps the error page of a download, expected Parquet"),
        ("a.parquet", b"path\na.dcm\n", "of another format (it starts with 70617468), expected Parquet"),
    ],
)
def test_a_file_that_is_no_list(tmp_path: Path, name: str, content: bytes, found: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        list(open_source([str(tmp_path / name)]).entries())
    assert str(caught.value).startswith(f"the list is {found}")


def test_a_parquet_list_with_a_damaged_page(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "list.parquet"
    parquet.write_table(pyarrow.table({"path": [f"{n}.dcm" for n in range(5000)]}), path)
    content = path.read_bytes()
    path.write_bytes(content[:40] + bytes(200) + content[240:])
    with pytest.raises(UsageError, match="no readable Parquet file"):
        list(open_source([str(path)]).entries())


def test_lists(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x/a b.dcm").write_bytes(dicom("a"))
    write_zip(tmp_path / "z.zip", {"m.dcm": dicom("m")})
    (tmp_path / "list.txt").write_text(f"# images\nx/a b.dcm\n\n{tmp_path}/z.zip\ngone.dcm\n")
    (tmp_path / "list.csv").write_text("\ufeffpatient,Path,size\nJane,x/a b.dcm,5\n,z.zip,\n,gone.dcm,\n", "utf-8")
    expected = [f"{tmp_path}/x/a b.dcm", f"{tmp_path}/z.zip!m.dcm", f"{tmp_path}/gone.dcm"]
    for name in ("list.txt", "list.csv"):
        source = open_source([str(tmp_path / name)])
        entries = list(source.entries())
        assert [entry.location for entry in entries] == expected
        assert [source.read(entry) for entry in entries[:2]] == [dicom("a"), dicom("m")]
        assert "No such file" in reason(source, entries[2])


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a.dcm\nb.dcm\n", ["a.dcm", "b.dcm"]),
        ("a.dcm", ["a.dcm"]),
        ("\ufeff\n 1.2.3 ,Jane\nb.dcm,Joan\n", ["1.2.3", "b.dcm"]),
        ("z.zip\n", ["z.zip"]),
        ("https://h/w?id=1,5\n", ["https://h/w?id=1"]),
        ("gone.PNG\nb.dcm", ["gone.PNG", "b.dcm"]),
        ("image\nb.dcm\n", ["b.dcm"]),
        ("a.dcm,url\nx,b.dcm\n", ["b.dcm"]),
        ("", []),
    ],
)
def test_a_csv_list_with_and_without_a_header(tmp_path: Path, text: str, names: list[str]) -> None:
    (tmp_path / "1.2.3").write_bytes(dicom("uid"))
    (tmp_path / "list.csv").write_text(text, "utf-8")
    found = [location.removeprefix(f"{tmp_path}/") for location in locations(open_source([str(tmp_path / "list.csv")]))]
    assert found == names


@pytest.mark.parametrize(
    "text", ["Patient;path\nX;/a.dcm\n", "Patient\tpath\nX\t/a.dcm\n", "Patient,image_id\nX,/a.dcm\n"]
)
def test_a_list_whose_column_of_paths_is_not_known_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.csv").write_text(text, "utf-8")
    with pytest.raises(UsageError, match=r"no column location, url.*separate columns with commas"):
        locations(open_source([str(tmp_path / "list.csv")]))


def test_a_parquet_list(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"n": [1, 2], "location": ["a.dcm", "s3://bucket/b.dcm"], "etag": ["", "e"]})
    parquet.write_table(table, tmp_path / "list.parquet")
    first, second = open_source([str(tmp_path / "list.parquet")]).entries()
    assert first.location == str(tmp_path / "a.dcm")
    assert (second.location, second.version) == ("s3://bucket/b.dcm", "e")
