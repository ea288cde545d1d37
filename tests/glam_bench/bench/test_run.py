"""A whole bench on stand-ins: children that run the engine of `support.engines`."""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.bundles import fill
from support.commands import PATHS, start_process, strict

from glam_bench import report, schema, worker
from glam_bench.bench import bench, write
from glam_bench.ladder.settings import QUICK, Settings
from glam_deploy.records import View
from glam_export.demo.phantom import phantom_view

STAND_IN = (
    f"import sys; sys.path[:0] = {[str(path) for path in PATHS]!r}\n"
    "from support import engines as support_engines; support_engines.install()\n"
    "from glam_bench.child import main; main()"
)
PATIENT = (
    "from glam_bench import worker; import sys\n"
    "worker.CHILD = (sys.executable, '-c', 'import os, time; "
    'open("child", "w").write(str(os.getpid())); time.sleep(60)\')\n'
    "from glam_deploy.cli.main import main; main()"
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Its weights and graphs are no such things: only the stand-in runs."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    fill(folder)
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a_L-CC.npy"
    np.save(path, phantom_view(0, View.L_CC, shape=(2048, 1536)).pixels)
    return path


@pytest.mark.slow
def test_a_whole_bench(bundle: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "CHILD", (sys.executable, "-c", STAND_IN))
    told: list[str] = []
    settings = Settings(
        bundle=bundle, engines=("auto", "onnx"), patches=2, images=(image,), baselines=False, minutes=0, pace=QUICK
    )
    results = bench(settings, told.append)
    assert list(schema.faults(results)) == []
    published, onnx = results["ladder"]
    assert results["settings"]["engines"] == ["onnx"]
    assert "weights" in str(published["unavailable"])
    assert onnx["latency_ms"] is not None
    assert [len(window) for window in onnx["latency_ms"]["windows"]] == [1]
    assert onnx["gate"] == {"verdict": "reference", "id": None, "failures": []}
    assert (published["gate"], results["frontier"]) == (None, None)
    assert onnx["parity"] is not None
    assert (onnx["parity"]["same_patches"], onnx["parity"]["per_case"][0]["case"]) == (1, "a_L-CC")
    assert results["files"] is not None
    assert {name: row["views"] for name, row in results["files"].items()} == {"one view": 1, "folder": 2}
    # graphs that are none cost the roofline alone
    assert results["roofline"] is None
    assert any(notice.startswith("roofline: not measured") for notice in results["notices"])
    write(results, tmp_path / "out/bench.json")
    assert schema.read(tmp_path / "out/bench.json") == strict((tmp_path / "out/bench.json").read_text())
    report.write(results, tmp_path / "out/bench.html")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["bench.html", "bench.json"]


def test_ctrl_c_ends_the_children_and_leaves_nothing(bundle: Path, image: Path, tmp_path: Path) -> None:
    arguments = ("bench", "--bundle", bundle, "--engine", "onnx", "--images", image)
    process = start_process(*arguments, code=PATIENT, cwd=tmp_path)
    child = tmp_path / "child"
    assert process.stderr is not None
    while not (child.exists() and child.read_text()):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    with pytest.raises(ProcessLookupError):
        os.kill(int(child.read_text()), 0)
    assert not (tmp_path / "bench").exists()
