"""Real processes, killed (-9): every job is done exactly once, or dead with its reason."""

from contextlib import closing
from pathlib import Path

from support.commands import start_process
from support.jobs import database_of, made, rows, send
from support.kills import kill_config

from glam_deploy.appliance.config import Assemble, Config
from glam_deploy.appliance.state import studies
from glam_deploy.records import View


def assembled(config: Config) -> None:
    with closing(database_of(made(config))) as connection:
        studies.assemble_complete(connection, Assemble(quiet_s=0), 1e9)


RUN = """
import sys
from pathlib import Path
from support import kills
kills.main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
"""


def run_and_kill(folder: Path, kind: str, seed: int = 1) -> None:
    process = start_process(folder, seed, kind, code=RUN)
    out, err = process.communicate()
    assert (process.returncode, out.strip()) == (0, "0"), err


def test_workers_that_are_killed_lose_nothing_and_do_nothing_twice(tmp_path: Path) -> None:
    config = kill_config(tmp_path, "random")
    for n, views in enumerate([(View.L_CC, View.R_MLO), (View.L_CC,), (View.R_CC,)]):
        send(config, *views, exam=f"exam {n}")
    assembled(config)
    run_and_kill(tmp_path, "random")

    data = made(config)
    assert {state for (state,) in rows(data, "SELECT state FROM job")} == {"done"}
    assert rows(data, "SELECT outcome, count(*) FROM job_view GROUP BY outcome") == [("done", 4)]
    assert rows(data, "SELECT count(*), count(DISTINCT job_id) FROM parcel") == [(3, 3)]
    assert rows(data, "SELECT count(*), count(DISTINCT sop_uid) FROM parcel_object") == [(6, 6)]
    assert all((data.root / str(path)).is_file() for (path,) in rows(data, "SELECT path FROM parcel_object"))
    assert rows(data, "SELECT count(*) FROM event WHERE what = 'done'") == [(3,)]
    assert rows(data, "SELECT count(*) FROM event WHERE what = 'interrupted'") > [(0,)], "no kill met a job"


def test_study_that_kills_its_workers_is_dead_and_the_others_are_done(tmp_path: Path) -> None:
    config = kill_config(tmp_path, "poison")
    for exam in ("poison", "a", "b"):
        send(config, View.L_CC, exam=exam)
    assembled(config)
    run_and_kill(tmp_path, "poison")

    data = made(config)
    found = rows(data, "SELECT state, reason FROM job ORDER BY id")
    assert found == [("dead", "3 workers ended while processing it"), ("done", None), ("done", None)]
    ends = rows(data, "SELECT what FROM event WHERE what IN ('done', 'dead') ORDER BY id")
    assert ends == [("done",), ("done",), ("dead",)], "the others need not wait for it"


def test_view_that_hangs_ends_its_worker(tmp_path: Path) -> None:
    hanging = (
        "import sys, threading, time; from support import kills as support_kills; from pathlib import Path\n"
        "from glam_deploy.appliance.work import worker\n"
        "def hang(config):\n"
        "    found = support_kills.stub(config)\n"
        "    found.submit = lambda image, **options: time.sleep(600)\n"
        "    return found\n"
        "config = support_kills.kill_config(Path(sys.argv[1]), 'hang')\n"
        "worker.run(config, threading.Event(), loader=hang)"
    )
    config = kill_config(tmp_path, "hang")
    send(config, View.L_CC)
    assembled(config)
    process = start_process(tmp_path, code=hanging)
    _, err = process.communicate(timeout=120)
    assert (process.returncode, "a view has taken more than 0.5 s" in err) == (-9, True), err
