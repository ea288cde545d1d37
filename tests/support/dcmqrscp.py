"""DCMTK's dcmqrscp as an archive of a test: answers C-FIND, C-GET and C-MOVE; filled by storescu."""

import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from support.orthanc import free_port, wait_for

AE_TITLE = "QRSCP"


@dataclass
class Dcmqrscp:
    """One that can be started and stopped again and keeps what it holds."""

    folder: Path
    glam_port: int
    """Where the appliance listens, as GLAM; the destination of C-MOVE."""
    dicom_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        (self.folder / "db").mkdir(parents=True, exist_ok=True)
        (self.folder / "dcmqrscp.cfg").write_text(
            f"NetworkTCPPort = {self.dicom_port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
            f"HostTable BEGIN\nglam = (GLAM, 127.0.0.1, {self.glam_port})\nHostTable END\n"
            "VendorTable BEGIN\nVendorTable END\n"
            f"AETable BEGIN\n{AE_TITLE} {self.folder / 'db'} RW (200, 1024mb) ANY\nAETable END\n"
        )
        with (self.folder / "log").open("ab") as log:
            command = ["dcmqrscp", "-c", self.folder / "dcmqrscp.cfg"]
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        wait_for(self._answers, "dcmqrscp to answer")

    def stop(self) -> None:
        if self.process:
            self.process.terminate()
            self.process.wait(60)
            self.process = None

    def upload(self, files: Iterable[Path]) -> None:
        """Put files in."""
        subprocess.run(["storescu", "-aec", AE_TITLE, "-R", "127.0.0.1", str(self.dicom_port), *files], check=True)

    def _answers(self) -> bool:
        command = ["echoscu", "-aec", AE_TITLE, "127.0.0.1", str(self.dicom_port)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


@contextmanager
def running(archive: Dcmqrscp) -> Iterator[Dcmqrscp]:
    """Started for a block, and gone after it."""
    archive.start()
    try:
        yield archive
    finally:
        archive.stop()
