"""What this processor can do, in the words of Linux."""

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")

BF16 = ("avx512_bf16", "amx_bf16")
"""Any of these computes in bf16."""

Features = frozenset[str]


def features(cpuinfo: Path = CPUINFO) -> Features:
    """Instruction sets of the first processor, such as "avx2" or "amx_bf16"; empty where the file does not tell."""
    lines = _lines(cpuinfo)
    return frozenset(_value(lines, "flags").split() or _value(lines, "Features").split())  # x86; ARM


def model(cpuinfo: Path = CPUINFO) -> str:
    """Name of the processor, "unknown" where the file does not tell."""
    return _value(_lines(cpuinfo), "model name") or "unknown"


def _lines(cpuinfo: Path) -> list[str]:
    try:
        return cpuinfo.read_text("utf-8").splitlines()
    except OSError:
        return []


def _value(lines: list[str], key: str) -> str:
    named = (line.partition(":") for line in lines)
    return next((value.strip() for name, _, value in named if name.strip() == key), "")
