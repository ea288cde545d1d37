"""`doctor` about the copy for a second node: whether it is current, and why deliveries are held."""

import json
from pathlib import Path

import pytest
from support.commands import Cli
from support.jobs import config_of, made, send

from glam_deploy.appliance.backup.copying import copy_data
from glam_deploy.appliance.backup.replication import Fence, fence_of
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.state.overview import Component
from glam_deploy.cli import console
from glam_deploy.cli.doctor import _table
from glam_deploy.cli.doctor_findings import FAILS, fails
from glam_deploy.cli.doctor_standby import standby
from glam_deploy.records import View


@pytest.fixture
def config(tmp_path: Path) -> Config:
    config = config_of(tmp_path, f'[standby]\nfolder = "{tmp_path}/copy"')
    made(config)
    send(config, View.L_CC)
    return config


@pytest.fixture
def fence(config: Config) -> Fence:
    fence = fence_of(config)
    assert fence
    copy_data(fence.data, fence.copy, standby=True)
    fence.remember()
    return fence


def told(config: Config, **last: object) -> tuple[str, str]:
    values = {"state": "ready", "detail": {}, "age": 1.0} | last
    (finding,) = standby(config, {"standby": Component(name="standby", **values)})  # type: ignore[arg-type]
    return finding.state, finding.found


@pytest.mark.parametrize(
    ("last", "state", "found"),
    [
        ({}, "ok", "is 1 s old"),
        ({"age": 3600.0}, FAILS, "is 3600 s old"),
        ({"state": "failing", "detail": {"reason": "no space"}}, FAILS, "no space"),
    ],
)
def test_the_last_copy(config: Config, fence: Fence, last: dict[str, object], state: str, found: str) -> None:
    finding = told(config, **last)
    assert finding[0] == state
    assert found in finding[1]


def test_ready_tells_who_has_taken_over(cli: Cli, config: Config, fence: Fence, tmp_path: Path) -> None:
    text = 'license_acknowledged = true\ndata = "data"\nworker = { bundle = "bundle" }\nstandby = { folder = "copy" }\n'
    (tmp_path / "glam.toml").write_text(text)
    ready = ("doctor", "--ready", "--config", tmp_path / "glam.toml")
    assert "taken over" not in cli(*ready).out
    fence.copy.mark_taken_over()
    said = cli(*ready)
    assert said.code == 1 and "has taken over at" in said.out.splitlines()[0]
    assert "has taken over at" in json.loads(cli(*ready, "--json").out)["reasons"][0]


def test_no_word_of_a_table_is_cut() -> None:
    path = "/" + "long/" * 60 + "operations.md"
    with console.out.capture() as said:
        console.out.print(_table([fails("standby", "taken over", path)]), width=80)
    words = "".join(line.strip("\u2502| ").rpartition("\u2502")[2].strip() for line in said.get().splitlines())
    assert path in words


def test_a_hold_and_a_first_copy(config: Config, fence: Fence, tmp_path: Path) -> None:
    assert [finding.state for finding in standby(config, {})] == ["note"]
    assert list(standby(config_of(tmp_path), {})) == []
    fence.copy.mark_taken_over()
    state, found = told(config)
    assert state == FAILS
    assert "has taken over" in found
