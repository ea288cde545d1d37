"""The whole command with Ray: what it prints, its exit codes, and that its remedies work."""

from pathlib import Path

import pytest
from support.archive import outcomes_in
from support.commands import PLAIN, start_process
from support.engines import small_view
from support.tiny_bundle import write_tiny_bundle

from glam_deploy.dicom.mammography import write_view
from glam_deploy.records import View

pytestmark = pytest.mark.ray


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
