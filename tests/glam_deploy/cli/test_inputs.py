"""`--views`: tables as data sets and people write them, and what is wrong with one, by line."""

from pathlib import Path

import pytest
from support.commands import Cli

from glam_deploy.cli.inputs import read_views
from glam_deploy.errors import UsageError

VINDR = (
    "study_id,series_id,image_id,laterality,view_position,height,width,breast_birads,breast_density,split\n"
    "b8d273e8,d93121be,d8125545,L,CC,3580,2702,BI-RADS 2,DENSITY C,training\n"
    "b8d273e8,d93121be,290c658f,R,MLO,3580,2702,BI-RADS 2,DENSITY C,training\n"
)


def write(tmp_path: Path, text: str | bytes) -> Path:
    (path := tmp_path / "views.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def views(path: Path) -> dict[str, str]:
    return {name: row.view.value for name, row in read_views(path).rows.items()}


@pytest.mark.parametrize(
    "text",
    [
        "file,view\na.png,L-CC\nb.png,R-MLO\n",
        "File , VIEW\r\na.png, LCC\r\nb.png,RIGHT_MLO\r\n",
        "\ufefffile;view\na.png;left cc\nb.png;r mlo",
        "view\tfilename\tnote\nL_CC\ta.png\tx\nR-MLO\tb.png\n\n",
        "path,laterality,view_position\na.png,L,CC\n./b.png,right,mlo\n",
        "image file path,left or right breast,image view\na.png,LEFT,CC\nb.png,RIGHT,MLO\n",
        "file,laterality,view\na.png,L,L-CC\nb.png,R,MLO\n",
        '"file","view"\n"a.png","L-CC"\n"b.png","R-MLO"\n"a.png","L-CC"\n',
    ],
)
def test_tables_in_many_shapes(tmp_path: Path, text: str) -> None:
    assert views(write(tmp_path, text)) == {"a.png": "L-CC", "b.png": "R-MLO"}


def test_table_of_vindr(tmp_path: Path) -> None:
    table = read_views(write(tmp_path, VINDR))
    found, unknown = table.assign([Path("images/b8d273e8/290c658f.dicom"), Path("images/b8d273e8/other.dicom")])
    assert {path.name: view.value for path, view in found.items()} == {"290c658f.dicom": "R-MLO"}
    assert unknown == [2]


def test_the_longest_name_counts(tmp_path: Path) -> None:
    table = read_views(write(tmp_path, "file,view\na/1.png,L-CC\n1.png,R-CC\nb\\2,L-MLO\n1.2.840,R-MLO\n"))
    inputs = [Path(name) for name in ("in/a/1.png", "in/c/1.png", "in/b/2.png", "in/1.2.840", "in/x.png")]
    found, unknown = table.assign(inputs)
    assert [view.value for view in found.values()] == ["L-CC", "R-CC", "L-MLO", "R-MLO"]
    assert (list(found), unknown) == (inputs[:4], [])


def test_a_name_of_two_files_is_no_answer(tmp_path: Path) -> None:
    table = read_views(write(tmp_path, "file,view\n1.png,L-CC\n"))
    with pytest.raises(UsageError, match=r"line 2: '1\.png' names both a/1\.png and b/1\.png"):
        table.assign([Path("a/1.png"), Path("b/1.png")])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1: the columns are nothing; expected file and view"),
        ("a.png,L-CC\n", r"line 1: the columns are a\.png, l-cc"),
        ("file,birads\n", "the columns are file, birads"),
        ("file,laterality\n", "expected file and view, or image_id, laterality and view_position"),
        ("file,view\n", "names no image"),
        ("file,view\na.png,XCCL\nb.png,\nc.png,L-CC\n", r"line 2: 'a\.png' is 'XCCL'; line 3: 'b\.png' is ''"),
        ("file,view\na.png,L-CC or R-CC\n", "line 2"),
        ("file,view\n,L-CC\n", "line 2: no image is named"),
        ("file,view\na.png\n", r"line 2: 'a\.png' is ''"),
        ("file,laterality,view\na.png,R,L-CC\n", "line 2: 'a.png' is 'R L-CC'"),
        ("file,view_position,laterality\na.png,CC,B\n", "line 2: 'a.png' is 'B CC'"),
        ("file,view\na.png,L-CC\nb.png,L-CC\na.png,R-CC\n", r"line 4: 'a\.png' is R-CC, and L-CC in line 2"),
        ('file,view\n"a.png,L-CC\n', "line 2: no row of a CSV file"),
        ("file,view\n" + "".join(f"{n}.png,ML\n" for n in range(9)), "line 6: '4.png' is 'ML'; and 4 more"),
        ("file,view\na.png,L-CC\n".encode("utf-16"), r"not UTF-8 text \(byte 0\)"),
    ],
)
def test_what_is_wrong_is_told_by_line(tmp_path: Path, text: str | bytes, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        read_views(write(tmp_path, text))


def test_a_table_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.csv", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            read_views(path)


def test_a_table_without_end(tmp_path: Path) -> None:
    with (tmp_path / "views.csv").open("wb") as file:
        file.write(b"file,view\n")
        file.truncate(6_000_000_000)
    with pytest.raises(UsageError, match="more than 67108864 bytes, expected a CSV"):
        read_views(tmp_path / "views.csv")


def test_run_with_a_table(cli: Cli, bundle: Path, image: Path, tmp_path: Path) -> None:
    nameless = image.rename(image.with_name("d8125545.png"))
    arguments = ("run", "--no-picture", "--bundle", bundle, "--out", tmp_path / "out", nameless.parent)
    assert cli(*arguments).code == 1
    said = cli(*arguments, "--views", write(tmp_path, VINDR))
    assert (said.code, said.out.splitlines()[0].split()[2]) == (0, "L-CC")
    assert said.err == f"rows of {tmp_path / 'views.csv'} that name no input: 1 (line 3)\n"
    assert "view-from-name" not in said.out


def test_run_with_a_wrong_table_begins_nothing(cli: Cli, bundle: Path, image: Path, tmp_path: Path) -> None:
    arguments = ("run", "--bundle", bundle, "--out", tmp_path / "out", image)
    for text, told in {VINDR: "no row names an input, such as", "file,view\n1_L-CC.png,X\n": "line 2"}.items():
        said = cli(*arguments, "--views", write(tmp_path, text))
        assert (said.code, told in said.err) == (2, True)
    said = cli(*arguments, "--views", write(tmp_path, "file,view\n1_L-CC.png,L-CC\n"), "--view", "L-CC")
    assert (said.code, "give one of them" in said.err) == (2, True)
    assert not (tmp_path / "out").exists()
