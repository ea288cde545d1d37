"""Pictures for the figure of images and maps: the image with the outlines, and each network's saliency, side by side.

The images are chosen before any network runs, so that the choice cannot depend on what they find: the first MOST of the
list that have an outline of the malignant class, then the first others with an outline, then the first with a label.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np

from glam_bench.evaluation.labelled import LabelledImage, Mask
from glam_bench.evaluation.overlap import maps_of
from glam_deploy.durable import write_whole
from glam_deploy.outputs.overlay import PERCENTILES, to_png, window
from glam_deploy.outputs.panel import COLOURS, Picture, tint
from glam_deploy.preprocess import map_to_network
from glam_deploy.records import Float32
from glam_deploy.runtime.result import Result

FOLDER = "pictures"
MOST = 4
"""Images in the figure."""
_NAME = re.compile(r"[0-9a-f]{16}(_[0-9a-f]{16})?\.png")
"""Names of pictures."""
SHAPE = (736, 480)
"""Rows and columns of a picture: the network frame, reduced to a quarter."""
RULE = (
    f"The first {MOST} images of the list with a malignant outline, then the first with another outline, then the "
    "first with a positive label: the choice does not depend on results."
)


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The pictures of an evaluation, as files in a folder."""

    folder: Path
    images: Sequence[str]
    """Names of the chosen images; empty for no pictures."""

    def lacks(self, model: str, image: LabelledImage) -> bool:
        """Whether a picture of this image and network must be drawn."""
        wanted = (self.input(image.name), self.of(model, image.name))
        return image.name in self.images and not all(path.is_file() for path in wanted)

    def remove_others(self, models: Sequence[str]) -> None:
        """Remove pictures of an earlier evaluation that are not of these networks and images. Raises OSError."""
        wanted = {self.input(name) for name in self.images}
        wanted |= {self.of(model, name) for name in self.images for model in models}
        for path in self.folder.glob("*.png"):
            if _NAME.fullmatch(path.name) and not (path in wanted and path.is_file()):
                path.unlink()
        if not wanted:
            with suppress(OSError):  # it has files of others, or does not exist
                self.folder.rmdir()

    def input(self, name: str) -> Path:
        """Picture of the image with its outlines."""
        return self.folder / f"{_key(name)}.png"

    def of(self, model: str, name: str) -> Path:
        """Picture of the final map of a network over the image."""
        return self.folder / f"{_key(name)}_{_key(model)}.png"

    def add(self, model: str, image: LabelledImage, result: Result, masks: Mapping[str, Mask]) -> None:
        """Draw both pictures, if the image is one of the chosen. Raises OSError."""
        if image.name not in self.images:
            return
        self.folder.mkdir(exist_ok=True)
        grey = _grey(result.network_input.image)
        *_, maps = maps_of(result).values()
        saliency = np.stack([cv2.resize(one, SHAPE[::-1], interpolation=cv2.INTER_NEAREST) for one in maps])
        write_whole(self.of(model, image.name), to_png(tint(grey, saliency)))
        placed = {label: map_to_network(result.input.placement, mask) for label, mask in masks.items()}
        write_whole(self.input(image.name), to_png(_outlined(grey, placed)))


def choose(images: Sequence[LabelledImage]) -> tuple[str, ...]:
    """Names of the images of the figure, by RULE."""
    with_malignant = [image.name for image in images if any(one.label == "malignant" for one in image.outlines)]
    with_other = [image.name for image in images if image.outlines]
    labelled = [image.name for image in images if any(image.labels.values())]
    return tuple(dict.fromkeys([*with_malignant, *with_other, *labelled]))[:MOST]


def _key(name: str) -> str:
    """A file name that no two names share; names of files that are not UTF-8 have lone surrogates."""
    return sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _grey(image: Float32) -> Picture:
    """The network's input as grey values, uint8 [*SHAPE]."""
    small = cv2.resize(image - image.min(), SHAPE[::-1], interpolation=cv2.INTER_AREA)
    tissue = small[small > 0]
    low, high = np.percentile(tissue, PERCENTILES) if tissue.size else (1.0, 2.0)
    return window(small, max(float(low), 1e-6), float(high))


def _outlined(grey: Picture, masks: Mapping[str, Mask]) -> Picture:
    """Contours of the masks (network frame) in the colours of their classes."""
    picture = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)
    for label, mask in masks.items():
        small = cv2.resize(mask.astype(np.uint8), SHAPE[::-1], interpolation=cv2.INTER_AREA)
        contours, _ = cv2.findContours(small, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, contours, -1, COLOURS[label], 2)
    return picture
