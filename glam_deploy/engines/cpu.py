"""CPU properties: instruction sets, model name, and the number of cores that this process may use."""

import logging
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from math import ceil
from pathlib import Path

from glam_deploy.engines.base import EngineOptions

CPUINFO = Path("/proc/cpuinfo")

BF16 = ("avx512_bf16", "amx_bf16")
"""Instruction sets with bf16 arithmetic; one of them is enough."""

Features = frozenset[str]

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")

log = logging.getLogger(__name__)


def features(cpuinfo: Path = CPUINFO) -> Features:
    """Instruction sets of the first processor, such as "avx2" or "amx_bf16"; empty if `cpuinfo` has none."""
    lines = _lines(cpuinfo)
    return frozenset(_value(lines, "flags").split() or _value(lines, "Features").split())  # x86; ARM


def model(cpuinfo: Path = CPUINFO) -> str:
    """Model name of the processor; its architecture, such as "aarch64", if `cpuinfo` has no model name."""
    return _value(_lines(cpuinfo), "model name") or platform.machine()


def _lines(cpuinfo: Path) -> list[str]:
    try:
        return cpuinfo.read_text("utf-8").splitlines()
    except OSError:
        return []


def _value(lines: list[str], key: str) -> str:
    named = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in named if name.strip() == key), "")


def usable_cores(cgroups: Path = CGROUPS, membership: Path = MEMBERSHIP) -> int:
    """Number of cores that this process may use: those of its CPU affinity, limited by the CPU quota of its cgroups.

    Quotas are rounded up. They are read from cpu.max (cgroup v2) or cpu.cfs_quota_us and cpu.cfs_period_us (v1) of the
    process's cgroup and its parents
    (Linux Documentation/admin-guide/cgroup-v2.rst, scheduler/sched-bwc.rst).
    """
    return max(1, min([allowed_cores(), *(ceil(quota) for quota in _quotas(cgroups, membership))]))


def allowed_cores() -> int:
    """Number of cores of the CPU affinity of this process; all cores on macOS and Windows, where Python has none."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def within_cores(options: EngineOptions) -> EngineOptions:
    """Limit the threads and streams of `options` to the usable cores; a reduction is logged as a warning.

    With more threads than cores each run takes longer, because the threads wait for each other.
    """
    threads, streams = (_within(name, getattr(options, name)) for name in ("threads", "streams"))
    return replace(options, threads=threads, streams=streams)


def _within(option: str, requested: int | None) -> int | None:
    if requested is None or requested <= (cores := usable_cores()):
        return requested
    log.warning(
        "%s = %d: this process may use only %d cores, so %d are used. Set a lower number, or give the process more "
        "cores.",
        option,
        requested,
        cores,
        cores,
    )
    return cores


def _quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    """CPU quotas in cores, one for each cgroup that has a limit."""
    for folder in _groups(cgroups, membership):
        with suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text("ascii").split()
            if quota != "max":
                yield int(quota) / int(period)
        with suppress(OSError, ValueError):
            quota_us = int((folder / "cpu.cfs_quota_us").read_text("ascii"))
            if quota_us > 0:
                yield quota_us / int((folder / "cpu.cfs_period_us").read_text("ascii"))


def _groups(cgroups: Path, membership: Path) -> Iterator[Path]:
    """Folders of the cgroups of this process, up to the root; in a container the root is the container's cgroup."""
    with suppress(OSError):
        for line in membership.read_text("utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            root = cgroups / "cpu" if controllers else cgroups
            inside = root / path.lstrip("/")
            yield from (folder for folder in (inside, *inside.parents) if folder.is_relative_to(root))
