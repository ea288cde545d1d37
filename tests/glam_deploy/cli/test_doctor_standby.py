"""`doctor` about the copy for a second node: whether it is current, and why deliveries are held."""

from pathlib import Path

import pytest
from support.jobs import config_of, made, send

from glam_deploy.appliance.backup.copying import copy_data
from glam_deploy.appliance.backup.replication import Fence, fence_of
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.state.overview import Component
from glam_deploy.cli.doctor_findings import FAILS
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


def test_a_hold_and_a_first_copy(config: Config, fence: Fence, tmp_path: Path) -> None:
    assert [finding.state for finding in standby(config, {})] == ["note"]
    assert list(standby(config_of(tmp_path), {})) == []
    fence.copy.mark_taken_over()
    state, found = told(config)
    assert state == FAILS
    assert "has taken over" in found
