"""How saliency looks: two colours, and how opaque a value is."""

from collections.abc import Mapping
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray

from glam_deploy.records import Float32

Rgb = tuple[int, int, int]
Picture = NDArray[np.uint8]

COLOURS: Mapping[str, Rgb] = MappingProxyType({"benign": (0, 158, 255), "malignant": (255, 106, 0)})
"""By class, in the order that every network has. Sky blue and orange differ for every common kind of colour blindness
(Okabe & Ito 2008), and from grey."""

UNTOUCHED_BELOW = 0.1
"""Saliency up to this leaves the image as it is, bit for bit."""

MOST_OPAQUE = 0.65
"""Opacity at saliency 1: tissue still shows through."""


def opacity(saliency: Float32) -> Float32:
    """Opacity of a saliency value, elementwise: 0 up to 0.1, then linear to 0.65 at 1; any shape, float32.

    The scale is the same for every picture, so that two pictures can be compared.
    """
    above = (saliency - np.float32(UNTOUCHED_BELOW)) / np.float32(1 - UNTOUCHED_BELOW)
    shade: Float32 = np.float32(MOST_OPAQUE) * np.clip(above, 0, 1)
    return shade


def tint(grey: Picture, saliency: Float32) -> Picture:
    """Lay the two saliency maps over a grey image, malignant on top.

    `grey`: uint8 [rows, columns]; `saliency`: float32 [2, rows, columns], 0..1, same frame. Returns uint8
    [rows, columns, 3], RGB.
    """
    picture = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)
    touched = (saliency > UNTOUCHED_BELOW).any(axis=0)
    mixed = picture[touched].astype(np.float32)
    for name, values in zip(COLOURS, saliency, strict=True):
        mixed += opacity(values[touched])[:, None] * (np.array(COLOURS[name], np.float32) - mixed)
    picture[touched] = np.rint(mixed)
    return picture
