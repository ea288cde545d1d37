"""The table of docs/releases.md: for which Python, system and extra every package has a wheel.

`make compatibility` prints it. uv resolves the requirements of setup.py for each system from PyPI, wheels only, with
the markers of that system. (pip takes the platform of wheels as an option too, but evaluates markers such as
`sys_platform` for the machine that it runs on, so it asks for packages of Linux on Windows.)
"""

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
SYSTEMS = {  # Debian 12 has glibc 2.36
    "Linux x86-64": "x86_64-manylinux_2_36",
    "Linux aarch64": "aarch64-manylinux_2_36",
    "macOS 14 arm64": "aarch64-apple-darwin",
    "Windows x86-64": "x86_64-pc-windows-msvc",
}
LEFT_OUT = {"dev", "tensorrt", "tensorrt-rtx"}
"""NVIDIA's packages of TensorRT are source distributions, which fetch or choose others as they are installed."""


def lacking(requirements: Iterable[str], python: str, platform: str) -> str | None:
    """None if all have wheels; else the first package that lacks them, or the message of uv."""
    options = [
        "--quiet",
        "--no-header",
        "--native-tls",
        "--only-binary",
        ":all:",
        "--default-index",
        "https://pypi.org/simple",
    ]
    command = [sys.executable, "-m", "uv", "pip", "compile", *options]
    command += ["--python-version", python, "--python-platform", platform, "-"]
    environment = os.environ | {"MACOSX_DEPLOYMENT_TARGET": "14.0"}
    done = subprocess.run(
        command, env=environment, input="\n".join(requirements), capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return None
    told = " ".join(done.stderr.split())
    named = re.search(r"Wheels are required for `([^`]+)`|([\w.-]+)\S* has no (?:usable )?wheels", told)
    return (named[1] or named[2]) if named else told


def cell(faults: Mapping[str, str | None]) -> str:
    """The versions of Python that install, and what the others lack. `faults`: version -> package."""
    good = [python for python, fault in faults.items() if fault is None]
    span = [good[0] if len(good) == 1 else f"{good[0]} to {good[-1]}"] if good else []
    for fault in dict.fromkeys(fault for fault in faults.values() if fault):
        bad = [python for python, other in faults.items() if other == fault]
        span.append(f"no wheel of {fault}" + (f" for {', '.join(bad)}" if len(bad) < len(faults) else ""))
    return "; ".join(span)


def main() -> None:
    """Print the table as Markdown."""
    lowest = runpy.run_path(str(Path(__file__).with_name("lowest.py")))
    wanted = {extra: [str(each) for each in lines] for extra, lines in lowest["required"]().items()}
    rows = {
        # what `cuda` has takes the place of onnxruntime
        extra: lines if extra in ("", "cuda") else wanted[""] + lines
        for extra, lines in wanted.items()
        if extra not in LEFT_OUT
    }
    cases = [*product(rows, SYSTEMS, PYTHONS)]
    with ThreadPoolExecutor(16) as pool:  # most of the time is spent waiting for the index
        found = pool.map(lambda case: lacking(rows[case[0]], case[2], SYSTEMS[case[1]]), cases)
        faults = dict(zip(cases, found, strict=True))
    lines = [f"| extra | {' | '.join(SYSTEMS)} |", f"|---|{'---|' * len(SYSTEMS)}"]
    for extra in rows:
        cells = [cell({python: faults[extra, system, python] for python in PYTHONS}) for system in SYSTEMS]
        lines.append(f"| {f'`{extra}`' if extra else '(none)'} | {' | '.join(cells)} |")
    sys.stdout.write("".join(f"{line}\n" for line in lines))


if __name__ == "__main__":
    main()
