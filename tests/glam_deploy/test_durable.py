"""`write_whole`: complete under its name, or as it was before; devices, pipes and links stay what they are."""

import os
from pathlib import Path

import pytest
from support.full_disk import largest_file

from glam_deploy.durable import write_whole


@pytest.mark.parametrize("before", [None, b"earlier"])
def test_a_full_disk_leaves_the_earlier_file(tmp_path: Path, before: bytes | None) -> None:
    path = tmp_path / f"{'n' * 250}.csv"  # file systems allow 255 bytes
    if before:
        path.write_bytes(before)
    with largest_file(1000), pytest.raises(OSError, match="File too large"):
        write_whole(path, bytes(1001))
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == ({path.name: before} if before else {})
    write_whole(path, bytes(1001))
    assert [each.name for each in tmp_path.iterdir()] == [path.name] and path.read_bytes() == bytes(1001)


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    write_whole(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_bytes() == b"new"
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_whole(tmp_path / "pipe", b"new")
        assert os.read(reader, 100) == b"new"
    finally:
        os.close(reader)
    assert (tmp_path / "pipe").is_fifo()
