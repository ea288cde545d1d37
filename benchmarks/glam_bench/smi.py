"""Clocks, power and what holds them down, as `nvidia-smi` tells. Never asked while something is being timed."""

import subprocess

FIELDS = (
    "name",
    "driver_version",
    "pstate",
    "clocks.sm",
    "clocks.mem",
    "clocks.max.sm",
    "clocks.max.mem",
    "power.draw",
    "power.limit",
    "temperature.gpu",
    "memory.used",
    "clocks_event_reasons.active",
)
"""`nvidia-smi --help-query-gpu`; clocks in MHz, power in W, memory in MiB, temperature in Celsius."""

REASONS = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "software power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clocks",
}
"""Bits of `clocks_event_reasons.active`. Source: NVML API reference, "nvmlClocksEventReasons"."""


def snapshot(index: int) -> dict[str, str | list[str]] | None:
    """FIELDS of one GPU and the reasons in words; None where there is no nvidia-smi or it does not answer.

    `index` is nvidia-smi's, which is CUDA's on a machine that shows one GPU.
    """
    command = ["nvidia-smi", f"--id={index}", f"--query-gpu={','.join(FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return parse(said)


def parse(said: str) -> dict[str, str | list[str]]:
    """One line of values, as FIELDS has them."""
    values: dict[str, str | list[str]] = dict(zip(FIELDS, map(str.strip, said.split(",")), strict=True))
    return values | {"clocks_held_down_by": reasons(str(values["clocks_event_reasons.active"]))}


def reasons(mask: str) -> list[str]:
    """Names of the bits of a hexadecimal mask; the text itself where it is none ("[N/A]")."""
    try:
        bits = int(mask, 16)
    except ValueError:
        return [mask]
    unknown = bits & ~sum(REASONS)
    return [name for bit, name in REASONS.items() if bits & bit] + ([hex(unknown)] if unknown else [])
