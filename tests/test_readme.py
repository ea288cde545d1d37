"""README and docs/ say only what is there: links, anchors, commands, options, and the example in Python."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from support import engines as support_engines
from support.bundles import edit_manifest, fill
from support.commands import ROOT

from glam_deploy.cli.main import COMMANDS, cli
from glam_deploy.dicom.mammography import write_view
from glam_deploy.engines.registry import ENGINE_NAMES, OWNERS
from glam_deploy.records import View

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def page_id(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def links(page: Path) -> Iterator[str]:
    """Targets inside the repository."""
    text = FENCED.sub("", page.read_text("utf-8"))
    yield from (target for target in LINK.findall(text) if not re.match(r"[a-z]+:", target))


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them: lower case, spaces to hyphens, other punctuation dropped."""
    headings = re.findall(r"^#+ +(.+?) *$", FENCED.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def snippets(page: Path) -> Iterator[str]:
    """Code in a line, which may go on in the next, and each line of code blocks."""
    text = page.read_text("utf-8")
    for block in FENCED.findall(text):
        yield from block.splitlines()[1:-1]
    for paragraph in FENCED.sub("", text).split("\n\n"):
        yield from CODE.findall(paragraph.replace("\n", " "))


def options_of(name: str) -> set[str]:
    """Every spelling of a command's options."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    inner = command.commands.values() if isinstance(command, click.Group) else []
    return {"--help", *(option for each in (command, *inner) for parameter in each.params for option in parameter.opts)}


# links


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.is_relative_to(ROOT), target
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


def test_every_page_can_be_reached_from_the_readme() -> None:
    linked = {(ROOT / target.partition("#")[0]).resolve() for target in links(ROOT / "README.md")}
    assert set(PAGES[1:]) <= linked


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_folders_and_files_in_code_exist(page: Path) -> None:
    for snippet in snippets(page):
        for path in re.findall(r"(?:^|\s)((?:tests|docs|export|benchmarks)/[\w./-]+)", snippet):
            assert (ROOT / path).exists(), path


# commands and options


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_options_exist(page: Path) -> None:
    everywhere = {option for name in COMMANDS for option in options_of(name)}
    for snippet in snippets(page):
        if called := re.match(r"(?:\$ )?glam-deploy ([a-z][a-z-]*)", snippet):
            assert called[1] in COMMANDS, snippet
            assert set(OPTION.findall(snippet)) <= options_of(called[1]), snippet
        elif snippet.startswith("--"):
            assert set(OPTION.findall(snippet)) <= everywhere, snippet


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_options_stand_in_code_only(page: Path) -> None:
    prose = CODE.sub("", FENCED.sub("", page.read_text("utf-8")).replace("\n", " "))
    assert OPTION.findall(prose) == []


def test_readme_has_every_command_and_its_options_of_run() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert [name for name in COMMANDS if f"`glam-deploy {name}" not in text] == []
    named = {option for snippet in snippets(ROOT / "README.md") for option in OPTION.findall(snippet)}
    assert {"--patches", "--engine", "--view", "--json"} <= named & options_of("run")


def test_engines_are_those_of_the_registry() -> None:
    (table,) = re.findall(
        r"^\| `--engine` \|.+?\n\n", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    first_cells = " ".join(re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)[1:])
    assert set(CODE.findall(first_cells)) == set(ENGINE_NAMES)


def test_extras_are_those_of_the_distribution() -> None:
    page = (ROOT / "docs/install.md").read_text("utf-8")
    (table,) = re.findall(r"^\| extra \|.+?\n\n", page, re.DOTALL | re.MULTILINE)
    listed = CODE.findall(" ".join(re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)))
    block = re.search(r"^EXTRAS = \{$(.+?)^\}$", (ROOT / "setup.py").read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert block
    assert sorted(listed) == sorted(re.findall(r'^    "([a-z-]+)": \[', block[1], re.MULTILINE))


def test_targets_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    called = {name for page in PAGES for text in snippets(page) for name in re.findall(r"^make ([a-z-]+)", text)}
    assert {"demo", "test"} <= called
    assert {name for name in called if not re.search(rf"^{name}:", makefile, re.MULTILINE)} == set()


# the example


def test_example_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OWNERS, "onnx", OWNERS["onnx"])
    support_engines.install()
    (tmp_path / "demo/bundle").mkdir(parents=True)
    (tmp_path / "demo/exam").mkdir()
    fill(tmp_path / "demo/bundle")
    edit_manifest(tmp_path / "demo/bundle", lambda m: m["network"].update(aggregation="attention"))
    write_view(tmp_path / "demo/exam/L-CC.dcm", support_engines.small_view().pixels, view=View.L_CC)
    monkeypatch.chdir(tmp_path)

    (example,) = re.findall(r"<!-- tested -->\n```python\n(.+?)```", PAGES[0].read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(example, "README.md", "exec"), names)
    promised = dict(re.findall(r"^result\.(\w+)(?:\(\))? +# float32 \[(.+?)\]", example, re.MULTILINE))
    assert promised["saliency_in_source"] == "2, rows, columns"
    check_arrays(names["result"], promised)
    predictions = names["result"].predictions
    assert list(predictions) == ["y_global", "y_local", "y_fusion"]
    assert all(list(scores) == ["benign", "malignant"] for scores in predictions.values())


def check_arrays(result: object, promised: dict[str, str]) -> None:
    """Hold each array against the dtype and shape in its comment."""
    sizes = {"K": 1, "rows": 500, "columns": 400}
    for name, shape in promised.items():
        value = getattr(result, name)
        array = value() if callable(value) else value
        expected = tuple(sizes.get(size) or int(size) for size in shape.split(", "))
        assert (str(array.dtype), array.shape) == ("float32", expected), name
