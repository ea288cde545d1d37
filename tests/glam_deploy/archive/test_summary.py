"""The summary page of tables that the test writes, against counts made by hand."""

import re
import tracemalloc
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glam_deploy.archive.summary import write_summary
from glam_deploy.archive.tally import MAX_REASONS, OTHER, tallies
from glam_deploy.errors import UsageError

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

MADE = {"engine": "onnx", "bundle_id": "ab" * 32, "gate": "passed", "made_by": "cd" * 8}
HOSTILE = '<script>alert(1)</script> & "quoted"'


def write(dest: Path, table: str, part: int, rows: list[dict[str, Any]], digest: str = "d1") -> None:
    folder = dest / table / f"bundle={digest}"
    folder.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"part-{part:06}.parquet")


def file_row(outcome: str, reason: str = "", size: int | None = 1000) -> dict[str, Any]:
    return {"entry": "e", "location": "/data/Jane/1.dcm", "outcome": outcome, "reason": reason, "bytes": size}


def view_row(status: str, score: float | None, view: str = "L-CC", notices: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "location": "/data/Jane/1.dcm", "sop_instance_uid": "1.2.3", "status": status, "view": view,
        "notices": list(notices), "time_ms": None if score is None else 100.0,
        "y_global_malignant": None if score is None else np.float32(score), **MADE,
    }  # fmt: skip


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    write(tmp_path, "files", 1, [file_row("done"), file_row("duplicate"), file_row("failed", HOSTILE, None)])
    write(tmp_path, "files", 2, [file_row("done"), file_row("failed", HOSTILE), file_row("skipped", "a spot view")])
    write(tmp_path, "views", 1, [view_row("done", 0.01, notices=("lossy",)), view_row("failed", None)])
    write(tmp_path, "views", 2, [view_row("done", 1.0, "R-MLO", ("lossy", "clipped"))])
    (tmp_path / "views/bundle=d1/.unfinished-part-000003").write_bytes(b"half")
    return tmp_path


def test_counts(dest: Path) -> None:
    (tally,) = tallies(dest)
    assert tally.outcomes == {"done": 2, "failed": 2, "duplicate": 1, "skipped": 1}
    assert tally.bytes == 5000
    assert tally.reasons == {("failed", HOSTILE): 2, ("skipped", "a spot view"): 1}
    assert tally.views == {"L-CC": 1, "R-MLO": 1}
    assert tally.notices == {"lossy": 2, "clipped": 1}
    assert tally.made_by == {tuple(MADE.values()): 3}
    assert tally.scores["y_global_malignant"].tolist() == [1, *[0] * 18, 1]
    assert (tally.timed, tally.time_ms) == (2, 200.0)


class Page(HTMLParser):
    """Cells of all rows, and the tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1] and data.strip():
            self.rows[-1][-1] += data


def test_the_page(dest: Path) -> None:
    path = write_summary(dest)
    text = path.read_text("utf-8")
    page = Page(text)
    assert ["done", "2", "33.3%"] in page.rows and ["failed", HOSTILE, "2"] in page.rows
    assert ["bundle", "ab" * 32] in page.rows and ["gate", "passed"] in page.rows
    assert "Research use only" in text and page.tags.count("svg") == 1 and page.tags.count("rect") == 2
    assert not {"script", "img", "link", "iframe"} & {*page.tags} and not re.search(r"https?:|url\(", text)
    assert not any(identifier in text for identifier in ("Jane", "1.2.3"))
    assert write_summary(dest).read_text("utf-8") == text, "again, in place of the older page"
    assert [each.name for each in dest.iterdir() if each.is_file()] == ["summary.html"]


def test_heads_are_aligned_as_their_columns(dest: Path) -> None:
    text = write_summary(dest).read_text("utf-8")
    aligned = {}
    for table in re.findall("<table>.*?</table>", text, re.DOTALL):
        rows = [re.findall(r"<t[hd]([^>]*)>(.*?)</t[hd]>", row) for row in re.findall("<tr>.*?</tr>", table, re.DOTALL)]
        kinds = [["number" in attributes for attributes, _ in row] for row in rows]
        assert all(kind == kinds[0] for kind in kinds)
        aligned[tuple(name for _, name in rows[0])] = kinds[0]
    assert aligned == {
        ("property", "value"): [False, False],
        ("outcome", "entries", "share"): [False, True, True],
        ("outcome", "reason", "entries"): [False, False, True],
        ("view", "images"): [False, True],
        ("code", "images"): [False, True],
    }


def test_each_bundle_has_a_section(dest: Path) -> None:
    write(dest, "files", 1, [file_row("done")], "d2")
    write(dest, "views", 1, [view_row("done", 0.5)], "d2")
    assert [tally.digest for tally in tallies(dest)] == ["d1", "d2"]
    assert write_summary(dest).read_text("utf-8").count("<section>") == 2


def test_reasons_are_bounded(tmp_path: Path) -> None:
    rows = [file_row("failed", f"reason {n}") for n in range(MAX_REASONS + 5)]
    write(tmp_path, "files", 1, [*rows, *rows])
    (tally,) = tallies(tmp_path)
    assert len(tally.reasons) == MAX_REASONS + 1 and tally.reasons["failed", OTHER] == 10
    assert "Further reasons: 1,9" in write_summary(tmp_path).read_text("utf-8")


def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    def peak(parts: range) -> int:
        for part in parts:
            write(tmp_path, "files", part, [file_row("done")] * 5000)
        tracemalloc.start()
        list(tallies(tmp_path))
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(range(3, 9)) < 1.3 * peak(range(1, 3))


@pytest.mark.parametrize("content", [None, b"no parquet"])
def test_what_is_no_data_set(tmp_path: Path, content: bytes | None) -> None:
    if content:
        (tmp_path / "files/bundle=x").mkdir(parents=True)
        (tmp_path / "files/bundle=x/part-000001.parquet").write_bytes(content)
    with pytest.raises(UsageError, match=r"no tables|cannot be read"):
        write_summary(tmp_path)
