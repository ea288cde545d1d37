"""Pages as Chromium lays them out."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from expected import need

from support.commands import ROOT
from support.report import parse

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-quic", "--allow-file-access-from-files",
    "--virtual-time-budget=20000",
)  # fmt: skip
SCHEMES = {"light": "1", "dark": "0"}
"""As Chromium's settings number them."""


def measure(folder: Path, files: Sequence[str], widths: Sequence[str], scheme: str) -> dict[str, dict[str, Any]]:
    """What tests/glam_bench/report/measure.html finds in each page of a folder, by "file width".

    `scheme`: one of SCHEMES. Skips the test without Chromium.
    """
    need("chromium", "" if CHROMIUM else "chromium (Debian's package; `make report-test` installs it)")
    script = ROOT / "tests/glam_bench/report/measure.html"
    (folder / "measure.html").write_text(script.read_text("utf-8"), "utf-8")
    asked = [*(("file", file) for file in files), *(("width", width) for width in widths)]
    flags = (
        *FLAGS,
        f"--user-data-dir={folder / 'browser'}",
        f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
    )
    url = f"{(folder / 'measure.html').as_uri()}?{urlencode(asked)}"
    done = subprocess.run(
        [CHROMIUM, *flags, "--dump-dom", url], capture_output=True, text=True, timeout=120, check=True
    )
    found: dict[str, dict[str, Any]] = json.loads(parse(done.stdout).one("body").text)
    return found
