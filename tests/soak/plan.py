"""What a phase of a soak does, and the appliance, target and disk that it does it with."""

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pacs.appliance import Appliance
from pacs.conftest import dimse_target
from soak.samples import MIB
from soak.wall_clock import WallClock
from support.commands import ROOT
from support.orthanc import Orthanc

PROGRAM = ROOT / ".venv/bin/glam-deploy"
TROUBLED = 1 / 3
"""Share of a phase with kills; memory is judged afterwards, in processes that live on."""
DAY_S = 86400
IMAGES_KEPT_S, RESULTS_KEPT_S = 20, 30
DISK = 1536 * MIB
"""Of the file system of the data folder."""
RESERVE = 256 * MIB
QUOTA = DISK - RESERVE // 2
"""Images are refused below the reserve; results of those that were taken before come on top, from half of it."""
UNLIMITED = 1_000_000
"""Attempts: a kill is no fault of a job."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a phase does."""

    name: str
    seconds: float
    """With load; what is left is processed, delivered and removed afterwards."""
    seed: int
    bundle: Path
    full: bool
    """Phantoms with tissue; else small ones."""
    rate: float | None
    """Views a second that are sent in all; None: as many as the appliance processes."""
    senders: int
    most_waiting: int
    """Studies that wait for the network before senders pause."""
    settings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Of the configuration, over those of every phase."""

    @property
    def every_s(self) -> float:
        """Mean time between two kills."""
        return max(3.0, min(12.0, self.seconds / 30))

    def appliance(self, disk: Path, pacs: Orthanc, clock: WallClock) -> Appliance:
        """The installed command on a disk of its own, with limits of days shortened to seconds."""
        return Appliance(
            folder=disk,
            bundle=self.bundle,
            targets=[dimse_target(pacs)],
            settings=self._settings(),
            dicom_port=pacs.glam_port,
            program=(str(PROGRAM),),
            environment=clock.environment,
        )

    def _settings(self) -> dict[str, Mapping[str, object]]:
        worker = {"bundle": str(self.bundle.absolute()), "attempts": UNLIMITED}
        common: dict[str, Mapping[str, object]] = {
            "receive": {"reserve_bytes": RESERVE},
            "assemble": {"quiet_s": 2},
            "worker": worker,
            "dispatch": {"attempts": UNLIMITED, "first_retry_s": 0.5, "longest_retry_s": 5},
            "retain": {"instances_days": IMAGES_KEPT_S / DAY_S, "results_days": RESULTS_KEPT_S / DAY_S},
        }
        return {
            section: {**common.get(section, {}), **self.settings.get(section, {})}
            for section in {*common, *self.settings}
        }


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """A file system of DISK bytes in memory for a block; needs the right to mount one."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)  # a process that was killed may still be ending
