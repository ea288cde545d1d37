"""Arrays and pictures whose report is gone, known as glam-deploy's by what is in them."""

import zipfile
from pathlib import Path

from PIL import Image

from glam_deploy.outputs.panel import BANNER

_ARRAYS = {f"{name}.npy" for name in ("y_global", "y_scale", "y_local", "saliency_global", "saliency_patches")}


def is_orphan(path: Path) -> bool:
    """Whether a file that no report names is arrays or a picture that glam-deploy wrote, damaged ones left out.

    Arrays have the names of ours; a picture is in colour and ends in the banner's, which no mammogram does.
    """
    try:
        if path.is_symlink() or not path.is_file():
            return False
        return _has_our_arrays(path) if path.suffix == ".npz" else path.suffix == ".png" and _ends_in_banner(path)
    except (OSError, ValueError, SyntaxError, zipfile.BadZipFile):
        return False


def _has_our_arrays(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return set(archive.namelist()) >= _ARRAYS


def _ends_in_banner(path: Path) -> bool:
    with Image.open(path) as picture:
        return picture.mode == "RGB" and picture.getpixel((picture.width - 1, picture.height - 1)) == BANNER
