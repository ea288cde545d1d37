"""Pictures of the appliance's pages in docs/images/appliance, by Debian's Chromium, with the layout that they show.

`make pictures` makes them from phantoms and demo weights; studies, times and senders are invented. A test compares
`layout.json` with the pages of today.
"""

import argparse
import json
import random
import time
from collections.abc import Mapping
from io import BytesIO
from itertools import accumulate, product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from PIL import Image

import glam_deploy
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.state.database import record_heartbeat
from glam_deploy.appliance.web.monitoring import PROCESSES
from glam_deploy.records import View
from glam_export.demo.phantom import SHAPE, phantom_view
from support.browser import Seen, chromium_browser, seen_by
from support.commands import ROOT
from support.web import DEATH, ENGINE, REFUSAL, Appliance, appliance, configuration, dicom_file, exam, serving

PICTURES = ROOT / "docs/images/appliance"
LAYOUT = "layout.json"
TARGETS = ("target:archive", "target:pacs")
TALLEST = {1366: 1600, 390: 1400}
"""Width -> most height of a picture, CSS pixels; the rest of a page is left out."""
SCHEMES = ("light", "dark")
QUALITY = 35
"""Of lossy WebP, 0..100."""
LOOK = """() => {
  const words = (node) => (node.nodeType === Node.TEXT_NODE ? node.data.trim() : "");
  const own = (one) => [...one.childNodes].map(words).join("");
  const texts = (selector) => [...document.querySelectorAll(selector)].map(own);
  return { headings: texts("main h1, main h2"), columns: texts("main thead th") };
}"""
"""Headings, without counts and pseudonyms in them, and heads of columns."""
TOP = "document.querySelector(':target')?.closest('section').offsetTop ?? 0"
"""Where the picture of a page begins: at the section of the fragment, in CSS pixels."""


def fill(made: Appliance, shape: tuple[int, int] = SHAPE) -> dict[str, str]:
    """One study of each kind, of phantoms with `shape` rows and columns; gives the pages by name."""
    _add_history(made)
    delivered = _receive(made, 4, tuple(View), shape)
    made.assemble()
    made.work()
    made.deliver("pacs")
    made.deliver("archive")
    undelivered = _receive(made, 2, (View.L_MLO, View.L_CC), shape)
    made.assemble()
    made.work()
    made.kill_delivery("pacs", REFUSAL)
    _receive(made, 3, (View.R_CC,), shape)
    made.assemble()
    made.kill_job(DEATH)
    _receive(made, 1, (View.L_CC, View.R_CC), shape)
    made.assemble()
    _receive(made, 5, (View.R_MLO,), shape)
    made.context.ingest.spool.record_refusal("MODALITY2@10.0.0.9", "association", "no sender has this AE title")
    return {
        "overview": "/",
        "study": f"/study/{made.name(delivered)}",
        "failures": "/failures",
        "undelivered": f"/study/{made.name(undelivered)}#deliveries",
    }


def _receive(made: Appliance, number: int, views: tuple[View, ...], shape: tuple[int, int]) -> str:
    for view in views:
        pixels = phantom_view(number, view, shape=shape).pixels
        assert made.receive(dicom_file(view, exam(number), pixels)).reason == ""
    return str(exam(number).uid("study"))


def _add_history(made: Appliance) -> None:
    """Records of sixty studies of the last 24 hours, done and delivered."""
    chance, now = random.Random(0), time.time()
    for number in range(60):
        begun = now - 86400 * chance.random()
        waited, worked, sent = (chance.lognormvariate(mean, 0.5) for mean in (0.5, 2.2, 0))
        _add_study(made, f"2.25.{number}", list(accumulate((begun, waited, worked, sent))))


def _add_study(made: Appliance, uid: str, times: list[float]) -> None:
    """`times`: assembled, begun, done, delivered."""
    study = "INSERT INTO study (study_uid, pseudonym, state, opened, touched, opened_at, touched_at)"
    job = "INSERT INTO job (study_uid, key, state, created_at, started_at, finished_at)"
    parcel = "INSERT INTO parcel (job_id, target, state, created_at, delivered_at)"
    execute = made.connection.execute
    execute(f"{study} VALUES (?, ?, 'assembled', 0, 0, ?, ?)", (uid, made.name(uid), times[0], times[0]))
    row = execute(f"{job} VALUES (?, ?, 'done', ?, ?, ?)", (uid, uid, *times[:3])).lastrowid
    for target in made.context.config.targets:
        execute(f"{parcel} VALUES (?, ?, 'delivered', ?, ?)", (row, target.name, *times[2:]))


def take(seen: Seen) -> bytes:
    """The page that is shown, from its fragment on, as the smaller of lossy and lossless WebP."""
    seen.fit_height()
    top = seen.page.evaluate(TOP)
    whole = Image.open(BytesIO(seen.page.screenshot())).convert("RGB")
    part = whole.crop((0, top, whole.width, min(whole.height, top + TALLEST[whole.width])))
    return min((_webp(part, quality=QUALITY), _webp(part, lossless=True)), key=len)


def _webp(picture: Image.Image, **options: Any) -> bytes:
    out = BytesIO()
    picture.save(out, "WEBP", method=4, **options)
    return out.getvalue()


def write(made: Appliance, pages: Mapping[str, str], folder: Path) -> None:
    """Every page at every width in both schemes, `PAGE-WIDTH-SCHEME.webp`, and `layout.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    layout = {}
    with serving(made) as address, chromium_browser() as browser:
        for width, scheme in product(TALLEST, SCHEMES):
            with seen_by(browser, address, width=width, scheme=scheme) as seen:
                seen.log_in()
                for name, path in pages.items():
                    _beat(made)
                    seen.go(path)
                    (folder / f"{name}-{width}-{scheme}.webp").write_bytes(take(seen))
                    layout[name] = seen.page.evaluate(LOOK)
    (folder / LAYOUT).write_text(json.dumps(layout, indent=1) + "\n", "utf-8")


def _beat(made: Appliance) -> None:
    """All processes live, and the targets answer."""
    made.beat(*(name for name in PROCESSES if name not in ("web", "worker")), *TARGETS)
    record_heartbeat(made.connection, made.monotonic, "worker", "ready", {**ENGINE, "version": glam_deploy.__version__})


def demonstration(root: Path) -> Config:
    """Takes views of full size, while there is 1 GB of disk."""
    config = configuration(root, port=0)
    receive = config.receive.model_copy(update={"max_object_bytes": 1 << 30, "reserve_bytes": 1 << 30})
    return config.model_copy(update={"receive": receive})


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the pictures of the appliance's pages again.")
    parser.add_argument("--bundle", type=Path, required=True, help="bundle of demo weights, such as demo/bundle")
    parser.add_argument("--out", type=Path, default=PICTURES)
    given = parser.parse_args()
    with TemporaryDirectory() as room, appliance(demonstration(Path(room))) as made:
        made.pipeline = glam_deploy.load(given.bundle)
        write(made, fill(made), given.out)


if __name__ == "__main__":
    main()
