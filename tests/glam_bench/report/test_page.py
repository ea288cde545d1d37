"""The document: whole, by itself, and readable without seeing it."""

from base64 import b64encode
from hashlib import sha256
from typing import Any

from support.report import Node

MISSING, TIMES = "\u2013", "\u00d7"

SECTIONS = ["ladder", "latency", "stages", "roofline", "parity", "frontier", "files", "noise", "machine"]


def test_sections_and_the_links_to_them(page: Node) -> None:
    assert [section.attributes["id"] for section in page.all("section")] == SECTIONS
    assert [link.attributes["href"] for link in page.one("nav").all("a")] == [f"#{key}" for key in SECTIONS]
    assert len(page.all("h1")) == 1
    assert [len(section.all("h2")) for section in page.all("section")] == [1] * len(SECTIONS)


def test_language_encoding_and_width_are_told(page: Node) -> None:
    metas = [meta.attributes for meta in page.one("head").all("meta")]
    assert page.one("html").attributes["lang"] == "en"
    assert metas[0] == {"charset": "utf-8"}
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in metas


def test_the_policy_allows_this_style_and_pictures_inside_and_nothing_else(page: Node) -> None:
    (policy,) = (m.attributes["content"] for m in page.all("meta") if m.attributes.get("http-equiv"))
    rules = dict(rule.strip().split(" ", 1) for rule in (policy or "").split(";"))
    style = b64encode(sha256(page.one("style").text.encode()).digest()).decode()
    assert rules == {
        "default-src": "'none'",
        "style-src": f"'sha256-{style}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_nothing_runs_and_nothing_is_fetched(page: Node) -> None:
    nodes = list(page.walk())
    assert not {node.name for node in nodes} & {"script", "link", "iframe", "object", "embed", "form", "base", "image"}
    attributes = [(name, value or "") for node in nodes for name, value in node.attributes.items()]
    assert not [name for name, _ in attributes if name == "style" or name.startswith("on")]
    assert all(value.startswith("#") for name, value in attributes if name == "href")
    assert all(value.startswith("data:") for name, value in attributes if name == "src")
    assert "url(" not in page.one("style").text
    assert "@import" not in page.one("style").text


def test_every_plot_has_a_title_and_both_widths(page: Node) -> None:
    figures = page.all("figure")
    assert len(figures) == 7
    for figure in figures:
        wide, narrow = (figure.of_class(class_)[0].one("svg") for class_ in ("wide", "narrow"))
        assert float(wide.attributes["width"] or 0) > 800
        assert float(narrow.attributes["width"] or 0) < 360
        for plot in (wide, narrow):
            first = next(plot.walk())
            assert (first.name, first.text) == ("title", plot.attributes["aria-label"])
            assert plot.attributes["role"] == "img"
        assert figure.one("figcaption").text


def test_every_table_has_a_caption_headers_and_whole_rows(page: Node) -> None:
    tables = page.all("table")
    assert len(tables) == 11
    for table in tables:
        columns = table.one("thead").all("th")
        assert table.one("caption").text
        assert {column.attributes["scope"] for column in columns} == {"col"}
        for row in table.one("tbody").all("tr"):
            assert [cell.attributes["scope"] for cell in row.all("th")] == ["row"]
            assert len(row.all("td")) == len(columns) - 1


def test_a_table_that_scrolls_can_be_reached_by_keyboard(page: Node) -> None:
    frames = page.of_class("scroll")
    assert [frame.attributes["tabindex"] for frame in frames] == ["0"] * len(page.all("table"))
    assert all(frame.attributes["aria-label"] == frame.one("caption").text for frame in frames)


def test_the_fastest_is_named_with_its_price(page: Node) -> None:
    (lead,) = page.of_class("lead")
    assert lead.text.replace("\u00a0", " ") == (
        f"ONNX Runtime is the fastest engine that may give results, as the reference: 4.92 s an image, 1.06{TIMES} as "
        "fast as PyTorch eager, host crops, worst Dice 0.99999. OpenVINO int8 takes 2.22 s, but its gate failed."
    )


def test_the_ladders_table_tells_what_was_measured(page: Node) -> None:
    rows = {row.one("th").text: [c.text for c in row.all("td")] for row in _body(page.section("ladder"), 0)}
    assert len(rows) == 9
    assert rows["OpenVINO int8"] == ["2.22\u00a0s", "0.435", f"2.26{TIMES}", f"1.43{TIMES}", "0.965", "0.930", "3 of 4"]
    assert rows["TensorRT fp16"] == ["not run", *[MISSING] * 6]


def test_gates_and_what_they_miss(page: Node) -> None:
    rows = {row.one("th").text: [c.text for c in row.all("td")] for row in _body(page.section("ladder"), 2)}
    assert rows == {
        "ONNX Runtime": ["needs no gate", MISSING, MISSING],
        "OpenVINO int8": ["failed", "0123456789ab", "Dice of the fused benign map at 0.5: worst 0.9300, limit 0.95"],
    }


def test_what_starting_takes(page: Node) -> None:
    rows = {row.one("th").text: [c.text for c in row.all("td")] for row in _body(page.section("ladder"), 1)}
    assert [cell.replace("\u00a0", " ") for cell in rows["torch.compile"]] == [
        "19.6 s", "14.0 s", "71.2 s", "2100 MiB", MISSING, MISSING, MISSING, "2595 MHz", "2595 MHz",
    ]  # fmt: skip


def test_the_worst_image_of_a_rung_is_named(page: Node) -> None:
    rows = {row.one("th").text: [c.text for c in row.all("td")] for row in _body(page.section("parity"), 0)}
    assert rows["OpenVINO int8"] == ["R-MLO", "0.790", "16\u00a0px"]
    assert rows["PyTorch eager, host crops"] == [MISSING, "1.000", "0\u00a0px"]


def test_what_ran(page: Node) -> None:
    rows = {row.one("th").text: [c.text for c in row.all("td")] for row in _body(page.section("machine"), 0)}
    assert len(rows) == 6
    assert rows["OpenVINO int8"] == ["openvino 2026.4.1", "cpu", "int8"]


def test_notices_noise_and_what_is_unstable_are_said(page: Node, results: dict[str, Any]) -> None:
    assert [item.text for item in page.of_class("notices")[0].all("li")] == results["notices"]
    said = page.section("noise").text.replace("\u00a0", " ")
    assert "may differ by 26 %: twice the largest distance" in said
    assert "Unstable, so not to be compared: OpenVINO int8." in said


def test_machine_versions_and_settings(page: Node) -> None:
    section = page.section("machine")
    names, values = ([node.text for node in section.all(kind)] for kind in ("dt", "dd"))
    told = dict(zip(names, values, strict=True))
    assert told["processor"] == "AMD EPYC 7B13"
    assert told["memory"] == "23.5\u00a0GiB"
    assert told["vector extensions"] == "fma, avx, avx2"
    assert told["onnxruntime"] == "1.32.0"
    assert told["checkpoint"] == "cd" * 32
    assert told["quick"] == "no"


def _body(section: Node, table: int) -> list[Node]:
    return section.all("table")[table].one("tbody").all("tr")
