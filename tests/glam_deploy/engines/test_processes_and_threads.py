"""Engines in several threads at once, and in forked and spawned processes: each ends, or says what it needs."""

import subprocess
from pathlib import Path

import pytest
from expected import need_engine
from support.commands import start_process

PATIENCE_S = 240
THREADS = """
import sys, threading
from glam_deploy.engines import openvino as owner
import openvino
barrier = threading.Barrier(3)
def first():
    barrier.wait()
    openvino.Type.f32.to_dtype()
threads = [threading.Thread(target=first) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("done")
"""
"""Without the second line it deadlocks in 6 of 8 processes (OpenVINO 2026.4.1)."""


@pytest.mark.parametrize("attempt", range(3))
def test_openvino_in_three_threads_at_once(attempt: int) -> None:
    need_engine("openvino")
    process = start_process(code=THREADS)
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        pytest.fail("deadlock")
    assert (process.returncode, out) == (0, "done\n"), err


def scores(bundle: Path, engine: str, method: str, where: str) -> list[str]:
    """What the parent found, and what its child did."""
    need_engine(engine)
    process = start_process(
        bundle,
        engine,
        method,
        where,
        code="from support import processes; processes.main()",
    )
    out, err = process.communicate()
    assert process.returncode == 0, err
    return out.splitlines()


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("where", ["parent", "child"])
@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_a_forked_child_computes_the_same(golden_bundle: Path, engine: str, where: str) -> None:
    before, after = scores(golden_bundle, engine, "fork", where)
    assert float(after) == pytest.approx(float(before), abs=1e-6)


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("where", ["parent", "child"])
def test_a_forked_child_of_torch_is_refused_at_once(golden_bundle: Path, where: str) -> None:
    """Its OpenMP waits for ever for threads that only the parent has."""
    _, after = scores(golden_bundle, "torch", "fork", where)
    assert after.startswith("BackendUnavailable: " if where == "child" else "BackendRunError: ")
    assert "multiprocessing.get_context('spawn')" in after


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("engine", ["onnx", "openvino", "torch"])
def test_a_spawned_child_computes_the_same(golden_bundle: Path, engine: str) -> None:
    before, after = scores(golden_bundle, engine, "spawn", "child")
    assert float(after) == pytest.approx(float(before), abs=1e-6)
