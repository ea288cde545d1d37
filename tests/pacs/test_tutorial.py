"""docs/tutorials/pacs.md, typed: an exam goes through Debian's Orthanc, and its results are there."""

import json
import re
from pathlib import Path

import numpy as np
from pacs.exams import write_exam
from PIL import Image
from support.orthanc import free_port
from support.tiny_bundle import write_tiny_bundle
from support.tutorials import blocks, type_in_one_shell

PORTS = ("4243", "8044", "8043")
"""Of the page, where another program may listen; the port for DICOM, 11112, is the default of `init`."""


def test_it_ends_with_results_in_the_pacs(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path / "bundle")
    write_exam(tmp_path / "demo/exam", "tutorial")
    ports = {port: str(free_port()) for port in PORTS}
    begin = "--pacs PACS@127.0.0.1:4243"
    more = f"--port {free_port()} --pacs-web-port {ports['8043']} {begin}"
    said = type_in_one_shell("pacs", tmp_path, {begin: more, **ports})
    (statistics,) = re.findall(r'^\{\n(?:   ".+\n)+\}', said[said.rindex("/statistics") :], re.MULTILINE)
    assert json.loads(statistics)["CountInstances"] == 4 + 4 + 4 + 2
    assert len(np.unique(np.asarray(Image.open(tmp_path / "result.png")))) > 10


def test_the_script_of_the_page_is_in_shell() -> None:
    assert {language for language, _ in blocks("pacs")} == {"sh"}
