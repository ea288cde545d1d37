"""A receiver that is started again and again; run as a program: `support/receiver_lives.py CONFIG`.

For each line on standard input a receiver begins, forked from this process, which has imported everything; its process
id is printed. It ends when it is killed, or this program's input does.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from glam_deploy.appliance import receiver
from glam_deploy.appliance.config import parse_config
from glam_deploy.appliance.process import configure_logging


def main(path: Path) -> None:
    config = parse_config(path.read_text("utf-8"), folder=path.parent)
    child = 0
    for _ in sys.stdin:
        if child:
            os.waitpid(child, 0)
        child = os.fork()
        if child == 0:
            configure_logging("receiver")
            receiver.run(config, threading.Event())
        print(child, flush=True)
    os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
