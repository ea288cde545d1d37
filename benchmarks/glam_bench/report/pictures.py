"""Pictures inside the page, so that the report needs no other file."""

from base64 import b64encode
from io import BytesIO
from pathlib import Path

from PIL import Image

from glam_deploy.errors import UsageError

WIDEST = 1400
"""Pixels: wider pictures are made smaller, so that a report stays a few megabytes."""
QUALITY = 88


def data_uri(path: Path) -> str:
    """A picture file as WebP. Raises UsageError where it is none."""
    try:
        with Image.open(path) as picture:
            small = picture.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(f"{path}: not a picture that can be read ({error}). Write it again.") from error
    small.thumbnail((WIDEST, 4 * WIDEST))
    buffer = BytesIO()
    small.save(buffer, "WEBP", quality=QUALITY)
    return f"data:image/webp;base64,{b64encode(buffer.getvalue()).decode('ascii')}"
