"""Blocks of the pages: commands that are accepted, configuration that is one, Python that names what is there."""

import ast
import inspect
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pytest
from pacs.exams import write_exam
from support.commands import ROOT
from support.tiny_bundle import write_tiny_bundle

import glam_deploy
from glam_deploy.agreement.limits import parse_limits
from glam_deploy.appliance.config import Config
from glam_deploy.cli.main import COMMANDS, cli

PAGES = [
    ROOT / "README.md",
    *sorted(ROOT.glob("docs/**/*.md")),
    *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "benchmarks/README.md")),
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
CALL = re.compile(r"(?<![\w./`-])(?:/opt/glam-deploy/bin/)?glam-deploy (?=[a-z])")
REST = re.compile(r"\s*(?:;|\|\|?|&&?|\d?>|<)(?:\s|$)")
"""What ends the words of a command in a line of a shell."""
DRAWN = "\u2500"
"""Of lines in a diagram."""


def blocks(*languages: str) -> Iterator[tuple[str, str]]:
    """Name of the page and text of each block in one of these languages."""
    for page in PAGES:
        for language, text in BLOCK.findall(page.read_text("utf-8")):
            if language in languages:
                yield page.relative_to(ROOT).as_posix(), text


def calls() -> Iterator[Any]:
    """The words of each `glam-deploy` in a block of commands."""
    for page, text in blocks("", "sh", "bash"):
        for line in text.replace("\\\n", " ").splitlines():
            for call in CALL.finditer(line) if DRAWN not in line else ():
                words = shlex.split(REST.split(line[call.end() :])[0], comments=True)
                yield pytest.param(words, id=f"{page}: {line.strip()[:60]}")


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Commands only parse what they are given, and their names are here; files need not exist."""
    names: list[str] = []
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command
        for leaf in (command, *(command.commands.values() if isinstance(command, click.Group) else ())):
            monkeypatch.setattr(leaf, "callback", lambda *_, called=name, **__: names.append(called))
    monkeypatch.setattr(click.Path, "convert", lambda _self, value, *_: Path(value))
    return names


@pytest.mark.parametrize("words", list(calls()))
def test_commands_are_accepted(words: list[str], parsed: list[str]) -> None:
    cli.main(args=words, standalone_mode=False)
    assert words[0] in parsed


def test_modules_that_are_run_exist() -> None:
    text = "".join(page.read_text("utf-8") for page in PAGES)
    modules = set(re.findall(r"python3? -m (glam_\w+(?:\.\w+)*)", text))
    assert len(modules) > 5
    assert [name for name in modules if not find_spec(name)] == []


@pytest.mark.parametrize(("page", "text"), list(blocks("toml")))
def test_configuration_is_one(page: str, text: str) -> None:
    if page == "docs/gate.md":
        parse_limits(text)
        return
    keys: dict[str, Any] = {"license_acknowledged": True, "data": "x", "worker": {"bundle": "b"}} | tomllib.loads(text)
    Config.model_validate(keys)


@pytest.mark.parametrize(("page", "text"), list(blocks("python")))
def test_python_uses_what_is_there(page: str, text: str) -> None:
    """Names of the package, and the arguments of `load`."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "glam_deploy":
            assert hasattr(glam_deploy, node.attr), node.attr
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "glam_deploy.load":
            assert {keyword.arg for keyword in node.keywords} <= set(inspect.signature(glam_deploy.load).parameters)


def test_the_calls_of_the_page_of_gpus_run_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its first two blocks, which are not about memory of a GPU."""
    first, second, *_ = (text for page, text in blocks("python") if page == "docs/gpu.md")
    write_tiny_bundle(tmp_path / "bundle")
    paths = write_exam(tmp_path, "gpu")
    shutil.copy(paths[0], tmp_path / "0_L-CC.dcm")
    monkeypatch.chdir(tmp_path)
    views = [glam_deploy.read(path) for path in paths]
    names: dict[str, Any] = {"paths": paths, "first": views[0], "second": views[1]}
    names |= dict(zip(("l_cc", "r_cc", "l_mlo", "r_mlo"), views, strict=True))
    exec(first.replace('engine="fp16"', 'engine="onnx"') + second, names)
    expected = [view.view for view in views]
    assert [result.input.view for result in names["results"]] == expected


def test_the_certificates_of_the_manual_are_signed_by_their_authority(tmp_path: Path) -> None:
    """By all rules of RFC 5280, as peers with Python 3.13 demand."""
    (lines,) = (text for page, text in blocks("") if page == "docs/appliance.md" and "openssl req -x509" in text)
    subprocess.run(["bash", "-euc", lines], cwd=tmp_path, check=True, capture_output=True)
    for name in ("glam", "pacs"):
        verify = ["openssl", "verify", "-x509_strict", "-CAfile", "ca.pem", "-verify_hostname", name, f"{name}.pem"]
        assert (
            subprocess.run(verify, cwd=tmp_path, check=True, capture_output=True).stdout == f"{name}.pem: OK\n".encode()
        )
        assert (tmp_path / f"{name}.key").stat().st_mode & 0o777 == 0o600


def test_addresses_of_other_sites_are_ones() -> None:
    found = [(page, url) for page in PAGES for url in re.findall(r"\]\(([a-z]+:[^)\s]*)\)", page.read_text("utf-8"))]
    assert len(found) > 5
    for page, url in found:
        parts = urlsplit(url)
        assert parts.scheme in ("https", "mailto"), (page, url)
        assert parts.scheme == "mailto" or re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc), (page, url)
        assert not url.endswith((".", ",", ";")), (page, url)
