"""Compile the kernels for the CPU.

The library exports for each kernel NAME `void glam_host_NAME(const unsigned grid[3], const unsigned block[3], void**
arguments)`, where `arguments` points at the argument values as for cuLaunchKernel; it returns when the launch is done.
Addresses are those of this process. `unsigned glam_host_parameters_NAME(size_t* sizes)` gives the number of parameters
and writes the bytes of each. `void glam_host_backwards(int)` turns the order of blocks and threads round.
"""

import hashlib
import shutil
import subprocess
from pathlib import Path

from glam_deploy.gpu.kernels.launch import kernels_of
from glam_deploy.gpu.kernels.source import source
from glam_deploy.networks import GLAM, NetworkSpec

SHIM = Path(__file__).parent / "shim.h"
COMPILER = ("g++", "-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off")
QUIET = ("-U_FORTIFY_SOURCE", "-Wall", "-Werror", "-Wno-unknown-pragmas")
"""Fibers jump between stacks, which glibc's fortified longjmp forbids; CUDA's pragmas are not g++'s."""


def missing() -> str:
    """What this machine lacks to build the kernels, or nothing."""
    return "" if shutil.which(COMPILER[0]) else f"the compiler {COMPILER[0]}"


def build_kernels(folder: Path, network: NetworkSpec = GLAM) -> Path:
    """The shared library in `folder`, which exists; built there unless it is up to date."""
    exports = "".join(f"GLAM_HOST({name})\n" for name in kernels_of(network))
    text = f'#include "{SHIM}"\n{source(network)}\n{exports}'
    key = hashlib.sha256((text + SHIM.read_text("utf-8")).encode()).hexdigest()[:16]
    library = folder / f"kernels-{key}.so"
    if not library.exists():
        unit, partial = folder / f"kernels-{key}.cpp", library.with_suffix(".partial")
        unit.write_text(text, "utf-8")
        subprocess.run([*COMPILER, *QUIET, "-o", partial, unit], check=True)
        partial.rename(library)
    return library
