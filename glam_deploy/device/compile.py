"""CUDA C++ -> cubin, with NVRTC. Needs neither a GPU nor its driver."""

from glam_deploy.device.driver import cuda_core, install_remedy
from glam_deploy.errors import BackendBuildError, BackendUnavailable


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
