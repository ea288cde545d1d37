"""The views on which engines are compared with the reference."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import product

from glam_deploy.records import Mammogram, Source, View
from glam_export.demo.phantom import SHAPE, phantom_view


def phantoms(seeds: Iterable[int], *, shape: tuple[int, int] = SHAPE) -> list[Mammogram]:
    """The four views of each phantom exam, exam after exam."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda which: _phantom(*which, shape=shape), product(seeds, View)))


def _phantom(seed: int, view: View, *, shape: tuple[int, int]) -> Mammogram:
    source = Source(name=f"phantom {seed} {view.value}", kind="array")
    return Mammogram(pixels=phantom_view(seed, view, shape=shape).pixels, view=view, source=source)
