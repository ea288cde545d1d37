"""`glam-deploy gate` of one engine by the command line, with its defaults, and the engine that `auto` then selects."""

import os
import subprocess
from time import perf_counter
from typing import Any

from glam_bench.gpu.plan import GpuContext
from glam_deploy.bundle import Bundle, open_bundle
from glam_deploy.engines.base import EngineOptions
from glam_deploy.engines.selection import choose
from glam_deploy.errors import BackendRunError
from glam_deploy.installation import TREE
from glam_deploy.processes import python_command

SHOWN = 3000
"""Characters of the command's output that are kept."""


def run(context: GpuContext) -> None:
    """Gate the engine `context.argument` in the copy of the bundle, on the GPU of the options.

    The reference is computed on the CPU. Raises BackendRunError if the command fails or the engine does not pass.
    """
    start = perf_counter()
    code, output = _command("gate", "--engine", context.argument, "--bundle", context.bundle, context=context)
    context.add(exit_code=code, seconds=perf_counter() - start, output=output)
    bundle = open_bundle(context.bundle)
    context.add(**_verdict(bundle, context.argument))
    if code:
        raise BackendRunError(f"glam-deploy gate --engine {context.argument} ended with exit code {code}: {output}")
    choice = choose(bundle, EngineOptions(device=context.options.device or None))
    context.add(auto=choice.engine, auto_reason=choice.reason)


def _command(*arguments: object, context: GpuContext) -> tuple[int, str]:
    """Exit code of a command, and the end of its output. Raises TimeoutExpired when the measurement ends."""
    path = os.pathsep.join([*(str(TREE / folder) for folder in ("", "export")), os.environ.get("PYTHONPATH", "")])
    left = context.seconds_left
    process = subprocess.run(
        python_command("-m", "glam_deploy", *arguments, "--device", context.options.device),
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=None if left == float("inf") else left,
        check=False,
    )
    return process.returncode, process.stdout[-SHOWN:]


def _verdict(bundle: Bundle, engine: str) -> dict[str, Any]:
    """The newest verdict on the engine in the bundle; empty if there is none."""
    gate = next((gate for gate in reversed(bundle.gates) if gate.engine == engine), None)
    if gate is None:
        return {}
    return {
        "passed": gate.passed,
        "failures": list(gate.failures),
        "images": gate.images,
        "reference": gate.reference,
        "latency_ms": gate.latency_ms,
        "times_onnx": gate.times_onnx,
    }
