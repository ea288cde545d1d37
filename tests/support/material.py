"""Files for one tiny use of every command."""

import shutil
from pathlib import Path

import numpy as np
from pacs.exams import write_exam
from PIL import Image

from glam_deploy.agreement.golden import GOLDEN_FILE, write_golden
from glam_deploy.preprocess import prepare
from glam_deploy.records import View
from glam_deploy.runtime.session import load
from support.bundles import facts, write_manifest
from support.commands import ROOT
from support.engines import small_view
from support.tiny_bundle import write_tiny_bundle

CONFIG = """
license_acknowledged = true
data = "data"
receive = { port = 11990 }
web = { port = 11991, token_file = "token" }
worker = { bundle = "bundle" }
"""


def material(folder: Path) -> dict[str, Path]:
    """Make them in `folder`, which exists: a word of `support.extras.CASES` -> its path.

    The network is `support.tiny_bundle`'s; its golden case is what it makes of `small_view` here.
    """
    bundle, view = write_tiny_bundle(folder / "bundle"), small_view()
    write_golden(bundle / GOLDEN_FILE, view, load(bundle)(view))
    write_manifest(bundle, facts())
    shutil.copytree(bundle, folder / "gated/bundle")
    Image.fromarray(view.pixels).save(folder / "1_L-CC.png")
    np.save(folder / "prepared.npy", prepare(view).image)
    write_exam(folder / "exam", "install", [View.L_CC])
    (folder / "glam.toml").write_text(CONFIG)
    (folder / "token").write_text("0" * 32)
    (folder / "token").chmod(0o600)
    (folder / "occupied").mkdir()
    (folder / "occupied/thesis.txt").write_text("")
    shutil.copy(ROOT / "tests/glam_bench/bench/sample.json", folder / "results.json")
    return {
        "bundle": bundle,
        "gated": folder / "gated/bundle",
        "png": folder / "1_L-CC.png",
        "npy": folder / "prepared.npy",
        "exam": folder / "exam",
        "config": folder / "glam.toml",
        "occupied": folder / "occupied",
        "results": folder / "results.json",
        "none": folder / "none",
    }
