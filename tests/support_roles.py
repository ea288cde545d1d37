"""Stand-ins for the roles of the appliance: programs that the supervisor starts and stops.

`support_roles.py --role NAME` (as it is called by `serve.supervise`) writes its process id to $GLAM_TEST_ROLES/NAME.N,
N counting its starts, and does what NAME begins with: "steady" lives until it is told to stop and then writes
NAME.stopped, "deaf" does not hear, "crash" ends at once with code 1, "wrong" with code 2, "lacking" with 3, and
"once" ends with code 1 at its first start, and with 2 at all others.
"""

import os
import signal
import sys
import time
from pathlib import Path


def main() -> None:
    name, folder = sys.argv[sys.argv.index("--role") + 1], Path(os.environ["GLAM_TEST_ROLES"])
    start = len(list(folder.glob(f"{name}.[0-9]*")))
    _write(folder / f"{name}.{start}", str(os.getpid()))
    if name.startswith("once"):
        sys.exit(1 if start == 0 else 2)
    codes = {"crash": 1, "wrong": 2, "lacking": 3}
    for word, code in codes.items():
        if name.startswith(word):
            sys.exit(code)
    if name.startswith("deaf"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        _sleep_for_ever()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    _write(folder / f"{name}.stopped", "")


def _sleep_for_ever() -> None:
    while True:
        time.sleep(60)


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    part.rename(path)


if __name__ == "__main__":
    main()
