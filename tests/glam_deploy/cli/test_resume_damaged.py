"""`run --resume` over results that claim what they do not hold, or are no files: they are made again."""

import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.commands import Cli, Said
from support.engines import small_view


@pytest.fixture
def run(cli: Cli, bundle: Path, tmp_path: Path) -> Callable[..., Said]:
    """Over one view."""
    pixels = small_view().pixels
    noise = np.random.default_rng(1).integers(0, 500, pixels.shape, np.uint16)
    (tmp_path / "exam").mkdir()
    Image.fromarray(np.where(pixels > 0, pixels + noise, 0).astype(np.uint16)).save(tmp_path / "exam/1_L-CC.png")

    def run_over(*more: object) -> Said:
        said = cli("run", tmp_path / "exam", "--bundle", bundle, "--out", tmp_path / "out", *more)
        assert said.code == 0, said.err + said.out
        return said

    return run_over


def last(said: Said) -> str:
    return said.out.splitlines()[-1].partition(";")[0]


def claiming(path: Path) -> None:
    """The arrays of a result, each stating 2^42 floats."""
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (4398046511104,), }".ljust(117) + "\n"
    claim = b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header.encode() + bytes(8)
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, claim)


def inflating(path: Path) -> None:
    """An entry of 4 GiB of zeros."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number in range(4):
            archive.writestr(f"{number}.npy", bytes(1 << 20))
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<I", 1 << 20), struct.pack("<I", (1 << 32) - 2)))


def vast(path: Path) -> None:
    """A sound PNG that states 30,000 x 30,000 pixels."""
    shape = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", shape), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    parts = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    ("suffix", "damage"),
    [("npz", claiming), ("npz", inflating), ("png", vast), *((s, d) for s in ("npz", "png") for d in (pipe, endless))],
)
def test_a_result_that_cannot_be_read_is_made_again(
    run: Callable[..., Said], tmp_path: Path, suffix: str, damage: Callable[[Path], None]
) -> None:
    run()
    before = len(list((tmp_path / "out").iterdir()))
    damage(tmp_path / f"out/1_L-CC.{suffix}")
    assert last(run("--resume")) == "1 done, 0 skipped, 0 failed, 0 kept"
    assert last(run("--resume")) == "0 done, 0 skipped, 0 failed, 1 kept"
    assert len(list((tmp_path / "out").iterdir())) == before
