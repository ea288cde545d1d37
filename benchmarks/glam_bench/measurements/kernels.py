"""Every kernel against its numpy twin: locations and flags bit for bit, values within rounding."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glam_bench.gpu import maps, placement
from glam_bench.gpu.maps import KINDS, SLOTS, Cut, places
from glam_bench.gpu.plan import GpuContext
from glam_bench.gpu.views import VIEWS
from glam_bench.gpu.workbench import Bench, random_weights
from glam_deploy.engines.fusion_head import FusionHead
from glam_deploy.gpu.kernels import placed, staging
from glam_deploy.gpu.kernels.geometry import Flags
from glam_deploy.gpu.kernels.placed import Located
from glam_deploy.networks import GLAM, glam
from glam_deploy.preprocess.standardize import standardize
from glam_deploy.records import Float32, Int64, Mammogram
from glam_deploy.runtime import patching

ROUNDING = 4 * float(np.finfo(np.float32).eps)
"""Largest difference allowed of standardized values, as a share of the largest of them."""
HEAD_LIMIT = 2e-6
"""Largest difference allowed of the fusion head's outputs, 0..1."""
FLAT = (Flags.FLAT_BENIGN, Flags.FLAT_MALIGNANT)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One launch compared with the numpy twin of the kernel."""

    kernel: str
    case: str
    k: int | None
    n: int
    difference: float
    """Largest; infinite where only one of the two is NaN. For locations and flags: how many differ."""
    limit: float

    @property
    def passed(self) -> bool:
        return self.difference <= self.limit


def run(context: GpuContext) -> None:
    """All checks. A launch that differs does not end the measurement: it is recorded, and a bar fails."""
    bench = Bench(context.options.device)
    counts = (1,) if context.options.quick else (1, 4)
    depths = (1, 3) if context.options.quick else tuple(range(1, SLOTS + 1))
    for kernel, checks in (
        ("place", check_place(bench, groups(VIEWS, counts))),
        ("standardize", check_standardize(bench, groups(maps.CUTS, counts))),
        ("propose", check_propose(bench, groups(KINDS, counts), depths)),
        ("crop", check_crop(bench, counts, depths)),
        ("fuse", check_fuse(bench, counts, depths)),
        ("examine", check_examine(bench, counts)),
        ("head", check_head(bench, counts, depths)),
    ):
        context.add(**{kernel: summary(list(checks))})


def groups(names: Iterable[str], counts: Iterable[int]) -> Iterator[list[str]]:
    """Groups of `n` names for each count n; each name is the first of one group."""
    names = list(names)
    for n in counts:
        yield from ([names[(first + i) % len(names)] for i in range(n)] for first in range(len(names)))


def summary(checks: Sequence[Check]) -> dict[str, Any]:
    """The number of checks, the largest difference, and each check over its limit."""
    missed = [asdict(check) for check in checks if not check.passed]
    largest = max(check.difference for check in checks)
    return {"checks": len(checks), "largest_difference": largest, "limit": checks[0].limit, "missed": missed}


# place


def check_place(bench: Bench, groups: Iterable[Sequence[str]], seed: int = 6) -> Iterator[Check]:
    """`groups`: which of `views.VIEWS` go in at once. The window that was found is standardized, too."""
    rng = np.random.default_rng(seed)
    for names in groups:
        views = [VIEWS[name](rng) for name in names]
        located, images = _placed(bench, views)
        twins = [placement.locate(view, GLAM.input_shape) for view in views]
        wrong = sum(len(placement.differing(*pair)) for pair in zip(located, twins, strict=True))
        case, n = "; ".join(names), len(views)
        yield Check(kernel="place", case=f"{case}: facts and samples", k=None, n=n, difference=wrong, limit=0)
        pairs = zip(views, twins, strict=True)
        expected = np.stack([placement.image_of(view, twin, GLAM.input_shape) for view, twin in pairs])
        difference = largest_difference(images, expected) / max(1.0, float(np.abs(expected).max()))
        yield Check(kernel="place", case=f"{case}: window", k=None, n=n, difference=difference, limit=ROUNDING)


def _placed(bench: Bench, views: Sequence[Mammogram]) -> tuple[list[Located | None], Float32]:
    """The results of `place`, None where they cannot be read, and the standardized images [n, 2944, 1920]."""
    n, shapes = len(views), [(*view.pixels.shape, view.pixels.dtype) for view in views]
    areas = np.zeros((n, max(staging.whole_bytes(*shape) for shape in shapes)), np.uint8)
    for area, view in zip(areas, views, strict=True):
        staging.pack_whole(area, view.pixels, mirrored=view.faces_left, is_mlo=view.view.is_mlo)
    uploaded, scratch = bench.upload(areas), bench.scratch(n)
    work, samples = bench.poisoned(placed.place_scratch_bytes(n)), bench.poisoned(n * placed.samples_bytes())
    image = bench.poisoned(4 * n * GLAM.input_shape[0] * GLAM.input_shape[1])
    where: dict[str, Any] = {"areas": uploaded, "area_bytes": areas.shape[1], "scratch": scratch, "n": n}
    bench.kernels.place(bench.stream, **where, place_scratch=work, samples=samples)
    bench.kernels.standardize(bench.stream, **where, image=image)
    blocks = bench.download(samples, np.uint8, (n, placed.samples_bytes()))
    used = [block[: placed.used_samples_bytes(*shape)] for block, shape in zip(blocks, shapes, strict=True)]
    located = [_read(block, shape[2]) for block, shape in zip(used, shapes, strict=True)]
    return located, bench.download(image, np.float32, (n, *GLAM.input_shape))


def _read(block: NDArray[np.uint8], dtype: np.dtype[Any]) -> Located | None:
    try:
        return placed.read(block, dtype)
    except ValueError:
        return None


# standardize


def check_standardize(bench: Bench, groups: Iterable[Sequence[str]], seed: int = 0) -> Iterator[Check]:
    """`groups`: which of `maps.CUTS` go in at once."""
    rng = np.random.default_rng(seed)
    for names in groups:
        yield _standardize(bench, names, [maps.CUTS[name](rng) for name in names])


def _standardize(bench: Bench, names: Sequence[str], cuts: Sequence[Cut]) -> Check:
    n = len(cuts)
    areas = np.zeros((n, staging.largest_area(GLAM.input_shape)), np.uint8)
    for area, cut in zip(areas, cuts, strict=True):
        staging.pack(
            area,
            cut.pixels,
            row=cut.row,
            column=cut.column,
            mirrored=cut.mirrored,
            network_shape=GLAM.input_shape,
        )
    shape = (n, 1, *GLAM.input_shape)
    uploaded, image, scratch = bench.upload(areas), bench.poisoned(4 * int(np.prod(shape))), bench.scratch(n)
    bench.kernels.standardize(bench.stream, areas=uploaded, image=image, scratch=scratch, n=n)
    found = bench.download(image, np.float32, shape)
    expected = np.stack([standardized(cut) for cut in cuts])[:, None]
    scale = max(1.0, float(np.abs(expected).max()))
    difference = largest_difference(found, expected) / scale
    return Check(kernel="standardize", case="; ".join(names), k=None, n=n, difference=difference, limit=ROUNDING)


def standardized(cut: Cut) -> Float32:
    """The twin: float32 [2944, 1920]."""
    image = np.zeros(GLAM.input_shape, np.float32)
    rows, columns = cut.pixels.shape
    place = image[cut.row : cut.row + rows, cut.column : cut.column + columns]
    place[...] = cut.pixels[:, ::-1] if cut.mirrored else cut.pixels
    standardize(image)
    return image


# propose


def check_propose(
    bench: Bench, groups: Iterable[Sequence[str]], depths: Sequence[int], seed: int = 1
) -> Iterator[Check]:
    """`groups`: which of `maps.KINDS` the images that go in at once are of."""
    rng = np.random.default_rng(seed)
    for kinds in groups:
        saliency = np.stack([maps.saliency(kind, rng) for kind in kinds])
        for k in depths:
            yield _propose(bench, "; ".join(kinds), saliency, k)


def _propose(bench: Bench, case: str, saliency: Float32, k: int) -> Check:
    n = len(saliency)
    locations, flags = bench.poisoned(n * SLOTS * 2 * 8), bench.poisoned(n * 4)
    uploaded, scratch = bench.upload(saliency), bench.scratch(n)
    bench.kernels.propose(bench.stream, saliency=uploaded, locations=locations, flags=flags, scratch=scratch, k=k, n=n)
    found = bench.download(locations, np.int64, (n, SLOTS, 2)), bench.download(flags, np.uint32, (n,))
    wrong = sum(int((a != b).sum()) for a, b in zip(found, proposed(saliency, k), strict=True))
    return Check(kernel="propose", case=case, k=k, n=n, difference=wrong, limit=0)


def proposed(saliency: Float32, k: int) -> tuple[Int64, NDArray[np.uint32]]:
    """The twin: locations int64 [n, 6, 2], slots not in use (-1, -1), and flags uint32 [n]."""
    locations = np.full((len(saliency), SLOTS, 2), -1, np.int64)
    flags = np.zeros(len(saliency), np.uint32)
    for i, image in enumerate(saliency):
        with np.errstate(invalid="ignore", over="ignore"):
            cells, without_contrast = patching.choose_windows(image, k, GLAM.patches)
        locations[i, :k] = [patching.cell_to_pixel(cell, GLAM) for cell in cells]
        flags[i] = sum(int(bit) for bit, is_flat in zip(FLAT, without_contrast, strict=True) if is_flat)
    return locations, flags


# crop


def check_crop(bench: Bench, counts: Sequence[int], depths: Sequence[int], seed: int = 2) -> Iterator[Check]:
    """Corners, edges and places in between, in images of random pixels."""
    rng = np.random.default_rng(seed)
    for n in counts:
        images = rng.standard_normal((n, 1, *GLAM.input_shape), np.float32)
        uploaded = bench.upload(images)
        for k in depths:
            locations = places(rng, n, k)
            patches = bench.poisoned(n * k * GLAM.patches.side**2 * 4)
            at = bench.upload(locations)
            bench.kernels.crop(bench.stream, image=uploaded, locations=at, patches=patches, k=k, n=n)
            found = bench.download(patches, np.float32, (n, k, 1, GLAM.patches.side, GLAM.patches.side))
            expected = np.stack(
                [patching.crop(i[0], p[:k], GLAM.patches.side) for i, p in zip(images, locations, strict=True)]
            )
            wrong = int((found != expected).sum())
            yield Check(kernel="crop", case="random", k=k, n=n, difference=wrong, limit=0)


# fuse


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of a fused map; slots from `k` on are not in use."""

    saliency_global: Float32
    saliency_patches: Float32
    locations: Int64
    k: int

    @property
    def n(self) -> int:
        return len(self.locations)


def check_fuse(bench: Bench, counts: Sequence[int], depths: Sequence[int], seed: int = 3) -> Iterator[Check]:
    """Overlapping patches, unused slots of NaN that must not be read, and NaN and infinity in used ones."""
    rng = np.random.default_rng(seed)
    for n in counts:
        for k in depths:
            parts = _random_parts(rng, n, k)
            yield from _fuse(bench, "finite", parts)
        for name, value in (("saliency_global", np.nan), ("saliency_patches", np.inf)):
            spoilt = getattr(parts, name).copy()
            spoilt[(n - 1, *(0,) * (spoilt.ndim - 1))] = value
            yield from _fuse(bench, f"{value} in {name}", replace(parts, **{name: spoilt}))


def _random_parts(rng: np.random.Generator, n: int, k: int) -> Parts:
    patches = rng.random((n, SLOTS, 2, glam.PATCH_MAP, glam.PATCH_MAP), np.float32)
    patches[:, k:] = np.nan
    saliency = rng.random((n, 2, *GLAM.map_shape), np.float32)
    return Parts(saliency_global=saliency, saliency_patches=patches, locations=places(rng, n, k), k=k)


def _fuse(bench: Bench, case: str, parts: Parts) -> Iterator[Check]:
    n, shape = parts.n, (parts.n, 2, *GLAM.input_shape)
    fused, flags = bench.poisoned(4 * int(np.prod(shape))), bench.upload(np.full(n, 1, np.uint32))
    inputs = [bench.upload(array) for array in (parts.saliency_global, parts.saliency_patches, parts.locations)]
    bench.kernels.fuse(
        bench.stream,
        saliency_global=inputs[0],
        saliency_patches=inputs[1],
        locations=inputs[2],
        saliency=fused,
        flags=flags,
        n=n,
    )
    expected, expected_flags = fused_maps(parts)
    difference = largest_difference(bench.download(fused, np.float32, shape), expected)
    yield Check(kernel="fuse", case=case, k=parts.k, n=n, difference=difference, limit=0)
    wrong = int((bench.download(flags, np.uint32, (n,)) != expected_flags).sum())
    yield Check(kernel="fuse", case=f"{case}: flags", k=parts.k, n=n, difference=wrong, limit=0)


def fused_maps(parts: Parts) -> tuple[Float32, NDArray[np.uint32]]:
    """The twin: float32 [n, 2, 2944, 1920], and flags in which the bit that was set before is left."""
    images = list(zip(parts.saliency_global, parts.saliency_patches[:, : parts.k], parts.locations, strict=True))
    grids = [patching.fuse(saliency, patches, at[: parts.k], GLAM) for saliency, patches, at in images]
    flags = [1 | _not_finite(saliency, patches) for saliency, patches, _ in images]
    return np.stack([patching.enlarge(grid, GLAM.grid_cell) for grid in grids]), np.array(flags, np.uint32)


def _not_finite(saliency: Float32, patches: Float32) -> int:
    judged = ((Flags.NOT_FINITE_GLOBAL, saliency), (Flags.NOT_FINITE_LOCAL, patches))
    return sum(int(flag) for flag, values in judged if not np.isfinite(values).all())


# examine


def check_examine(bench: Bench, counts: Sequence[int], seed: int = 5) -> Iterator[Check]:
    """One pixel of the last image, in a corner, and a flag that was set before."""
    rng = np.random.default_rng(seed)
    for n in counts:
        images = rng.standard_normal((n, 1, *GLAM.input_shape), np.float32)
        for value in (0.0, np.nan, np.inf):
            images[-1, 0, -1, -1] = value
            flags = bench.upload(np.full(n, Flags.FLAT_BENIGN, np.uint32))
            bench.kernels.examine(bench.stream, image=bench.upload(images), flags=flags, n=n)
            expected = [Flags.FLAT_BENIGN | (0 if np.isfinite(i).all() else Flags.NOT_FINITE_IMAGE) for i in images]
            wrong = int((bench.download(flags, np.uint32, (n,)) != expected).sum())
            yield Check(kernel="examine", case=str(value), k=None, n=n, difference=wrong, limit=0)


# head


def check_head(bench: Bench, counts: Sequence[int], depths: Sequence[int], seed: int = 6) -> Iterator[Check]:
    """The fusion head of GLAM with attention: random, tied and constant maps, unused slots of NaN, NaN in an input."""
    rng = np.random.default_rng(seed)
    for n in counts:
        for k in depths:
            inputs = head_inputs(rng, n, k)
            yield _head(bench, "random", inputs, k)
            for case, levels in (("tied", 4), ("constant", 1)):
                patches = inputs["saliency_patches"]
                yield _head(bench, case, {**inputs, "saliency_patches": np.floor(patches * levels) / levels}, k)
        spoilt = {**inputs, "z_k": inputs["z_k"].copy()}
        spoilt["z_k"][-1, 0, -1] = np.nan
        yield _head(bench, "NaN in z_k", spoilt, k)


def head_inputs(rng: np.random.Generator, n: int, k: int) -> dict[str, NDArray[Any]]:
    """Random inputs of GLAM's fusion stage; unused slots are NaN."""
    tensors = GLAM.contract("fusion").inputs
    inputs = {name: rng.random((n, *t.shape), np.float32) for name, t in tensors.items() if t.dtype == "float32"}
    for name in ("saliency_patches", "z_k"):
        inputs[name][:, k:] = np.nan
    return {**inputs, "patch_locations": places(rng, n, k)}


def _head(bench: Bench, case: str, inputs: Mapping[str, NDArray[Any]], k: int) -> Check:
    n = len(inputs["patch_locations"])
    head = FusionHead(random_weights(), GLAM)
    shapes = {name: (n, *t.shape) for name, t in head.contract.outputs.items()}
    memory = {name: bench.upload(array) for name, array in inputs.items()}
    scratch = {"pooled": (n, SLOTS, len(GLAM.classes))}
    memory |= {name: bench.poisoned(4 * int(np.prod(shape))) for name, shape in {**shapes, **scratch}.items()}
    bench.head.launch(bench.stream, {name: one.address for name, one in memory.items()}, n=n)
    expected = head.scores(inputs)
    differences = [
        largest_difference(bench.download(memory[name], np.float32, shape), expected[name])
        for name, shape in shapes.items()
    ]
    return Check(kernel="head", case=case, k=k, n=n, difference=max(differences), limit=HEAD_LIMIT)


def largest_difference(found: Float32, expected: Float32) -> float:
    """0 where both have the same value, NaN and infinities included; infinite where only one of them is NaN."""
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    if same.all():
        return 0.0
    with np.errstate(invalid="ignore"):
        difference = np.abs(found[~same].astype(np.float64) - expected[~same])
    return float(np.where(np.isnan(difference), np.inf, difference).max())
