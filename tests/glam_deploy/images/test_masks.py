"""Outlines as files: read within the limits of any image, and refused with the name of the mask."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from glam_deploy.errors import InputError
from glam_deploy.images.image_files import read_mask

SHAPE = (60, 40)
PNG = b"\x89PNG\r\n\x1a\n"
READ = """
import json, pathlib, sys
from glam_deploy.errors import InputError
from glam_deploy.images.image_files import read_mask
try:
    told = str(read_mask(pathlib.Path(sys.argv[1]), (60, 40)).shape)
except InputError as error:
    told = str(error)
most = int(pathlib.Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 1024
print(json.dumps([told, most]))
"""


def outline() -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[5:20, 5:20], mask[30:40, 8:12] = 100, 200
    return mask


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_mask_is_read_as_it_is(tmp_path: Path, dtype: type) -> None:
    path = tmp_path / "a_mask.png"
    cv2.imwrite(str(path), outline().astype(dtype))
    found = read_mask(path, SHAPE)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, outline())


def palette(path: Path) -> None:
    image = Image.fromarray(outline())
    image.convert("P").save(path)


def cut(path: Path) -> None:
    cv2.imwrite(str(path), outline())
    path.write_bytes(path.read_bytes()[:-30])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: cv2.imwrite(str(path), np.zeros((7, 9), np.uint8)), r"is \[7, 9\], expected a grey PNG"),
        (lambda path: cv2.imwrite(str(path), outline() + 1), r"has values \[1, 101, 201\], expected 0, 100"),
        (
            lambda path: path.write_bytes(b"GIF89a, no PNG"),
            "cannot be used: the file is a BMP, GIF, WebP or PGM picture",
        ),
        (palette, "cannot be used: the pixels of the png are palette indexes"),
        (cut, "cannot be used: the png is "),
        (Path.mkdir, "cannot be used: the file cannot be read"),
    ],
)
def test_a_mask_that_will_not_do_is_named(tmp_path: Path, make: Callable[[Path], object], told: str) -> None:
    make(tmp_path / "a_mask.png")
    with pytest.raises(InputError, match=f"the mask a_mask.png {told}"):
        read_mask(tmp_path / "a_mask.png", SHAPE)


def test_a_sparse_mask_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a_mask.png"
    with path.open("wb") as file:
        file.write(PNG)
        file.truncate(6_000_000_000)
    ran = subprocess.run([sys.executable, "-c", READ, path], capture_output=True, text=True, check=True)
    told, megabytes = json.loads(ran.stdout)
    assert "a_mask.png cannot be used: the file has more than 800000000 bytes" in told
    assert megabytes < 260
