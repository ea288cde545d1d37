"""Small files that claim to be large, and large ones that hold nothing: refused in little memory, with the reason."""

import json
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from mammograms import write_mg
from pydicom import dcmread, uid
from pydicom.encaps import encapsulate

MOST_MEGABYTES = 260
"""Of a process that reads such a file; 80 of them are Python with OpenCV, numpy and pydicom."""

READ = """
import json, pathlib, sys
import glam_deploy
found = {}
for path in sys.argv[1:]:
    try:
        found[path] = str(glam_deploy.read(path, view="L-CC").pixels.shape)
    except glam_deploy.GlamError as error:
        found[path] = str(error)
    found["most"] = int(pathlib.Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024
print(json.dumps(found))
"""
"""Reads files in turn; tells what came of each, and the most memory that the process had, in megabytes."""

Tag = tuple[int, int, int, int]


def _tiff(path: Path, *tags: Tag, width: int = 30_000, height: int = 30_000, size_type: int = 4) -> None:
    """One of zeros in strips of 64 rows, all the same one; `tags` come before its own."""
    rows, strips = 64, -(-height // 64)
    strip = zlib.compress(bytes(width * rows * 2), 9)
    where = 8 + len(strip)
    offsets, counts = struct.pack(f"<{strips}I", *[8] * strips), struct.pack(f"<{strips}I", *[len(strip)] * strips)
    own = [(256, size_type, 1, width), (257, size_type, 1, height), (258, 3, 1, 16), (259, 3, 1, 8), (262, 3, 1, 1)]
    own += [(273, 4, strips, where), (277, 3, 1, 1), (278, 4, 1, rows), (279, 4, strips, where + len(offsets))]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in (*tags, *own))
    directory = struct.pack("<H", len(tags) + len(own)) + entries + bytes(4)
    start = struct.pack("<I", where + len(offsets) + len(counts))
    path.write_bytes(b"II*\0" + start + strip + offsets + counts + directory)


def _big_tiff(path: Path) -> None:
    path.write_bytes(b"II+\0\x08\0\0\0" + bytes(100))


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _png(path: Path, columns: int, rows: int, bits: int, colour: int, *more: bytes, packed: bytes = b"") -> None:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, bits, colour, 0, 0, 0))
    pixels = _chunk(b"IDAT", packed or zlib.compress(b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + b"".join(more) + pixels + _chunk(b"IEND", b""))


def _sparse(path: Path, magic: bytes) -> None:
    with path.open("wb") as file:
        file.write(magic)
        file.truncate(6_000_000_000)


def _npy(path: Path, shape: str) -> None:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}}}".encode()
    path.write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header)


def _dicom(path: Path, syntax: uid.UID, frame: bytes, rows: int = 9_999, columns: int = 9_999) -> None:
    dataset = dcmread(write_mg(path))
    dataset.PixelData, dataset.Rows, dataset.Columns = encapsulate([frame + bytes(len(frame) % 2)]), rows, columns
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)


_RLE = struct.pack("<16L", 2, 64, 200, *[0] * 13)
_JPEG = bytes.fromhex("ffd8ffc4001f0000010501010101010100000000000000000102030405060708090a0b") + bytes.fromhex(
    "ffc3000b0c270f270f01011100ffda0008010100010000"
)
_JPEG_LS = bytes.fromhex("ffd8fff7000b0c270f270f01011100ffda000801010000000000")
_J2K = b"\xff\x4f\xff\x51" + struct.pack(">HH8IH3B", 41, 0, 9999, 9999, 0, 0, 40, 40, 0, 0, 1, 11, 1, 1)
_COD = bytes.fromhex("ff52000c00000001000504040001ff5c00134040484850484850484850484850484850")


@cache
def _zeros() -> bytes:
    deflater = zlib.compressobj(1)
    return b"".join(deflater.compress(bytes(1_000_000)) for _ in range(400)) + deflater.flush()


TRICKS: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "tiff, sizes typed SLONG": ("a.tif", lambda p: _tiff(p, size_type=9), "tag 256 is of type 9"),
    "tiff, sizes typed BYTE": ("a.tif", lambda p: _tiff(p, width=200, height=200, size_type=6), "tag 256 is of type 6"),
    "tiff, tags given twice": ("a.tif", lambda p: _tiff(p, (256, 4, 1, 100), (257, 4, 1, 100)), "a tag twice"),
    "tiff, size as it is": ("a.tif", _tiff, "30000 x 30000"),
    "tiff, samples": ("a.tif", lambda p: _tiff(p, (277, 3, 1, 60_000), width=99, height=99), "a tag twice"),
    "tiff, a strip that inflates": ("a.tif", lambda p: _tiff(p, width=9_000, height=9_001), "they are incomplete"),
    "tiff, values without number": ("a.tif", lambda p: _tiff(p, (322, 3, 1, 0), (324, 4, 2_000_000, 8)), "2000000"),
    "tiff, a tile larger than any image": (
        "a.tif",
        lambda p: _tiff(p, (322, 4, 1, 1 << 30), (323, 4, 1, 1), (324, 4, 1, 8), (325, 4, 1, 8), width=99, height=99),
        "1 x 1073741824",
    ),
    "tiff, another kind": ("a.tif", _big_tiff, "a BigTIFF file"),
    "png, size as it is": ("a.png", lambda p: _png(p, 30_000, 30_000, 16, 0), "30000 x 30000"),
    "png, samples": ("a.png", lambda p: _png(p, 9_999, 9_999, 16, 6), "9999 x 9999 pixels of 4 samples"),
    "png, a text that inflates": (
        "a.png",
        lambda p: _png(p, 99, 99, 16, 0, _chunk(b"zTXt", b"a\0\0" + _zeros())),
        "damaged or incomplete",
    ),
    "png, pixels that inflate": (
        "a.png",
        lambda p: _png(p, 99, 99, 16, 0, packed=_zeros()),
        r"\(99, 99\)|damaged",
    ),
    "a sparse png": ("a.png", lambda p: _sparse(p, b"\x89PNG\r\n\x1a\n"), "more than 800000000 bytes"),
    "a sparse tiff": ("a.tif", lambda p: _sparse(p, b"II*\0"), "more than 800000000 bytes"),
    "a sparse npy": ("a.npy", lambda p: _sparse(p, b"\x93NUMPY"), "more than 800000000 bytes"),
    "npy, size": ("a.npy", lambda p: _npy(p, "(30000, 30000)"), "bytes after its header, which states"),
    "npy, dimensions": ("a.npy", lambda p: _npy(p, "(" + "9, " * 900 + ")"), "bytes after its header, which states"),
    "rle": ("a.dcm", lambda p: _dicom(p, uid.RLELossless, _RLE + bytes(300)), "cannot hold"),
    "jpeg lossless": (
        "a.dcm",
        lambda p: _dicom(p, uid.JPEGLosslessSV1, _JPEG + bytes(50) + b"\xff\xd9"),
        "before the last pixel",
    ),
    "jpeg-ls": ("a.dcm", lambda p: _dicom(p, uid.JPEGLSLossless, _JPEG_LS + bytes(50) + b"\xff\xd9"), "CharLS refuses"),
    "jpeg 2000": ("a.dcm", lambda p: _dicom(p, uid.JPEG2000Lossless, _J2K + _COD + b"\xff\xd9"), "within a header"),
}  # fmt: skip


def test_tricks_are_refused_with_their_reason_in_little_memory(tmp_path: Path) -> None:
    paths = {trick: tmp_path / str(i) / name for i, (trick, (name, _, _)) in enumerate(TRICKS.items())}
    for trick, path in paths.items():
        path.parent.mkdir()
        TRICKS[trick][1](path)
    ran = subprocess.run([sys.executable, "-c", READ, *paths.values()], capture_output=True, text=True, check=True)
    found = json.loads(ran.stdout)
    told = {trick: found[str(path)] for trick, path in paths.items()}
    assert {trick: told[trick] for trick, (_, _, words) in TRICKS.items() if not re.search(words, told[trick])} == {}
    assert found["most"] < MOST_MEGABYTES


def test_opencv_decodes_no_larger_image_by_itself() -> None:
    big = cv2.imencode(".png", np.zeros((10_001, 10_000), np.uint8))[1]
    code = "import sys, numpy as np, glam_deploy, cv2; cv2.imdecode(np.frombuffer(sys.stdin.buffer.read(), 'u1'), -1)"
    ran = subprocess.run([sys.executable, "-c", code], input=big.tobytes(), capture_output=True, check=False)
    assert b"CV_IO_MAX_IMAGE_PIXELS" in ran.stderr
