"""A worker in a thread of the tests, with studies to work on."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.state import studies
from glam_deploy.appliance.work import worker
from glam_deploy.appliance.work.predictor import PredictorLoader
from support.jobs import database_of, made, rows, stub

ONE_TARGET = '[[targets]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = 104'


BARE = "[results]\nseg = false\ncad_sr = false\nsr = false\nsc = false"
"""No DICOM objects, which take most of the time."""


def assemble(config: Config) -> None:
    with closing(database_of(made(config))) as connection:
        studies.assemble_complete(connection, config.assemble.model_copy(update={"quiet_s": 0.0}), 1e9)


@contextmanager
def working(config: Config, loader: PredictorLoader = stub) -> Iterator[DataFolder]:
    stop = threading.Event()

    def live() -> None:
        with suppress(SystemExit):  # which would end the process
            worker.run(config, stop, loader=loader)

    thread = threading.Thread(target=live)
    thread.start()
    try:
        yield made(config)
    finally:
        stop.set()
        thread.join()


def states(data: DataFolder) -> list[object]:
    return [state for (state,) in rows(data, "SELECT state FROM job ORDER BY id")]


def component(data: DataFolder) -> tuple[str, dict[str, object]]:
    found = rows(data, "SELECT state, detail FROM component WHERE name = 'worker'")
    return (str(found[0][0]), json.loads(str(found[0][1]))) if found else ("none", {})
