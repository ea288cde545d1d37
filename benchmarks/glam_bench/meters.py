"""Meters of the machine: clocks, load, energy of processor packages (RAPL) and GPU (NVML). None where it has none."""

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

CPUS = Path("/sys/devices/system/cpu")
POWERCAP = Path("/sys/class/powercap")
NVML = "libnvidia-ml.so.1"
"""The library of NVIDIA's driver. Source of the calls: NVML API reference."""
NVML_SUCCESS = 0


def clock_mhz(cpus: Path = CPUS, cpuinfo: Path = Path("/proc/cpuinfo")) -> float | None:
    """Mean clock over the cores, MHz."""
    kilohertz = [float(p.read_text()) for p in cpus.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    if kilohertz:
        return mean(kilohertz) / 1e3
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    megahertz = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    return mean(megahertz) if megahertz else None


def throttled(cpus: Path = CPUS) -> int | None:
    """How often cores were throttled by their temperature since the start of the system."""
    counts = [int(p.read_text()) for p in cpus.glob("cpu[0-9]*/thermal_throttle/core_throttle_count")]
    return sum(counts) if counts else None


def stolen(before: tuple[int, int], after: tuple[int, int]) -> float | None:
    """Share of processor time between two `processor_time`s that went to other virtual machines."""
    whole = after[1] - before[1]
    return (after[0] - before[0]) / whole if whole > 0 else None


def processor_time(stat: Path = Path("/proc/stat")) -> tuple[int, int]:
    """(stolen, all) ticks of all cores since the start of the system; (0, 0) where there is no such file."""
    if not stat.exists():
        return 0, 0
    # user nice system idle iowait irq softirq steal: proc(5)
    ticks = [int(word) for word in stat.read_text().split("\n", 1)[0].split()[1:9]]
    return (ticks[7] if len(ticks) > 7 else 0), sum(ticks)


def load() -> float:
    """Load average of the last minute."""
    return os.getloadavg()[0]


class EnergyMeter:
    """Joules that processor packages have drawn since this object was made, by RAPL; often readable for root alone."""

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self._last = dict(_counters(powercap))
        self._powercap = powercap
        self._joules = 0.0

    def joules(self) -> float | None:
        """None where no counter can be read. Call it at least once a minute, because the counters wrap around."""
        if not self._last:
            return None
        for domain, now in _counters(self._powercap):
            moved = now - self._last[domain]
            self._joules += (moved if moved >= 0 else moved + _microjoules(domain / "max_energy_range_uj")) / 1e6
            self._last[domain] = now
        return self._joules


class GpuEnergy:
    """Joules that one NVIDIA GPU has drawn, by NVML."""

    def __init__(self, index: int = 0, library: Any = None) -> None:
        """`index`: of NVML; `library`: in place of that of the driver."""
        self._handle = ctypes.c_void_p()
        try:
            self._nvml = library or ctypes.CDLL(NVML)
        except OSError:
            self._nvml = None
            return
        self._ready = self._nvml.nvmlInit_v2() == NVML_SUCCESS and (
            self._nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(self._handle)) == NVML_SUCCESS
        )

    def joules(self) -> float | None:
        """Since the driver was loaded; None where there is no such GPU, or one without a counter (before Volta)."""
        millijoules = ctypes.c_ulonglong()
        if self._nvml is None or not self._ready:
            return None
        status = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle, ctypes.byref(millijoules))
        return millijoules.value / 1e3 if status == NVML_SUCCESS else None


def _counters(powercap: Path) -> Iterator[tuple[Path, int]]:
    """(domain, microjoules) of each package; domains within a package (intel-rapl:0:1) are part of it."""
    for domain in sorted(powercap.glob("intel-rapl:[0-9]*")):
        if domain.name.count(":") == 1:
            try:
                yield domain, _microjoules(domain / "energy_uj")
            except OSError:
                continue


def _microjoules(file: Path) -> int:
    return int(file.read_text())
