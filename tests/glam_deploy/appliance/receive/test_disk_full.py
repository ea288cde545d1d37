"""A disk that is really full: a tmpfs of a few megabytes, which needs the right to mount."""

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from expected import need
from support.receive import Box, box, config_of, same_rows_and_files, split, write_exam

from glam_deploy.appliance.ingest import Status

SIZE = 2 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    try:
        failed = subprocess.run(mount, capture_output=True, text=True, check=False)
        lacking = failed.stderr.strip() if failed.returncode else ""
    except FileNotFoundError:
        lacking = "mount"
    need("mount", lacking)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path, left: int) -> Path:
    """Take all but `left` bytes, a number of pages."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        with suppress(OSError):
            while file.write(bytes(4096)):
                pass
        file.truncate(file.tell() - left)
    return filler


def take_all(inbox: Box, files: list[bytes]) -> list[int]:
    return [inbox.take(data_set, claim).status for claim, data_set in map(split, files)]


@pytest.mark.parametrize("left", [0, 4096, 12288, 20480, 28672, 45056])
def test_nothing_half_written_and_it_recovers_alone(small_disk: Path, tmp_path: Path, left: int) -> None:
    """Whichever byte finds no room: of the file, of its folder, or of the database."""
    files = [path.read_bytes() for path in write_exam(tmp_path / "exam")]
    with box(config_of(small_disk)) as inbox:
        assert take_all(inbox, files[:1]) == [Status.SUCCESS]
        filler = fill(small_disk, left)
        statuses = take_all(inbox, files[1:])
        assert set(statuses) <= {Status.SUCCESS, Status.OUT_OF_RESOURCES}
        assert Status.OUT_OF_RESOURCES in statuses
        assert inbox.files("spool/incoming") == []
        filler.unlink()
        assert same_rows_and_files(inbox) == 1 + statuses.count(Status.SUCCESS)
        assert take_all(inbox, files) == [Status.SUCCESS] * 4
        assert same_rows_and_files(inbox) == 4
