"""Which GPUs a run uses: those that Ray's nodes were started with, one for each predictor."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from support.archive import outcomes_in, write_views
from support.commands import start_process

pytestmark = pytest.mark.ray

RUN = """
import os, sys
os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
from pathlib import Path
from ray.cluster_utils import Cluster
from support.archive import GpuOpener, plan_of
from glam_deploy.archive.cluster import joined_cluster
from glam_deploy.archive.driver import Driver

folder, out = map(Path, sys.argv[1:])
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 2})
os.environ["CUDA_VISIBLE_DEVICES"] = "7"
try:
    with joined_cluster(cluster.address) as ray:
        (out / "seen").mkdir(parents=True)
        plan = plan_of(folder, out, opener=GpuOpener(out / "seen", stations=2), use_gpus=True, readers=1)
        print(dict(Driver(ray, plan).run()))
finally:
    cluster.shutdown()
"""
"""A node with two GPUs that exist for Ray only. The variable that the command sees does not count."""


def test_each_predictor_has_one_of_the_gpus_that_the_node_was_started_with(tmp_path: Path) -> None:
    write_views(tmp_path / "in", [f"a{n}.dcm" for n in range(8)])
    with TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as room:
        environment = {"RAY_AUTH_TOKEN": "5" * 64, "TMPDIR": room, "CUDA_VISIBLE_DEVICES": "3,5"}
        process = start_process(tmp_path / "in", tmp_path / "out", code=RUN, env=environment)
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert "{'done': 8}" in out
    assert set(outcomes_in(tmp_path / "out").values()) == {"done"}
    assert sorted(path.name for path in (tmp_path / "out/seen").iterdir()) == ["3", "5"]
