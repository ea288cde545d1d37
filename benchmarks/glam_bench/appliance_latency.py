"""From the last view of an exam received to its results in a PACS: what the appliance adds to the network's own time.

    python -m glam_bench.appliance_latency --bundle demo/bundle

Needs Debian's orthanc (`make pacs-test` installs it) and the extra `appliance`. Sends phantom exams of four full-size
views, one after another, to `glam-deploy serve` with no quiet time, and waits until Orthanc has shown every result to a
query. After each the same views go through the pipeline in this process, for the network's time. Prints both as JSON.
"""

import argparse
import json
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

import glam_deploy
from glam_bench import machine
from glam_bench.appliance_processes import echoes, free_port, process, serve, wait_for
from glam_deploy.bundle import open_bundle
from glam_deploy.cli import main as command_line
from glam_deploy.dicom.net.peer import Peer
from glam_deploy.errors import BackendUnavailable, UsageError
from glam_deploy.installation import require
from glam_deploy.records import View
from glam_export.demo.phantom import phantom_view

SHAPE = (4096, 3328)
BAR_S = 1.0
"""What the appliance may add to the network's time."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m glam_bench.appliance_latency",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bundle", type=Path, default=Path("demo/bundle"), help="folder of the bundle [demo/bundle]")
    parser.add_argument("--engine", default="auto", help="as for `glam-deploy run` [auto]")
    parser.add_argument("--exams", type=int, default=3, help="exams to measure; one more is sent before them [3]")
    options = parser.parse_args(arguments)
    require("dicom", "appliance", user="appliance_latency")
    open_bundle(options.bundle)  # before anything is written or started
    if not shutil.which("Orthanc"):
        raise BackendUnavailable("appliance_latency needs Orthanc: apt-get install orthanc")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        exams = [write_exam(Path(folder) / f"exam{n}", n) for n in range(options.exams + 1)]
        both = measured(Path(folder), options.bundle.absolute(), options.engine, exams)[1:]
    served, alone = [there for there, _ in both], [here for _, here in both]
    over = [there["delivered"] - here["network_s"] for there, here in zip(served, alone, strict=True)]
    results = {"machine": machine.facts(), "appliance_s": served, "pipeline": alone, "added_s": over}
    verdict = {"median_added_s": median(over), "bar_s": BAR_S, "kept": median(over) <= BAR_S}
    sys.stdout.write(json.dumps(results | verdict, indent=2) + "\n")


def write_exam(folder: Path, seed: int) -> list[Path]:
    """Four uncompressed full-size views."""
    from glam_deploy.dicom.mammography import Exam, write_view

    folder.mkdir()
    paths = [folder / f"{view.value}.dcm" for view in View]
    for path, view in zip(paths, View, strict=True):
        write_view(path, phantom_view(seed, view, shape=SHAPE).pixels, view=view, exam=Exam(seed=f"latency{seed}"))
    return paths


def _alone(pipeline: glam_deploy.Pipeline, exam: Sequence[Path]) -> dict[str, float]:
    """Seconds: the network's stages, and with preparing and decoding before them."""
    start, network = time.perf_counter(), 0.0
    for path in exam:
        times = pipeline(glam_deploy.read(path)).timings_ms
        network += sum(ms for stage, ms in times.items() if stage != "preprocess") / 1e3
    return {"network_s": network, "with_reading_and_preparing_s": time.perf_counter() - start}


def measured(
    folder: Path, bundle: Path, engine: str, exams: Sequence[Sequence[Path]]
) -> list[tuple[dict[str, float], dict[str, float]]]:
    """Times of each exam through the appliance and, right after it, alone, because the speed of a machine changes.

    The first are seconds from the last answer of Success to each event of the timeline.
    """
    pipeline = glam_deploy.load(bundle, engine=engine)
    glam, pacs, web = (free_port() for _ in range(3))
    (folder / "glam.toml").write_text(_configuration(bundle, engine, glam, pacs, web))
    (folder / "token").write_text("0" * 32)
    (folder / "token").chmod(0o600)
    (folder / "orthanc.json").write_text(json.dumps(_orthanc(pacs)))
    (folder / "db").mkdir()
    listener = Peer(ae_title="GLAM", host="127.0.0.1", port=glam, calling_ae_title="BENCH")
    with process(["Orthanc", "orthanc.json"], folder), serve(folder):
        wait_for(lambda: echoes(listener), "the appliance to listen")
        return [(_sent(listener, folder / "data/state.db", exam), _alone(pipeline, exam)) for exam in exams]


def _sent(listener: Peer, database: Path, exam: Sequence[Path]) -> dict[str, float]:
    from glam_deploy.dicom.net.delivery import Item, Outcome
    from glam_deploy.dicom.net.sender import DimseSession

    before = _count(database, "delivered")
    items = [Item(sop_uid=path.stem, path=path) for path in exam]
    with DimseSession(listener, items) as session:
        answers = [session.store(item) for item in items]
        received = time.time()
    if any(answer.outcome is not Outcome.STORED for answer in answers):
        raise UsageError(f"the appliance did not take the exam: {answers[-1].reason}")
    # seldom, because the query takes time from the network; the timeline has the time of the event
    wait_for(lambda: _count(database, "delivered") > before, "the results to be delivered", every_s=0.5)
    query = "SELECT what, max(at) AS at FROM event WHERE at >= ? GROUP BY what ORDER BY max(at)"
    return {row["what"]: row["at"] - received for row in _rows(database, query, received)}


def _count(database: Path, what: str) -> int:
    return int(_rows(database, "SELECT count(*) FROM event WHERE what = ?", what)[0][0])


def _rows(database: Path, query: str, *parameters: object) -> list[sqlite3.Row]:
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute(query, parameters).fetchall()


def _configuration(bundle: Path, engine: str, glam: int, pacs: int, web: int) -> str:
    return f"""
license_acknowledged = true
data = "data"
receive = {{ port = {glam}, senders = [{{ ae_title = "BENCH", hosts = ["127.0.0.1"] }}] }}
web = {{ port = {web}, token_file = "token" }}
assemble = {{ quiet_s = 0 }}
worker = {{ bundle = "{bundle}", engine = "{engine}" }}
targets = [{{ name = "pacs", ae_title = "BENCHPACS", host = "127.0.0.1", port = {pacs} }}]
"""


def _orthanc(port: int) -> dict[str, Any]:
    peers = {"glam": {"AET": "GLAM", "Host": "127.0.0.1", "Port": 104}}
    return {
        "StorageDirectory": "db", "IndexDirectory": "db", "HttpServerEnabled": False, "DicomAet": "BENCHPACS",
        "DicomPort": port, "DicomModalities": peers, "DicomCheckModalityHost": True, "DicomAlwaysAllowStore": False,
    }  # fmt: skip


if __name__ == "__main__":
    command_line.run(main)
