"""Stand-ins for the roles of the appliance: programs that the supervisor starts and stops.

`support/roles.py --role NAME` (called by `supervisor.supervise`) writes its process id to $GLAM_TEST_ROLES/NAME.N,
N counting its starts, and does what NAME begins with: "steady" lives until it is told to stop and then writes
NAME.stopped, "deaf" does not hear, "crash" ends at once with code 1, "wrong" with code 2, "lacking" with 3, and
"once" ends with code 1 at its first start, and with 2 at all others. "beating" is as "steady", with signs of life in
$GLAM_TEST_ROLES/data/state.db.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path


def main() -> None:
    name, folder = sys.argv[sys.argv.index("--role") + 1], Path(os.environ["GLAM_TEST_ROLES"])
    start = len(list(folder.glob(f"{name}.[0-9]*")))
    # Before the process id is known: a test may send the signal as soon as it reads it.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    _write(folder / f"{name}.{start}", str(os.getpid()))
    if name.startswith("once"):
        sys.exit(1 if start == 0 else 2)
    codes = {"crash": 1, "wrong": 2, "lacking": 3}
    for word, code in codes.items():
        if name.startswith(word):
            sys.exit(code)
    if name.startswith("deaf"):
        _sleep_for_ever()
    if name.startswith("beating"):
        threading.Thread(target=_beat, args=(name, folder / "data/state.db"), daemon=True).start()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    _write(folder / f"{name}.stopped", "")


def _beat(name: str, database: Path) -> None:
    from glam_deploy.appliance.state.database import monotonic_clock, open_database, record_heartbeat

    connection = open_database(database)
    while True:
        record_heartbeat(connection, monotonic_clock(connection), name, "ready", {})
        time.sleep(0.02)


def _sleep_for_ever() -> None:
    while True:
        time.sleep(60)


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text)
    part.rename(path)


if __name__ == "__main__":
    main()
