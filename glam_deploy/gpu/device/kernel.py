"""CUDA C++ compiled to cubin by NVRTC, and compiled kernels on a GPU with their arguments as the driver takes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_deploy.errors import BackendBuildError, BackendRunError, BackendUnavailable
from glam_deploy.gpu.device.context import Context, Resource
from glam_deploy.gpu.device.driver import cuda_core, install_remedy


def compile_cubin(source: str, *, architecture: str, name: str) -> bytes:
    """Machine code of `source` for one architecture, as `Gpu.load` takes it.

    `architecture` is "sm_90" for compute capability 9.0; `name` stands for the source in NVRTC's messages. C++17;
    multiplications and additions are never contracted, so that FP32 results are those of the same sums in numpy.
    Raises BackendUnavailable where cuda.core or NVRTC is missing, BackendBuildError with NVRTC's words where it
    refuses the source or the architecture.
    """
    core = cuda_core()
    try:
        program = core.Program(source, "c++", core.ProgramOptions(arch=architecture, std="c++17", fma=False, name=name))
    except RuntimeError as error:  # the library is loaded by the first program
        raise BackendUnavailable(
            f"NVRTC, which compiles CUDA kernels, is missing ({error}). {install_remedy()}"
        ) from error
    try:
        return bytes(program.compile("cubin").code)
    except Exception as error:  # NVRTCError is no public name
        words = str(error).strip("\0\n ")
        raise BackendBuildError(f"{name} does not compile for {architecture}. NVRTC says: {words}") from error
    finally:
        program.close()


Argument = int | np.generic
"""A numpy scalar goes as it is; a plain int is a device address, 64 bits."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A `__global__` function, loaded and ready to launch."""

    name: str
    handle: Any
    sizes: tuple[int, ...]
    """Bytes of each parameter, from the compiled code."""
    module: "Module"
    """Holds the code."""

    def packed(self, arguments: Sequence[Argument]) -> list[NDArray[Any]]:
        """One 0-d array for each argument. Raises BackendRunError where count or sizes are not the kernel's.

        The driver reads what lies at the arguments' addresses and cannot see a mistake: this is where it shows.
        """
        values = [_value(argument) for argument in arguments]
        if tuple(value.nbytes for value in values) != self.sizes:
            given = [f"{value.dtype} ({value.nbytes})" for value in values]
            raise BackendRunError(
                f"kernel {self.name}: its parameters take {list(self.sizes)} bytes, the arguments are {given}"
            )
        return values


class Module(Resource):
    """The kernels of one cubin."""

    def __init__(self, context: Context, cubin: bytes) -> None:
        super().__init__(context, context.call("cuModuleLoadData", cubin), release="cuModuleUnload")

    def kernel(self, name: str) -> Kernel:
        """The kernel of that name, wholly loaded, so that even its first launch may be recorded in a graph.

        Raises BackendRunError where the cubin has no such kernel.
        """
        handle = self.context.call("cuModuleGetFunction", self.handle, name.encode())
        self.context.call("cuFuncLoad", handle)
        return Kernel(name=name, handle=handle, sizes=tuple(self._sizes(handle)), module=self)

    def _sizes(self, handle: Any) -> Iterator[int]:
        """The driver counts parameters only since CUDA 13.1; before, an index too high is the end."""
        for index in count():
            place = self.context.call("cuFuncGetParamInfo", handle, index, unless="CUDA_ERROR_INVALID_VALUE")
            if place is None:
                return
            yield place[1]


def _value(argument: Argument) -> NDArray[Any]:
    if isinstance(argument, np.generic):
        return np.asarray(argument)
    if isinstance(argument, int) and not isinstance(argument, bool):
        return np.asarray(argument, np.uint64)
    raise BackendRunError(f"kernel argument {argument!r}: expected a numpy scalar or, for a device address, an int")
