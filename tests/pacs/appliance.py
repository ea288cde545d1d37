"""A `glam-deploy serve` process tree of a test: configured, started, killed in parts, asked, stopped."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from support.commands import ROOT
from support.orthanc import PATIENCE_S, free_port, wait_for

SENDERS = ("MODALITY", "STORESCU", "DCMSEND", "TESTPACS")
PROMPT = (
    "from glam_deploy.appliance import supervisor; supervisor.LONGEST_RETRY_S = supervisor.FIRST_RETRY_S; "
    "from glam_deploy.cli.main import main; main()"
)
"""Python that runs the command line, whose supervisor does not wait longer each time that a part of it is killed."""


@dataclass
class Appliance:
    """One that can be started and stopped again and keeps its data folder."""

    folder: Path
    bundle: Path
    targets: Sequence[Mapping[str, object]] = ()
    settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Section -> key -> value, over those below."""
    dicom_port: int = field(default_factory=free_port)
    http_port: int = field(default_factory=free_port)
    program: Sequence[str] = (sys.executable, "-c", PROMPT)
    """The command line of glam-deploy, without arguments."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to that of this process."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def config(self) -> Path:
        return self.folder / "glam.toml"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def token(self) -> str:
        return "0123456789abcdef0123456789abcdef"

    def configure(self) -> None:
        """Write `glam.toml` and what it names."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "token").write_text(self.token)
        (self.folder / "token").chmod(0o600)
        self.config.write_text(_toml(self._sections(), self.targets))

    def start(self, *, patience_s: float = PATIENCE_S) -> None:
        """Returns when every part is ready."""
        self.configure()
        with (self.folder / "log").open("ab") as log:
            command = [*self.program, "serve", "--config", self.config]
            variables = {**os.environ, **self.environment}
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=variables)
        wait_for(self._is_ready, f"the appliance to be ready, see {self.folder / 'log'}", patience_s=patience_s)

    def stop(self) -> int:
        """As a service manager does it; the exit status."""
        assert self.process
        self.process.terminate()
        status = self.process.wait(60)
        self.process = None
        return status

    def kill_all(self) -> None:
        """As a power failure would, for processes; what the children do without their parent is their business."""
        assert self.process
        self.process.kill()
        self.process.wait()
        self.process = None

    def kill(self, role: str) -> bool:
        """-9 for a part; whether it was there."""
        pid = self.pids().get(role)
        if pid is None:
            return False
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def pids(self) -> dict[str, int]:
        """Role -> process, of those that the supervisor has running now."""
        assert self.process
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return {role: int(pid) for pid in children if (role := _role(int(pid)))}

    def rows(self, query: str, *parameters: object) -> list[sqlite3.Row]:
        """What `state.db` says, read only."""
        with closing(sqlite3.connect(f"file:{self.data / 'state.db'}?mode=ro", uri=True, timeout=30)) as connection:
            connection.row_factory = sqlite3.Row
            return connection.execute(query, parameters).fetchall()

    def count(self, query: str, *parameters: object) -> int:
        return int(self.rows(query, *parameters)[0][0])

    def wait_idle(self, *, patience_s: float = 120) -> None:
        """Until every study has been worked on, and every result delivered or given up."""
        wait_for(self._is_idle, "the appliance to have nothing left to do", patience_s=patience_s)

    def audit(self) -> list[dict[str, Any]]:
        files = sorted((self.data / "audit").glob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, headers={"Authorization": f"Bearer {self.token}"}, timeout=30)

    def _is_idle(self) -> bool:
        return not self.count(
            "SELECT (SELECT count(*) FROM study WHERE state = 'receiving')"
            " + (SELECT count(*) FROM job WHERE state IN ('ready', 'running'))"
            " + (SELECT count(*) FROM parcel WHERE state = 'pending')"
        )

    def _is_ready(self) -> bool:
        assert self.process and self.process.poll() is None, self.log()
        try:
            return self.get("/health/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _sections(self) -> dict[str, dict[str, object]]:
        senders = [{"ae_title": name, "hosts": ["127.0.0.1"]} for name in SENDERS]
        sections: dict[str, dict[str, object]] = {
            "receive": {"port": self.dicom_port, "senders": senders, "reserve_bytes": 0},
            "web": {"port": self.http_port, "token_file": "token", "stow": True},
            "assemble": {"quiet_s": 1, "cap_s": 60},
            "worker": {"bundle": str(self.bundle), "engine": "onnx", "threads": 1},
            "dispatch": {"first_retry_s": 0.2, "longest_retry_s": 1},
        }
        for name, keys in self.settings.items():
            sections[name] = sections.get(name, {}) | dict(keys)
        return sections


def _role(pid: int) -> str:
    """Of a child of the supervisor; "" where it is gone or none."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return ""
    return words[words.index("--role") + 1] if "--role" in words else ""


def _toml(sections: Mapping[str, Mapping[str, object]], targets: Sequence[Mapping[str, object]]) -> str:
    head = 'license_acknowledged = true\ndata = "data"\n'
    tables = [f"[{name}]\n{_keys(keys)}" for name, keys in sections.items()]
    return "\n".join([head, *tables, *(f"[[targets]]\n{_keys(target)}" for target in targets)])


def _keys(table: Mapping[str, object]) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in table.items())


def _value(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    return json.dumps(value)
