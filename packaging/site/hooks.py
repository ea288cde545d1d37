"""Pages of the site that are not in docs/: README, changelog and others, notebooks, help of commands, and the Python
interface.

Links between pages of the repository become links between pages of the site; links to other files of the repository
become their names.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

import click
from mkdocs.structure.files import File, Files

import glam_deploy
from glam_deploy.cli.main import cli

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MADE = ROOT / "build/site-assets"
"""Where `make site` puts scripts of others: mermaid draws diagrams, iframe-worker searches in pages opened from a
folder."""
_DIALOG = 'data-md-component="search" role="dialog"'
_WORKER = "https://unpkg.com/iframe-worker/shim"
OUTSIDE: Mapping[str, str] = MappingProxyType(
    {
        "README.md": "index.md",
        "CHANGELOG.md": "changelog.md",
        "CONTRIBUTING.md": "contributing.md",
        "SECURITY.md": "reporting.md",
        "benchmarks/README.md": "benchmarks.md",
        "docs/tutorials/first-lesion.ipynb": "tutorials/first-lesion-notebook.md",
    }
)
"""Page of the repository -> page of the site."""
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
_TABLE = re.compile(r"<table>\n<thead>.*?</table>", re.DOTALL)
_MOST_COLUMNS = 5
"""Of a table that a telephone shows whole."""
_WIDTH = 100


def on_files(files: Files, config: Any) -> Files:
    """Add the pages and the scripts that are not in docs/."""
    for source, page in OUTSIDE.items():
        text = (ROOT / source).read_text("utf-8")
        text = _of_notebook(text) if source.endswith(".ipynb") else text
        files.append(File.generated(config, page, content=_relinked(text, PurePosixPath(source))))
    files.append(File.generated(config, "commands.md", content=_commands()))
    files.append(File.generated(config, "reference.md", content=_reference()))
    for asset in sorted((*(HERE / "assets").iterdir(), *MADE.glob("*.js"))):
        files.append(File.generated(config, f"assets/{asset.name}", abs_src_path=str(asset)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links of a page in docs/ to pages outside."""
    if page.file.src_uri in {*OUTSIDE.values(), "commands.md", "reference.md"}:
        return markdown
    return _relinked(markdown, PurePosixPath("docs") / page.file.src_uri)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """The page with its own copy of the script that the theme would load from elsewhere, a name of its dialog, no head
    of a column that has none, and wide tables that can be scrolled.
    """
    up = "../" * page.file.dest_uri.count("/")
    output = (
        _TABLE.sub(_scrollable, output)
        .replace("<th></th>", "<td></td>")
        .replace(_WORKER, f"{up}assets/iframe-worker.js")
    )
    return output.replace(_DIALOG, f'{_DIALOG} aria-label="Search"')


def _scrollable(table: re.Match[str]) -> str:
    """A table with many columns in a box that scrolls, also by keyboard."""
    columns = table[0].partition("</thead>")[0].count("</th>")
    if columns <= _MOST_COLUMNS:
        return table[0]
    return f'<div class="wide" role="group" aria-label="Table" tabindex="0">{table[0]}</div>'


def on_post_template(output_content: str, template_name: str, **_: Any) -> str:
    """As `on_post_page`, for the page of missing pages."""
    return output_content.replace(_WORKER, "assets/iframe-worker.js")


def _of_notebook(text: str) -> str:
    """Markdown of a notebook without outputs: its text, and its cells as blocks of code."""
    return "\n\n".join(_of_cell(cell) for cell in json.loads(text)["cells"])


def _of_cell(cell: Mapping[str, Any]) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    language, code = ("sh", source.removeprefix("%%sh\n")) if source.startswith("%%sh\n") else ("python", source)
    return f"```{language}\n{code}\n```"


def _relinked(text: str, source: PurePosixPath) -> str:
    """The text with links as they lead from the page of the site that `source`, a page of the repository, becomes."""
    page = _page_of(source)
    assert page is not None

    def relinked(link: re.Match[str]) -> str:
        path, hash_, anchor = link["target"].partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return link[0]
        target = PurePosixPath(*_normal((source.parent / path).parts))
        place = _page_of(target)
        if place is None:
            return f"`{target}`" if link["text"] == str(target) else f"{link['text']} (`{target}`)"
        up = "../" * len(page.parent.parts)
        return f"{link['image']}[{link['text']}]({up}{place}{hash_}{anchor})"

    return _LINK.sub(relinked, text)


def _normal(parts: tuple[str, ...]) -> list[str]:
    """The parts of a path without `..`."""
    found: list[str] = []
    for part in parts:
        if part == "..":
            found.pop()
        else:
            found.append(part)
    return found


def _page_of(path: PurePosixPath) -> PurePosixPath | None:
    """Where a file of the repository is in the site; None if it is not there."""
    if str(path) in OUTSIDE:
        return PurePosixPath(OUTSIDE[str(path)])
    is_in = path.parts[:1] == ("docs",) and path.parts[:2] != ("docs", "openapi")
    return path.relative_to("docs") if is_in else None


def _commands() -> str:
    """The help of every command and subcommand."""
    parts = ["# Command line", ""]
    context = click.Context(cli, info_name="glam-deploy", max_content_width=_WIDTH, terminal_width=_WIDTH)
    for name in sorted(cli.list_commands(context)):
        command = cli.get_command(context, name)
        assert command is not None
        parts += _help(command, context, name, "##")
        if isinstance(command, click.Group):
            inner = click.Context(command, info_name=name, parent=context)
            for each, subcommand in sorted(command.commands.items()):
                parts += _help(subcommand, inner, each, "###")
    return "\n".join(parts)


def _help(command: click.Command, parent: click.Context, name: str, level: str) -> list[str]:
    context = click.Context(command, info_name=name, parent=parent, max_content_width=_WIDTH, terminal_width=_WIDTH)
    title = context.command_path.removeprefix("glam-deploy ")
    return [f"{level} {title}", "", "```text", command.get_help(context), "```", ""]


def _reference() -> str:
    """The public names, from their docstrings."""
    names = [name for name in glam_deploy.__all__ if not name.startswith("_")]
    places = [f"glam_deploy.{glam_deploy._MODULES[name]}.{name}" for name in names]
    return "\n\n".join(["# Python", "`import glam_deploy` gives these names.", *(f"::: {place}" for place in places)])


def on_post_build(config: Any, **_: Any) -> None:
    """Leave no page of docs/openapi out: programs read these files."""
    shutil.copytree(ROOT / "docs/openapi", Path(config["site_dir"]) / "openapi", dirs_exist_ok=True)
