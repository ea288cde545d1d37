"""docs/appliance.md and docs/conformance.md say what the code does: every key with its default, statuses, contexts."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pytest
from pydantic.fields import FieldInfo
from pydicom.uid import UID
from support.commands import ROOT

from glam_deploy.appliance.config import Config, Section, parse_config
from glam_deploy.appliance.ingest import Status
from glam_deploy.cli import init
from glam_deploy.cli.main import exit_code
from glam_deploy.dicom.mammography import IMPLEMENTATION_UID

MANUAL = (ROOT / "docs/appliance.md").read_text("utf-8")
STATEMENT = (ROOT / "docs/conformance.md").read_text("utf-8")
ROW = re.compile(r"^\| `(\w+)` \| (.+?) \|", re.MULTILINE)
HEAD = "license_acknowledged = true\ndata = 'x'\n"


def documented() -> dict[str, dict[str, str]]:
    """Section -> key -> default, as the tables say; "" is the top of the file."""
    chapter = MANUAL.split("## Every key of the configuration")[1].split("\n## ")[0]
    top, *rest = re.split(r'^`\[+([\w.]+)\]+`(?: with `kind = "(\w+)"`)?', chapter, flags=re.MULTILINE)
    tables = zip(rest[::3], rest[1::3], rest[2::3], strict=True)
    return {"": dict(ROW.findall(top))} | {
        f"{name} {kind}" if kind else name: dict(ROW.findall(text)) for name, kind, text in tables
    }


def sections(model: type[Section], name: str = "") -> Iterator[tuple[str, type[Section]]]:
    """Every table of the file: its name and its keys."""
    yield name, model
    for key, info in model.model_fields.items():
        for inner in models_in(info.annotation):
            kind = inner.model_fields.get("kind")
            kinds = f" {get_args(kind.annotation)[0]}" if kind else ""
            yield from sections(inner, f"{name}.{key}{kinds}".lstrip("."))


def models_in(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    if get_origin(annotation) in (UnionType, Union, tuple, Annotated):
        return [model for part in get_args(annotation) for model in models_in(part)]
    return []


def default(info: FieldInfo) -> str:
    """As the tables write it: TOML, or none where the key must or may be left out."""
    value = info.get_default()
    return "none" if info.is_required() or value is None or value == () else f"`{json.dumps(value)}`"


def test_every_key_is_documented_with_its_default() -> None:
    tables = documented()
    for name, model in sections(Config):
        if name.endswith(".tls") and name != "receive.tls":
            continue  # the same three keys, named in the row of `tls`
        own = {key: info for key, info in model.model_fields.items() if name != "" or not models_in(info.annotation)}
        assert tables.pop(name) == {key: default(info) for key, info in own.items()}, name
    assert tables == {}


def test_the_configuration_of_the_quick_start_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "require_free_ports", lambda ports: None)
    monkeypatch.chdir(tmp_path)
    (line,) = re.findall(r"^/opt/glam-deploy/bin/glam-deploy (init .+ --user root .+)$", MANUAL, re.MULTILINE)
    assert exit_code(shlex.split(line)) == 0
    config = parse_config((tmp_path / "try/glam.toml").read_text("utf-8"), folder=tmp_path / "try")
    assert [target.port for target in config.targets] == [4243]
    assert (config.web.port, config.worker.bundle) == (8044, tmp_path / "demo/bundle")


def test_plain_listener_off_as_documented(tmp_path: Path) -> None:
    config = parse_config(f"{HEAD}worker = {{ bundle = 'b' }}\nreceive = {{ port = false }}", folder=tmp_path)
    assert config.receive.port is None


def test_statement_has_every_status() -> None:
    table = STATEMENT.split("SOP-specific conformance: Storage")[1].split("####")[0]
    assert set(re.findall(r"^\| [^|]+ \| ([0-9A-F]{4}) \|", table, re.MULTILINE)) == {f"{s.value:04X}" for s in Status}


def test_statement_names_uids_as_the_standard_does() -> None:
    named = re.findall(r"([A-Z][A-Za-z/ -]+?) (?:\()?(1\.2\.840\.10008\.[\d.]*\d)", STATEMENT)
    assert len(named) > 8
    for name, uid in named:
        assert UID(uid).name.endswith(name.strip(" -")) or name.strip() in UID(uid).name, (name, uid, UID(uid).name)
    assert str(IMPLEMENTATION_UID) in STATEMENT
