"""Too little memory is the machine's fault (exit code 3), not that of the bundle, the graph or this program."""

import errno
import os
import re
from pathlib import Path

import pytest
from support.commands import start_process
from support.tiny_bundle import write_tiny_bundle

from glam_deploy.cli.main import status_of
from glam_deploy.errors import BackendUnavailable, BundleError
from glam_deploy.memory import too_little_memory

LIMITED = """
import resource, sys
import glam_deploy
from glam_deploy.cli.main import status_of
from glam_deploy.engines import onnxruntime

open_session = onnxruntime.open_session

def limited(*arguments):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used, resource.RLIM_INFINITY))
    try:
        return open_session(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

if sys.argv[2] == "limited":
    onnxruntime.open_session = limited
sys.exit(status_of(lambda: glam_deploy.load(sys.argv[1], engine="onnx") and 0))
"""


def raised(error: BaseException) -> int:
    def program() -> None:
        raise error

    return status_of(program)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        MemoryError("Unable to allocate 86.2 MiB for an array"),
        RuntimeError("Check 'ptr' failed at cpu_memory.cpp:257:\nFailed to allocate 112971840 bytes of memory\n\n"),
        RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: std::bad_alloc"),
        RuntimeError("can't start new thread"),
        ImportError("liba.so: failed to map segment from shared object"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
    ],
)
def test_what_says_so(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    assert raised(error) == BackendUnavailable.exit_code
    told = capsys.readouterr().err
    assert (
        re.search(r"too little memory.* \(.+\): end other programs, or raise the limits", told) and "\n\n" not in told
    )


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("No such operator"),
        ImportError("liba.so: failed to map segment from shared object: Operation not permitted"),
        BundleError("the graph std::bad_alloc.onnx is damaged"),
    ],
)
def test_what_does_not(error: Exception) -> None:
    assert too_little_memory(error) is None


@pytest.mark.parametrize(("limit", "code"), [("unlimited", 0), ("limited", BackendUnavailable.exit_code)])
def test_a_session_that_gets_no_memory(tmp_path: Path, limit: str, code: int) -> None:
    write_tiny_bundle(tmp_path)
    process = start_process(tmp_path, limit, code=LIMITED)
    _, told = process.communicate()
    assert process.returncode == code, told
    assert ("too little memory" in told, "rejects it" in told) == (bool(code), False)
