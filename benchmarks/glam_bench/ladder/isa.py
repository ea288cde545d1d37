"""What a processor's vector instructions can do at best: operations a cycle, times the measured clock, times the cores.

Operations of one core in a cycle (an addition and a multiplication are two) with the widest units that any core with
these flags has: two fused multiply-add units a core for AVX2 and AVX-512, one tile unit for AMX. Sources: Intel 64 and
IA-32 Architectures Optimization Reference Manual, chapters on AVX-512, VNNI and AMX; Agner Fog, Instruction tables.
A core with one AVX-512 unit, or at a lower clock under AVX-512, reaches less: this is an upper bound.
"""

import ctypes
import mmap
import os
import platform
from collections.abc import Mapping

from glam_bench.clock import Runs, host_ms
from glam_deploy.engines.cpu import Features, features

OPERATIONS: Mapping[str, tuple[tuple[str, int], ...]] = {
    "fp32": (("avx512f", 64), ("fma", 32), ("avx", 16)),
    "bf16": (("amx_bf16", 2048), ("avx512_bf16", 128)),
    "int8": (("amx_int8", 4096), ("avx512_vnni", 256), ("avx_vnni", 128), ("avx512bw", 256), ("avx2", 128)),
}
"""Type -> flag of /proc/cpuinfo and operations a cycle, the best first."""
CHAIN, PASSES, CYCLES = 2**15, 50, 3
"""Dependent multiplications in a row, how often, and the latency of one: 3 cycles on Intel and AMD since 2008."""
_CODE = bytes.fromhex("480fafc0") * CHAIN + b"\xc3"
"""imul rax, rax; ...; ret"""


def peaks() -> dict[str, float | None]:
    """Operations a second of all usable cores, by type; None where flags or clock are not known."""
    clock, cores = clock_hz(), len(os.sched_getaffinity(0))
    found = {name: operations_a_cycle(name, features()) for name in OPERATIONS}
    return {name: clock * cores * each if clock and each else None for name, each in found.items()}


def operations_a_cycle(precision: str, flags: Features) -> int | None:
    """Of one core; None where it has no instructions of that type that are known here."""
    return next((count for flag, count in OPERATIONS[precision] if flag in flags), None)


def clock_hz() -> float | None:
    """The clock at which one core runs now, from a chain of dependent multiplications; None where it cannot run.

    In a virtual machine /proc/cpuinfo has a nominal clock.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        return None
    try:
        page = mmap.mmap(-1, len(_CODE), prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:  # a system that forbids pages that are writable and executable
        return None
    page.write(_CODE)
    # the array keeps the page, and must go before it is closed
    held = (ctypes.c_char * len(_CODE)).from_buffer(page)
    chain = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(held))
    return CHAIN * CYCLES / (min(host_ms(chain, Runs.exactly(PASSES, warm_up=0))) / 1e3)
