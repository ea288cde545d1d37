"""Debian's Orthanc as the PACS of a test: a process of its own on free ports, which tells what it holds.

It takes results from GLAM and images from MODALITY, sends to GLAM, and answers queries and DICOMweb.
"""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pydicom

T = TypeVar("T")

AE_TITLE = "TESTPACS"
USER = ("test", "test")
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
PATIENCE_S = 60.0


def missing() -> str:
    """What this machine lacks for it; empty where nothing."""
    if not shutil.which("Orthanc"):
        return "orthanc"
    return "" if PLUGIN.exists() else "orthanc-dicomweb"


def free_port() -> int:
    """One that nobody listens at now: Orthanc cannot be told to take any, and a peer must know it beforehand."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], T], what: str, *, patience_s: float = PATIENCE_S) -> T:
    """The first true value of `condition`, which is asked again and again; AssertionError that names `what` else."""
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {patience_s:.0f} s for {what}"
        time.sleep(0.05)
    return value


@dataclass
class Orthanc:
    """One that can be started and stopped again and keeps what it holds."""

    folder: Path
    glam_port: int
    """Where the appliance listens."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Added to its configuration."""
    http_port: int = field(default_factory=free_port)
    dicom_port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def dicomweb(self) -> str:
        return f"{self.url}/dicom-web"

    def start(self) -> None:
        """Returns when it answers."""
        (self.folder / "db").mkdir(parents=True, exist_ok=True)
        (self.folder / "orthanc.json").write_text(json.dumps(self._configuration()))
        with (self.folder / "log").open("ab") as log:
            command = ["Orthanc", self.folder / "orthanc.json"]
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        wait_for(self._answers, "Orthanc to answer")

    def stop(self) -> None:
        """Returns when it is gone, which takes seconds."""
        if self.process:
            self.process.terminate()
            self.process.wait(PATIENCE_S)
            self.process = None

    def get(self, path: str, **parameters: str) -> Any:
        """JSON of its own interface."""
        return self._request("GET", path, params=parameters).json()

    def post(self, path: str, body: Any) -> Any:
        return self._request("POST", path, json=body).json()

    def upload(self, files: Iterable[Path]) -> list[str]:
        """Put files in; their identifiers here."""
        return [self._request("POST", "/instances", content=file.read_bytes()).json()["ID"] for file in files]

    def delete_all(self) -> None:
        """Delete every study."""
        for study in self.get("/studies"):
            self._request("DELETE", f"/studies/{study}")

    def send_to_glam(self, identifiers: Sequence[str]) -> dict[str, Any]:
        """C-STORE to the appliance; what Orthanc says of it, "FailedInstancesCount" among it."""
        answer: dict[str, Any] = self.post(
            "/modalities/glam/store", {"Resources": list(identifiers), "Synchronous": True}
        )
        return answer

    def instances(self, study_uid: str, modality: str = "") -> list[str]:
        """SOP Instance UIDs that the study holds, by QIDO-RS."""
        query = {"Modality": modality} if modality else {}
        answer = self._request("GET", f"/dicom-web/studies/{study_uid}/instances", params=query)
        found = answer.json() if answer.status_code == httpx.codes.OK else []
        return [item["00080018"]["Value"][0] for item in found]

    def retrieve(self, study_uid: str) -> list[pydicom.Dataset]:
        """Every object of the study, by WADO-RS."""
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        answer = self._request("GET", f"/dicom-web/studies/{study_uid}", headers={"Accept": accept})
        return [pydicom.dcmread(BytesIO(part)) for part in _parts(answer)]

    def _configuration(self) -> dict[str, Any]:
        peers = {
            "glam": {"AET": "GLAM", "Host": "127.0.0.1", "Port": self.glam_port},
            "modality": {"AET": "MODALITY", "Host": "127.0.0.1", "Port": free_port()},
        }
        return {
            "Name": AE_TITLE, "StorageDirectory": "db", "IndexDirectory": "db", "Plugins": [str(PLUGIN)],
            "HttpPort": self.http_port, "RemoteAccessAllowed": False, "AuthenticationEnabled": True,
            "RegisteredUsers": dict([USER]), "DicomAet": AE_TITLE, "DicomPort": self.dicom_port,
            "DicomCheckCalledAet": True, "DicomAlwaysAllowStore": False, "DicomAlwaysAllowEcho": True,
            "DicomCheckModalityHost": True, "DicomModalities": peers, "StableAge": 1, "OverwriteInstances": False,
            "UnknownSopClassAccepted": False, "SaveJobs": False, "SyncStorageArea": False,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "StudiesMetadata": "Full", "SeriesMetadata": "Full"},
            **self.settings,
        }  # fmt: skip

    def _answers(self) -> bool:
        assert self.process and self.process.poll() is None, (self.folder / "log").read_text()
        try:
            return self._request("GET", "/system").is_success
        except httpx.TransportError:
            return False

    def _request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return httpx.request(method, self.url + path, auth=USER, timeout=PATIENCE_S, **options)


@contextmanager
def running(orthanc: Orthanc) -> Iterator[Orthanc]:
    """Started for a block, and gone after it."""
    orthanc.start()
    try:
        yield orthanc
    finally:
        orthanc.stop()


def _parts(answer: httpx.Response) -> list[bytes]:
    """The bodies of a multipart answer; none where it is not found."""
    if answer.status_code == httpx.codes.NOT_FOUND:
        return []
    answer.raise_for_status()
    boundary = answer.headers["Content-Type"].split("boundary=")[1].split(";")[0].strip('"').encode()
    parts = answer.content.split(b"--" + boundary)[1:-1]
    return [part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n") for part in parts]
