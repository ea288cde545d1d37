"""The two PNG pictures of a view: the mammogram alone, and the overlay.

Only views that the worker has processed are read, and in a child process, because a decoder may run foreign code that
breaks nothing. Pictures are made on request and kept in memory; nothing is written to the disk.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from glam_deploy.appliance.data import PICTURE
from glam_deploy.appliance.web.view_results import placement
from glam_deploy.decoding.view_reader import ViewReader
from glam_deploy.errors import InputError
from glam_deploy.outputs.overlay import grey, shown_part, shown_shape, to_png

MOST_BYTES = 128 << 20
"""Total bytes of the PNG files in memory: about thirty exams."""


@dataclass
class Pictures:
    """Makes one picture at a time, because the largest take half a second and 200 MB; caches the latest."""

    reader: ViewReader
    most_bytes: int = MOST_BYTES
    _made: OrderedDict[tuple[Path, ...], bytes] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def image(self, instance: Path, results: Path) -> bytes:
        """PNG of the mammogram in `instance`, in the greys and the size of the overlay in its `results`.

        No side exceeds 1600 pixels. Raises as `ViewReader.read`, and InputError if its results cannot be read.
        """
        return self._remembered((instance, results), lambda: self._image(instance, results))

    def overlay(self, results: Path) -> bytes:
        """PNG of the same size with saliency and patches, as `glam-deploy run` draws them. Raises InputError."""
        return self._remembered((results,), lambda: _overlay(results))

    def close(self) -> None:
        """End the process that reads views."""
        self.reader.close()

    def _image(self, instance: Path, results: Path) -> bytes:
        # shown even if the policy on For Processing images has changed
        pixels = self.reader.read(instance, for_processing=True).pixels
        shown = grey(pixels, placement(results).crop_window, shown_shape(pixels.shape))
        return to_png(np.repeat(shown[:, :, None], 3, axis=2))

    def _remembered(self, key: tuple[Path, ...], make: Callable[[], bytes]) -> bytes:
        with self._lock:
            found = self._made.get(key) or make()
            self._made[key] = found
            self._made.move_to_end(key)
            while len(self._made) > 1 and sum(map(len, self._made.values())) > self.most_bytes:
                self._made.popitem(last=False)
            return found


def _overlay(results: Path) -> bytes:
    shape = shown_shape(placement(results).source_shape)
    try:
        picture = np.asarray(Image.open(results / PICTURE).convert("RGB"))
    except OSError as error:
        raise InputError(f"the overlay of this view cannot be read ({type(error).__name__})") from error
    return to_png(shown_part(picture, shape))
