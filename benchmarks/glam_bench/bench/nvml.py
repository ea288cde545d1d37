"""What an NVIDIA GPU has drawn, by NVML: the library of its driver, asked through its C interface."""

import ctypes
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
SUCCESS = 0


class GpuEnergy:
    """Joules of one GPU. Source of the calls: NVIDIA's NVML API reference."""

    def __init__(self, index: int = 0, library: Any = None) -> None:
        """`index` is NVML's; `library` stands in for the driver's."""
        self._handle = ctypes.c_void_p()
        try:
            self._nvml = library or ctypes.CDLL(LIBRARY)
        except OSError:
            self._nvml = None
            return
        self._ready = self._nvml.nvmlInit_v2() == SUCCESS and (
            self._nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(index), ctypes.byref(self._handle)) == SUCCESS
        )

    def joules(self) -> float | None:
        """Since the driver was loaded; None where there is no such GPU, or one that does not count (before Volta)."""
        millijoules = ctypes.c_ulonglong()
        if self._nvml is None or not self._ready:
            return None
        told = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle, ctypes.byref(millijoules))
        return millijoules.value / 1e3 if told == SUCCESS else None
