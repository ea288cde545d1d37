"""Compilation of CUDA C++ to cubin by NVRTC, and loaded kernels with checks of their launch arguments."""

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
    """Compile C++17 `source` to a cubin for one architecture, for `Gpu.load`.

    `architecture`: "sm_90" for compute capability 9.0. `name`: file name of the source in NVRTC's messages. Contraction
    to FMA is disabled, so that FP32 results equal those of the same operations in numpy. Raises BackendUnavailable if
    cuda.core or NVRTC is missing, BackendBuildError with NVRTC's message if it rejects the source or the architecture.
    """
    core = cuda_core()
    try:
        program = core.Program(source, "c++", core.ProgramOptions(arch=architecture, std="c++17", fma=False, name=name))
    except RuntimeError as error:  # the first Program loads the NVRTC library
        raise BackendUnavailable(
            f"NVRTC, which compiles CUDA kernels, is missing ({error}). {install_remedy()}"
        ) from error
    try:
        return bytes(program.compile("cubin").code)
    except Exception as error:  # NVRTCError is not public
        message = str(error).strip("\0\n ")
        raise BackendBuildError(f"{name} does not compile for {architecture}. NVRTC's message: {message}") from error
    finally:
        program.close()


Argument = int | np.generic
"""Kernel argument: a numpy scalar is passed with its own type, a plain int as a 64-bit device address."""


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A loaded `__global__` function."""

    name: str
    handle: Any
    sizes: tuple[int, ...]
    """Size of each parameter in bytes, from the compiled code."""
    module: "Module"
    """Keeps the module with the code loaded."""

    def packed(self, arguments: Sequence[Argument]) -> list[NDArray[Any]]:
        """Convert each argument to a 0-d array. Raises BackendRunError if number or sizes are not the kernel's.

        The driver reads the arguments by their addresses and cannot detect such an error.
        """
        values = [_value(argument) for argument in arguments]
        if tuple(value.nbytes for value in values) != self.sizes:
            given = [f"{value.dtype} ({value.nbytes})" for value in values]
            raise BackendRunError(
                f"kernel {self.name}: the arguments are {given}, expected parameters of {list(self.sizes)} bytes"
            )
        return values


class Module(Resource):
    """The kernels of one cubin."""

    def __init__(self, context: Context, cubin: bytes) -> None:
        super().__init__(context, context.call("cuModuleLoadData", cubin), release="cuModuleUnload")

    def kernel(self, name: str) -> Kernel:
        """The kernel of this name, with its code loaded eagerly, so that its first launch can be captured in a graph.

        Raises BackendRunError if the cubin has no such kernel.
        """
        handle = self.context.call("cuModuleGetFunction", self.handle, name.encode())
        self.context.call("cuFuncLoad", handle)
        return Kernel(name=name, handle=handle, sizes=tuple(self._sizes(handle)), module=self)

    def _sizes(self, handle: Any) -> Iterator[int]:
        """Sizes of the parameters, queried until an index is invalid because cuFuncGetParamCount needs CUDA 13.1."""
        for index in count():
            offset_and_size = self.context.call("cuFuncGetParamInfo", handle, index, unless="CUDA_ERROR_INVALID_VALUE")
            if offset_and_size is None:
                return
            yield offset_and_size[1]


def _value(argument: Argument) -> NDArray[Any]:
    if isinstance(argument, np.generic):
        return np.asarray(argument)
    if isinstance(argument, int) and not isinstance(argument, bool):
        return np.asarray(argument, np.uint64)
    raise BackendRunError(f"kernel argument is {argument!r}, expected a numpy scalar or, for a device address, an int")
