"""The whole command with Ray: what it prints, its exit codes, and that its remedies work."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from pydicom import dcmread
from support.archive import outcomes_in, rows
from support.commands import PLAIN, start_process
from support.engines import small_view
from support.tiny_bundle import write_tiny_bundle

from glam_deploy.dicom.mammography import write_view
from glam_deploy.records import View

pytestmark = pytest.mark.ray


def test_two_images_with_one_uid_are_told_and_have_no_dicom_object(tmp_path: Path) -> None:
    """A copy is no second image. With pseudonyms, where objects are refused, the notice is alone."""
    bundle = write_tiny_bundle(tmp_path / "bundle")
    first, other = tmp_path / "one.dcm", tmp_path / "other.dcm"
    for path, view in ((first, View.L_CC), (other, View.L_MLO)):
        write_view(path, small_view().pixels, view=view)
    second = dcmread(other)
    second.SOPInstanceUID = second.file_meta.MediaStorageSOPInstanceUID = dcmread(first).SOPInstanceUID
    second.save_as(tmp_path / "two.dcm")
    shutil.copy(other, tmp_path / "other-copy.dcm")
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_text("0123456789abcdef" * 4)
    objects = ("--write", "seg", "--write", "sr")

    def archive(out: str, *names: str, options: tuple[object, ...] = objects) -> str:
        sources = (tmp_path / f"{name}.dcm" for name in names)
        to = ("--out", tmp_path / out, "--bundle", bundle, "--engine", "onnx", "--quiet")
        process = start_process("archive", *sources, *to, *options, code=PLAIN)
        _, said = process.communicate()
        assert process.returncode == 0, said
        return said

    def ends(out: str) -> Counter[str]:
        return Counter(
            path.name.partition(".")[2] for path in (tmp_path / out / "objects").rglob("*.*") if path.is_file()
        )

    told = "2 images with the SOPInstanceUID of another image with another result, and without SEG and SR"
    assert archive("out", "one", "other", "other-copy") == ""
    assert ends("out") == {"seg.dcm": 2, "sr.dcm": 2}
    expected = {"seg.dcm": 1, "sr.dcm": 1, "no-dicom.txt": 2}
    for names in (("one", "two"), ("other", "two", "one")):  # the later run finds all done
        assert told in archive("out", *names)
        assert ends("out") == expected
    found = {Path(row["location"]).name: row for row in rows(tmp_path / "out", "views")}
    assert {name for name, row in found.items() if "ambiguous-uid" in row["notices"]} == {"one.dcm", "two.dcm"}
    assert all(row["status"] == "done" and row["y_global_benign"] is not None for row in found.values())
    assert "ambiguous-uid" in (tmp_path / "out/summary.html").read_text()
    said = archive("hidden", "one", "two", "other", options=("--pseudonyms", tmp_path / "key"))
    assert told in said and str(dcmread(first).SOPInstanceUID) not in said
    hidden = rows(tmp_path / "hidden", "views")
    assert sorted("ambiguous-uid" in row["notices"] for row in hidden) == [False, True, True]
    assert not any("no-dicom-object" in row["notices"] for row in hidden)


def test_a_damaged_part_is_told_until_its_entries_have_rows_again(tmp_path: Path) -> None:
    bundle = write_tiny_bundle(tmp_path / "bundle")
    for folder, view in (("one", View.L_CC), ("two", View.L_MLO)):
        (tmp_path / folder).mkdir()
        write_view(tmp_path / folder / f"{folder}.dcm", small_view().pixels, view=view)

    def archive(*sources: str) -> tuple[int, str]:
        places = (tmp_path / source for source in sources)
        options = ("--out", tmp_path / "out", "--bundle", bundle, "--engine", "onnx", "--quiet")
        process = start_process("archive", *places, *options, code=PLAIN)
        _, said = process.communicate()
        return process.returncode, said

    assert archive("one") == (0, "")
    assert archive("two") == (0, "")
    (part,) = (tmp_path / "out/views").rglob("part-000001.parquet")
    part.write_bytes(part.read_bytes().replace(b"L-CC", b"L-CD"))

    code, said = archive("two")
    assert code == 1
    assert f"{part} is missing or damaged: its rows are computed again" in said
    assert "1 entry has no row" in said and "give all sources of the earlier runs" in said
    assert outcomes_in(tmp_path / "out") == {"two.dcm": "done"}
    code, said = archive("two")
    assert code == 1 and "1 entry has no row" in said and "damaged:" not in said

    assert archive("one", "two") == (0, "")
    assert outcomes_in(tmp_path / "out") == {"one.dcm": "done", "two.dcm": "done"}


def test_files_that_are_no_images_are_counted(tmp_path: Path) -> None:
    """By a dry run as by a run, as `run` does."""
    bundle, folder = write_tiny_bundle(tmp_path / "bundle"), tmp_path / "in"
    folder.mkdir()
    write_view(folder / "a.dcm", small_view().pixels, view=View.L_CC)
    for name in ("notes.txt", "README", ".hidden"):
        (folder / name).write_text("text\n")
    for dry, told in (("--dry-run", "1 entry to try, 0 with a row"), ("", "1 done")):
        options = (*filter(None, [dry]), "--out", tmp_path / "out", "--bundle", bundle, "--engine", "onnx")
        process = start_process("archive", folder, *options, code=PLAIN)
        out, said = process.communicate()
        assert process.returncode == 0 and told in out
        assert "2 other files of the source were passed over" in said
