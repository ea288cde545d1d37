"""A wall clock that jumps, for processes that load a small library; clocks that only go forward are left alone.

libfaketime (0.9.10) is not used, because `time.sleep` of Python 3.11 fails under it with EINVAL.
"""

import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path


class WallClock:
    """The clock of every process that is started with `environment`."""

    def __init__(self, folder: Path) -> None:
        """Compile the library in `folder`; needs a C compiler."""
        self._library, self._file = folder / "clock.so", folder / "clock"
        source = Path(__file__).with_name("clock.c")
        command = ["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", self._library, source]
        subprocess.run(command, check=True)
        self.jump(0)

    @property
    def environment(self) -> Mapping[str, str]:
        return {"LD_PRELOAD": str(self._library), "SOAK_CLOCK": str(self._file)}

    def jump(self, seconds: int) -> None:
        """From now on the wall clock is ahead of the machine's by `seconds`, behind it where negative."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("=q", seconds))
