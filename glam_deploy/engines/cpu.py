"""The processor: its instruction sets, its name, and how many of its cores this process may use."""

import logging
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from math import ceil
from pathlib import Path

from glam_deploy.engines.base import EngineOptions

CPUINFO = Path("/proc/cpuinfo")

BF16 = ("avx512_bf16", "amx_bf16")
"""Any of these computes in bf16."""

Features = frozenset[str]

CGROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")

log = logging.getLogger(__name__)


def features(cpuinfo: Path = CPUINFO) -> Features:
    """Instruction sets of the first processor, such as "avx2" or "amx_bf16"; empty where the file does not tell."""
    lines = _lines(cpuinfo)
    return frozenset(_value(lines, "flags").split() or _value(lines, "Features").split())  # x86; ARM


def model(cpuinfo: Path = CPUINFO) -> str:
    """Name of the processor; its architecture, such as "aarch64", where the file does not give one."""
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
    """Cores of this process's affinity, or the CPU time that its control groups allow, rounded up, where that is less.

    Read from cpu.max (cgroup v2) or cpu.cfs_quota_us and cpu.cfs_period_us (v1) of the group and of those above it
    (Linux Documentation/admin-guide/cgroup-v2.rst, scheduler/sched-bwc.rst).
    """
    return max(1, min([len(os.sched_getaffinity(0)), *(ceil(quota) for quota in _quotas(cgroups, membership))]))


def within_cores(options: EngineOptions) -> EngineOptions:
    """The same with no more threads and streams than this process has cores; a warning in the log says so.

    More threads than cores take turns and wait for each other, so each run takes longer.
    """
    threads, streams = (_within(name, getattr(options, name)) for name in ("threads", "streams"))
    return replace(options, threads=threads, streams=streams)


def _within(what: str, wanted: int | None) -> int | None:
    if wanted is None or wanted <= (cores := usable_cores()):
        return wanted
    log.warning(
        "%s = %d: this process may use %d cores, so %d are used. Ask for no more, or give the process more cores.",
        what,
        wanted,
        cores,
        cores,
    )
    return cores


def _quotas(cgroups: Path, membership: Path) -> Iterator[float]:
    """Cores' worth of time, of every group that limits it."""
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
    """Folders of this process's groups, up to the root; in a container the root is the container's own group."""
    with suppress(OSError):
        for line in membership.read_text("utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            root = cgroups / "cpu" if controllers else cgroups
            inside = root / path.lstrip("/")
            yield from (folder for folder in (inside, *inside.parents) if folder.is_relative_to(root))
