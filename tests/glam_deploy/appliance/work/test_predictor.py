"""The worker with the real network: what lies in the results is what the pipeline says of the same file."""

import json
import threading
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from support.jobs import config_of, database_of, made, rows, send
from support.until import until

import glam_deploy
from glam_deploy.appliance.state import studies
from glam_deploy.appliance.work import worker
from glam_deploy.networks import GLAM
from glam_deploy.records import View


@pytest.mark.network
@pytest.mark.slow
def test_results_are_those_of_the_pipeline(tmp_path: Path, joint_bundle: Path) -> None:
    sections = f'[worker]\nbundle = "{joint_bundle}"\npatches = 1', "[results]\nsc = false"
    config = config_of(tmp_path, *sections)
    send(config, View.R_MLO)
    data = made(config)
    with closing(database_of(data)) as connection:
        studies.assemble_complete(connection, config.assemble.model_copy(update={"quiet_s": 0.0}), 1e9)
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(config, stop))
    thread.start()
    until(lambda: rows(data, "SELECT state FROM job") == [("done",)], seconds=300)
    stop.set()
    thread.join()

    (source,) = data.root.glob("spool/studies/*/*.dcm")
    expected = glam_deploy.load(joint_bundle, patches=1)(glam_deploy.read(source))
    (folder,) = (data.root / "results/views").iterdir()
    finding = json.loads((folder / "finding.json").read_text())
    assert finding["summary"]["scores"] == expected.predictions
    found = np.load(folder / "saliency.npz")
    assert np.array_equal(found["saliency_global"], expected.saliency_global)
    assert np.array_equal(found["patch_locations"], expected.patch_locations)
    assert set(finding["summary"]["scores"]["y_fusion"]) == set(GLAM.classes)
