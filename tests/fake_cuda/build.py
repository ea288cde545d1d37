"""The fake driver, compiled. Needs g++ and no CUDA toolkit."""

import subprocess
from pathlib import Path

SOURCE = Path(__file__).parent / "driver.cpp"
LIBRARY = "libcuda.so.1"
COMPILER = ("g++", "-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-fvisibility=hidden")


def build_driver(folder: Path) -> Path:
    """`folder`, with libcuda.so.1 in it."""
    command = [*COMPILER, f"-Wl,-soname,{LIBRARY}", "-o", folder / LIBRARY, SOURCE, "-ldl"]
    subprocess.run(command, check=True)
    return folder
