"""The two pictures of a view between which the page's slider moves: the mammogram alone, and the overlay.

Only of views that the worker is done with: a file that breaks a decoder never reaches this process. Both are made when
they are asked for and kept in memory; nothing is written, so nothing has to be cleaned away.
"""

import json
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from glam_deploy.appliance.data import FINDING, PICTURE, REPORT
from glam_deploy.dicom.read import read_view
from glam_deploy.errors import InputError
from glam_deploy.outputs.overlay import grey, shown_part, shown_shape, to_png

MOST_BYTES = 128 << 20
"""Of PNG files in memory: some thirty exams."""


@dataclass
class Pictures:
    """Makes one picture at a time, for the largest take half a second and 200 MB; remembers the latest."""

    most_bytes: int = MOST_BYTES
    _made: OrderedDict[tuple[Path, ...], bytes] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def image(self, instance: Path, results: Path) -> bytes:
        """PNG: the mammogram in `instance`, in the greys and the size of the overlay in its `results`.

        Neither side is over 1600 pixels. Raises DicomError and NotForThisNetwork as `read_view`, InputError where its
        results cannot be read.
        """
        return self._remembered((instance, results), lambda: _image(instance, results))

    def overlay(self, results: Path) -> bytes:
        """PNG of the same size: with saliency and patches, as `glam-deploy run` draws them. Raises InputError."""
        return self._remembered((results,), lambda: _overlay(results))

    def _remembered(self, key: tuple[Path, ...], make: Callable[[], bytes]) -> bytes:
        with self._lock:
            found = self._made.get(key) or make()
            self._made[key] = found
            self._made.move_to_end(key)
            while len(self._made) > 1 and sum(map(len, self._made.values())) > self.most_bytes:
                self._made.popitem(last=False)
            return found


def scores(results: Path) -> dict[str, dict[str, float]]:
    """Score -> class -> 0..1, as in `Result.predictions`; empty where the results have been cleaned away."""
    try:
        found: dict[str, dict[str, float]] = _json(results / FINDING)["summary"]["scores"]
        return found
    except InputError:
        return {}


def _image(instance: Path, results: Path) -> bytes:
    # shown whatever the policy on For Processing images is by now
    pixels = read_view(instance, for_processing=True).pixels
    shown = grey(pixels, tuple(_preprocessing(results)["crop_window"]), shown_shape(pixels.shape))
    return to_png(np.repeat(shown[:, :, None], 3, axis=2))


def _overlay(results: Path) -> bytes:
    shape = shown_shape(tuple(_preprocessing(results)["source_shape"]))
    try:
        picture = np.asarray(Image.open(results / PICTURE).convert("RGB"))
    except OSError as error:
        raise InputError(f"the overlay of this view cannot be read ({type(error).__name__})") from error
    return to_png(shown_part(picture, shape))


def _preprocessing(results: Path) -> dict[str, Any]:
    found: dict[str, Any] = _json(results / REPORT)["preprocessing"]
    return found


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name} of this view cannot be read ({type(error).__name__})") from error
