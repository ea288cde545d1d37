"""Ends of a command, of Ray's processes and of nodes; each in processes of its own."""

import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from PIL import Image
from pydicom import dcmread
from support.archive import outcomes_in, rows, write_mixture, write_views
from support.commands import start_process
from support.engines import small_view
from support.tiny_bundle import write_tiny_bundle
from support.until import until

import glam_deploy
from glam_deploy.archive.cleanup import users_of
from glam_deploy.archive.shipping import files_of
from glam_deploy.dicom.mammography import write_view
from glam_deploy.errors import BackendRunError
from glam_deploy.exams import made_by
from glam_deploy.outputs.overlay import overlay, to_png
from glam_deploy.records import View

pytestmark = pytest.mark.ray

RUN = """
import sys
from functools import partial
from pathlib import Path
from support.archive import plan_of
from support.until import until
from glam_bench.simulated_pipeline import Simulation
from glam_deploy.archive.cluster import local_cluster
from glam_deploy.archive.driver import Driver
from glam_deploy.cli.main import run

def program():
    folder, out, wait_s = sys.argv[1:]
    with local_cluster() as ray:
        print("started", flush=True)
        plan = plan_of(Path(folder), Path(out), opener=Simulation(wait_s=float(wait_s)), flush_rows=1)
        print(dict(Driver(ray, plan, progress=lambda driver: print(driver.counts.total(), flush=True)).run()))
    return 0

run(program)
"""
"""A whole command with the simulated pipeline, and with the handling of signals of the command line."""


@pytest.fixture
def room() -> Iterator[Path]:
    """A folder for Ray's files with a short path, as its sockets need."""
    with TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture
def start(room: Path, tmp_path: Path) -> Iterator[Any]:
    """Starts RUN with its own folder for Ray's files."""
    started = []
    # a folder to work in from which no process may import
    (tmp_path / "hostile").mkdir()
    for name in ("glam_deploy", "numpy", "json"):
        (tmp_path / f"hostile/{name}.py").write_text("raise SystemExit('imported from the current folder')")

    def begin(*arguments: object) -> subprocess.Popen[str]:
        environment = {"TMPDIR": str(room), "PYTHONSAFEPATH": "1"}
        process = start_process(*arguments, code=RUN, env=environment, cwd=tmp_path / "hostile")
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()
    until(lambda: not list(room.iterdir()))


def read_to(process: subprocess.Popen[str], line: str) -> None:
    """Read standard output up to this line."""
    assert process.stdout is not None
    for found in process.stdout:
        if found.strip() == line:
            return
    assert process.stderr is not None
    pytest.fail(f"the process ended before {line!r}: {process.stderr.read()}")


def test_a_killed_driver_leaves_no_process_and_the_next_run_completes(start: Any, room: Path, tmp_path: Path) -> None:
    expected = write_mixture(tmp_path / "in")
    for entries in ("3", "6"):
        process = start(tmp_path / "in", tmp_path / "out", 0.05)
        read_to(process, entries)
        assert users_of(room)
        process.kill()
        process.wait()
        until(lambda: not list(room.iterdir()))
        assert users_of(room) == []
    process = start(tmp_path / "in", tmp_path / "out", 0)
    assert process.communicate()[1] == ""
    assert process.returncode == 0
    assert Counter(outcomes_in(tmp_path / "out").values()) == Counter(expected.values())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_with_what_is_finished(
    start: Any, room: Path, tmp_path: Path, number: int, code: int
) -> None:
    write_views(tmp_path / "in", [f"a{n}.dcm" for n in range(30)])
    process = start(tmp_path / "in", tmp_path / "out", 0.2)
    read_to(process, "3")
    process.send_signal(number)
    _, said = process.communicate()
    assert (process.returncode, said) == (code, "stopped\n")
    assert 3 <= len(outcomes_in(tmp_path / "out")) < 30
    assert users_of(room) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_while_ray_starts_ends_the_command(
    start: Any, room: Path, tmp_path: Path, number: int, code: int
) -> None:
    """Ray sets a handler of SIGTERM of its own, which ends the process with the code 15."""
    write_views(tmp_path / "in", ["a.dcm"])
    process = start(tmp_path / "in", tmp_path / "out", 0.2)
    until(lambda: len(users_of(room)) > 1)
    process.send_signal(number)
    _, said = process.communicate()
    assert (process.returncode, said) == (code, "stopped\n")
    assert users_of(room) == []


def test_processes_that_ray_ends_to_free_memory_end_the_command(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's memory monitor gives another error for them than for others that end."""
    write_views(tmp_path / "in", ["a.dcm"])
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    process = start(tmp_path / "in", tmp_path / "out", 0)
    _, said = process.communicate()
    assert process.returncode == BackendRunError.exit_code
    assert "without a result. Perhaps it lacks memory" in said and "Traceback" not in said


def test_every_port_of_ray_is_on_loopback(start: Any, room: Path, tmp_path: Path) -> None:
    write_views(tmp_path / "in", [f"a{n}.dcm" for n in range(30)])
    process = start(tmp_path / "in", tmp_path / "out", 0.5)
    read_to(process, "1")
    owners = [process.pid, *users_of(room)]
    addresses = {address for owner in owners for address in listening(owner)}
    folders = list(room.glob("glam-ray-*"))  # Ray lets everybody write into its own folder, which is inside
    assert folders and all(folder.stat().st_mode & 0o077 == 0 for folder in folders)
    process.terminate()
    process.communicate()
    assert len(addresses) >= 5  # of the head, the node, the driver and two actors
    assert {address.rpartition(":")[0] for address in addresses} <= LOOPBACK


LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
"""127.0.0.1, ::ffff:127.0.0.1 and ::1 as proc(5), "/proc/net/tcp", has them on a little-endian machine."""


def listening(process: int) -> Iterator[str]:
    """Addresses at which a process listens for TCP, in hexadecimal digits."""
    links = []
    for link in Path(f"/proc/{process}/fd").iterdir():
        try:
            links.append(str(link.readlink()))
        except FileNotFoundError:
            continue
    sockets = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:[")}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text("ascii").splitlines()[1:]:
            cells = line.split()
            if cells[3] == "0A" and cells[9] in sockets:
                yield cells[1]


TWO_NODES = """
import os, sys
os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
from pathlib import Path
from ray.cluster_utils import Cluster
from support.archive import plan_of
from support.until import until
from glam_bench.simulated_pipeline import Simulation
from glam_deploy.archive.cluster import joined_cluster, nodes
from glam_deploy.archive.driver import Driver
from glam_deploy.cli.main import exit_code

folder, out, whole, bundle = map(Path, sys.argv[1:])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
other = cluster.add_node(num_cpus=1)
seen = set()

def kill_one(driver):
    seen.update(station.node.id for station in driver._stations if station.predicting)
    if driver.counts.total() >= 20 and other in cluster.worker_nodes:
        cluster.remove_node(other, allow_graceful=False)

try:
    with joined_cluster(cluster.address) as ray:
        assert len(nodes(ray)) == 2
        plan = plan_of(folder, out, opener=Simulation(wait_s=0.1))
        print(dict(Driver(ray, plan, progress=kill_one).run()), len(seen))
        until(lambda: len(nodes(ray)) == 1)  # Ray notices the loss of a node after some seconds
    options = ("--bundle", bundle, "--engine", "onnx", "--out", out / "cli", "--ray", cluster.address)
    print(exit_code(["archive", str(whole), *map(str, options), "--write", "png", "--write", "seg", "--write", "sr"]))
finally:
    cluster.shutdown()
"""


def test_a_node_that_is_killed_costs_only_its_unfinished_work(room: Path, tmp_path: Path) -> None:
    names = [f"a{n}.dcm" for n in range(60)]
    write_views(tmp_path / "in", names)
    bundle = write_tiny_bundle(tmp_path / "bundle")
    environment = {"RAY_AUTH_TOKEN": "5" * 64, "TMPDIR": str(room), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    (tmp_path / "whole").mkdir()
    pixels = small_view().pixels
    for view in (View.L_CC, View.R_MLO):
        write_view(tmp_path / f"whole/{view}.dcm", pixels[:, ::-1].copy() if view.is_right else pixels, view=view)
    Image.fromarray(pixels).save(tmp_path / "whole/c_L-CC.png")
    folders = [tmp_path / name for name in ("in", "out", "whole")]
    process = start_process(*folders, bundle, code=TWO_NODES, env=environment)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "{'done': 60} 2" in out.splitlines(), out
    assert outcomes_in(tmp_path / "out") == dict.fromkeys(names, "done")

    # the command itself on the node that is left: the bundle is sent to it, and the results are those of the pipeline
    assert "0" in out.splitlines(), out + err
    (sent,) = (path for path in (tmp_path / "cache/glam-deploy/bundles").iterdir() if path.is_dir())
    assert files_of(sent) == files_of(bundle)
    found = rows(tmp_path / "out/cli", "views")
    assert len(found) == 3
    assert "1 image has a result, but no SEG or SR" in err
    pipeline = glam_deploy.load(bundle, engine="onnx")
    for row in found:
        result = pipeline(row["location"])
        scores = {f"{name}_{label}": y for name, of in result.predictions.items() for label, y in of.items()}
        assert {column: row[column] for column in scores} == scores
        assert [box and tuple(box.values()) for box in row["patches"]] == result.patch_boxes_in_source
        assert row["made_by"] == made_by(result.provenance)
        (picture,) = (tmp_path / "out/cli/objects").rglob(f"{row['instance']}.png")
        assert picture.read_bytes() == to_png(overlay(glam_deploy.read(row["location"]).pixels, result))
        if row["kind"] == "png":
            assert "no-dicom-object" in row["notices"] and picture.with_suffix(".no-dicom.txt").exists()
            continue
        seg, sr = (dcmread(picture.with_name(f"{row['instance']}.{kind}.dcm")) for kind in ("seg", "sr"))
        assert (seg.pixel_array.astype(bool) == (result.saliency_in_source() > 0.5)).all()
        assert seg.DeviceUID == sr.DeviceUID == (tmp_path / "out/cli/device.uid").read_text()
