"""No more threads than cores, as affinity and control groups have them."""

import logging
import os
from pathlib import Path

import pytest

from glam_deploy.engines import cpu
from glam_deploy.engines.base import EngineOptions
from glam_deploy.engines.cpu import usable_cores, within_cores

AFFINITY = len(os.sched_getaffinity(0))


def v2(folder: Path, **quotas: str) -> tuple[Path, Path]:
    """Control groups: name of a group below the last -> its cpu.max."""
    place = folder / "cgroup"
    for name, quota in quotas.items():
        place = place / name
        place.mkdir(parents=True)
        (place / "cpu.max").write_text(quota + "\n")
    (folder / "self").write_text(f"0::/{'/'.join(quotas)}\n")
    return folder / "cgroup", folder / "self"


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        ({"pod": "max 100000"}, AFFINITY),
        ({"pod": "100000 100000"}, 1),
        ({"pod": "110000 100000"}, min(AFFINITY, 2)),
        ({"pod": "50000 100000", "container": "max 100000"}, 1),
        ({"pod": "max 100000", "container": "20000 100000"}, 1),
        ({"pod": "no quota"}, AFFINITY),
        ({}, AFFINITY),
    ],
)
def test_quota_of_version_2(tmp_path: Path, quotas: dict[str, str], expected: int) -> None:
    assert usable_cores(*v2(tmp_path, **quotas)) == expected


@pytest.mark.parametrize(("quota", "expected"), [(-1, AFFINITY), (100_000, 1), (50_000, 1)])
def test_quota_of_version_1(tmp_path: Path, quota: int, expected: int) -> None:
    group = tmp_path / "cgroup/cpu/docker"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "self").write_text("5:memory:/docker\n4:cpu,cpuacct:/docker\n")
    assert usable_cores(tmp_path / "cgroup", tmp_path / "self") == expected


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "cgroup/cpu.max").write_text("100000 100000\n")
    (tmp_path / "self").write_text("0::/\n")
    assert usable_cores(tmp_path / "cgroup", tmp_path / "self") == 1


def test_a_system_without_control_groups(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "none", tmp_path / "none") == AFFINITY


def test_more_than_there_are_is_said_and_not_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cpu, "usable_cores", lambda: 2)
    assert within_cores(EngineOptions(threads=2, streams=1)) == EngineOptions(threads=2, streams=1)
    assert within_cores(EngineOptions()) == EngineOptions()
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        assert within_cores(EngineOptions(threads=64, streams=3)) == EngineOptions(threads=2, streams=2)
    assert "threads = 64: this process may use only 2 cores, so 2 are used" in caplog.text
    assert "streams = 3: this process may use only 2 cores, so 2 are used" in caplog.text
