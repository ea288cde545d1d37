"""Workers that are killed (-9) at random moments; run as a program: `support/kills.py FOLDER SEED KIND`.

Workers are forked from a process that has imported everything, so that a life begins in milliseconds. KIND "random"
kills whatever lives, after a while that grows; "poison" lets them live, and views of the exam "poison" end them.
"""

import os
import random
import signal
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.work import worker
from glam_deploy.dicom.mammography import Exam
from glam_deploy.runtime.pipeline import Pipeline
from support.jobs import config_of, database_of, made, stub

BARE = "[results]\nseg = false\nsc = false"
WORKER = '[worker]\nbundle = "bundle"\nlease_s = 1\nattempts = {}'
TARGET = '[[targets]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 104'


def kill_config(folder: Path, kind: str) -> Config:
    """Killing at random is no job's fault, so it may cost any number of workers."""
    limit = "\nlongest_view_s = 0.5" if kind == "hang" else ""
    return config_of(folder, WORKER.format(3 if kind == "poison" else 1000) + limit, BARE, TARGET)


class Poisoned(Pipeline):
    """Ends its process on views of one exam."""

    def submit(self, image: Any, **options: Any) -> Any:
        if image.view.source.uids["StudyInstanceUID"] == Exam(seed="poison").uid("study"):
            os._exit(11)
        return super().submit(image, **options)


def poisoned(config: Config) -> Pipeline:
    found = stub(config)
    found.__class__ = Poisoned
    return found


def main(folder: Path, seed: int, kind: str) -> None:
    config, moments = kill_config(folder, kind), random.Random(seed)
    deadline, longest = time.monotonic() + 240, 0.5
    while _left(config) and time.monotonic() < deadline:
        longest *= 1.1  # a machine with much else to do gets nothing done in a short life
        pid = os.fork()
        if pid == 0:
            worker.run(config, threading.Event(), loader=poisoned if kind == "poison" else stub)
        _live(config, pid, moments.uniform(0.05, longest) if kind == "random" else 60)
    print(_left(config))


def _live(config: Config, pid: int, seconds: float) -> None:
    """Until it dies by itself, its time has come, or nothing is left to do."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and os.waitpid(pid, os.WNOHANG) == (0, 0):
        if not _left(config):
            break
        time.sleep(0.01)
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def _left(config: Config) -> int:
    with closing(database_of(made(config))) as connection:
        query = "SELECT count(*) FROM job WHERE state IN ('ready', 'running')"
        return int(connection.execute(query).fetchone()[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
