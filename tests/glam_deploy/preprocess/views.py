"""Views to look for faults in, made apart from the product's phantoms, and backgrounds behind rims of every shape.

A sound view is tissue with texture that fades at its skin, on 0. What is put into one is known, so the image itself is
the truth of a test.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from glam_deploy.records import Float32, Mammogram, Notice, Pixels, View

FULL = 4095


def texture(rng: np.random.Generator, shape: tuple[int, int]) -> Float32:
    """float32 [rows, columns], mean 0, deviation about 1, from fine to coarse."""
    total = np.zeros(shape, np.float32)
    for size in (6, 24, 96):
        small = rng.standard_normal((shape[0] // size + 3, shape[1] // size + 3), np.float32)
        total += cv2.resize(small, shape[::-1], interpolation=cv2.INTER_CUBIC)
    return total / np.float32(1.7)


def depth_of(inside: Pixels) -> Float32:
    """float32: pixels to the skin; the image's own edges are none."""
    padded = np.pad(inside.astype(np.uint8), 200, mode="edge")
    return np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 5)[200:-200, 200:-200], np.float32)


def shape_of(rng: np.random.Generator, rows: int, columns: int, *, mlo: bool, reach: float, height: float) -> Pixels:
    """bool [rows, columns]: half an ellipse with a nipple; in an MLO view it goes on to the axilla at the top."""
    row, column = np.mgrid[0:rows, 0:columns].astype(np.float32)
    middle = rows * (0.56 if mlo else rng.uniform(0.47, 0.53))
    below = ((row - middle) / (rows * height)) ** 2 + (column / (columns * reach)) ** 2 < 1
    upper = column < columns * (0.3 + (reach - 0.3) * np.sin(np.clip(row / middle, 0, 1) * np.pi / 2) ** 1.3)
    nipple = np.hypot(row - middle, column - columns * reach) < 0.018 * rows
    return np.where(row < middle, upper, below) | nipple if mlo else below | nipple


def sound(
    seed: int,
    *,
    mlo: bool = False,
    rows: int = 1000,
    columns: int = 760,
    reach: float = 0.62,
    height: float = 0.4,
    margin: float = 60,
) -> Pixels:
    """uint16 [rows, columns], facing right, 12 bits. `margin`: pixels from the skin to the full thickness."""
    rng = np.random.default_rng(seed)
    depth = depth_of(shape_of(rng, rows, columns, mlo=mlo, reach=reach, height=height))
    rising = 1 - (1 - np.clip(depth / margin, 0, 1)) ** 2
    row, column = np.mgrid[0:rows, 0:columns].astype(np.float32)
    gland = np.exp(-(((row - 0.52 * rows) / (0.2 * rows)) ** 2) - ((column - 0.3 * columns) / (0.25 * columns)) ** 2)
    muscle = np.clip((columns * 0.25 * (1 - row / (0.45 * rows)) - column) / 12, 0, 1) if mlo else 0
    values = rising * (900 + 500 * gland + 350 * muscle + 120 * texture(rng, depth.shape))
    noisy = np.clip(values + 12 * rng.standard_normal(depth.shape, np.float32), 1, FULL)
    return np.where(depth > 0, noisy, 0).astype(np.uint16)


def stored(pixels: Pixels, view: str = "L-CC", *, flip: bool = False, notices: tuple[Notice, ...] = ()) -> Mammogram:
    """A view whose right-facing `pixels` are stored as the view and the flip say."""
    named = View(view)
    turned = np.ascontiguousarray(pixels[:, ::-1]) if named.is_right != flip else pixels
    return Mammogram(pixels=turned, view=named, horizontal_flip=flip, notices=notices)


RIMS = ("none", "rectangle", "all round", "oval", "far oval", "contour", "rounded", "corners", "slant", "film", "ring")
RIMS_OF_ONE_SIDE = ("top", "bottom", "far")


def outside_rim(kind: str, width: int, tissue: Pixels) -> Pixels:  # noqa: PLR0911
    """bool [rows, columns]: what is black. `tissue`: bool, where the breast is."""
    rows, columns = tissue.shape
    row, column = np.mgrid[0:rows, 0:columns].astype(np.float32)
    up, right = np.minimum(row, rows - 1 - row), columns - 1 - column
    middle, centre = rows / 2, columns / 2
    match kind:
        case "none":
            return np.zeros(tissue.shape, np.bool_)
        case "rectangle" | "film":
            return np.minimum(up, right) < width
        case "all round":
            return np.minimum(np.minimum(up, right), column) < width
        case "oval":
            return ((row - middle) / (middle - width)) ** 2 + (column / (columns - width)) ** 2 >= 1
        case "far oval":
            return ((row - middle) / (middle - width)) ** 2 + ((column - centre) / (centre - width)) ** 2 >= 1
        case "contour":
            return cv2.distanceTransform((~tissue).astype(np.uint8), cv2.DIST_L2, 5) > 40 + width
        case "ring":
            return ~tissue & (cv2.distanceTransform((~tissue).astype(np.uint8), cv2.DIST_L2, 5) <= width)
        case "rounded":
            far = np.hypot(np.clip(90 + width - up, 0, None), np.clip(90 + width - right, 0, None))
            return far > 90
        case "corners":
            return (column / columns + np.abs(row - middle) / middle > 1.3) | (np.minimum(up, right) < width)
        case "slant":
            return (column > columns * 0.93 + 0.05 * (row - middle)) | (up < width)
    return {"top": row < width, "bottom": rows - 1 - row < width, "far": right < width}[kind]


BACKGROUNDS = ("constant", "gradient", "back", "down", "glow", "noise", "grain", "stripes", "columns", "text")


def background(kind: str, level: float, shape: tuple[int, int], seed: int = 2) -> Pixels:
    """float [rows, columns], at least 1."""
    rng, (rows, columns) = np.random.default_rng(seed), shape
    row, column = np.mgrid[0:rows, 0:columns].astype(np.float32)
    lines = np.zeros(shape, np.uint8)
    if kind == "text":
        for below in range(40, rows, 70):
            cv2.putText(lines, "HOSPITAL 28 kV 90 mAs", (20, below), cv2.FONT_HERSHEY_SIMPLEX, 1.2, 1, 3)
    made = {
        "constant": lambda: np.full(shape, level),
        "gradient": lambda: level * (0.1 + 0.9 * column / columns),
        "back": lambda: level * (1 - 0.8 * column / columns),
        "down": lambda: level * (0.1 + 0.9 * row / rows),
        "glow": lambda: level * (1 - 0.7 * np.hypot((row - rows / 2) / rows, (column - columns / 2) / columns)),
        "noise": lambda: rng.uniform(1, max(2, 2 * level), shape),
        "grain": lambda: level * (1 + 0.3 * cv2.GaussianBlur(rng.standard_normal(shape), (0, 0), 2) * 7),
        "stripes": lambda: np.where(row // 12 % 2 == 0, level, 0.4 * level),
        "columns": lambda: np.where(column // 30 % 2 == 0, level, 0.4 * level),
        "text": lambda: np.where(lines > 0, level, 0.5 * level),
    }[kind]()
    return np.maximum(np.rint(made), 1)


def behind_rim(pixels: Pixels, rim: str, width: int, kind: str, level: float, *, added: bool = False) -> Pixels:
    """A sound view with that background behind that rim; `added`: also to the tissue, as light in a scanner is."""
    tissue, values = pixels > 0, background(kind, level, pixels.shape)
    mixed = np.where(tissue, pixels + values * added, values)
    if rim == "film":
        bright = outside_rim("rectangle", width, tissue)
        mixed[outside_rim("rectangle", 2 * width + 4, tissue)] = 0
        mixed[bright] = FULL
    else:
        mixed[outside_rim(rim, width, tissue)] = 0
    return np.clip(mixed, 0, FULL).astype(np.uint16)


def variants(seed: int) -> Iterator[tuple[str, Pixels, str, tuple[Notice, ...]]]:
    """(what it is, pixels facing right, view, the reader's notices) of sound views that look unusual."""
    rng = np.random.default_rng(seed)
    mlo = bool(seed % 2)
    view = ("R" if seed % 3 == 0 else "L") + ("-MLO" if mlo else "-CC")
    plain = sound(seed, mlo=mlo, margin=float(rng.uniform(25, 110)))
    columns = plain.shape[1]
    partial = (Notice(code="partial-view", message="PartialView is YES"),)
    yield "plain", plain, view, ()
    yield "large", sound(seed, mlo=mlo, reach=0.95, height=0.48), view, ()
    yield "full height", sound(seed, reach=0.7, height=0.62), view[:2] + "CC", ()
    yield "three borders", sound(seed, reach=1.01, height=0.55), view[:2] + "CC", ()
    yield "partial", sound(seed, reach=1.3, height=0.9)[:, : columns * 3 // 5], view[:2] + "CC", partial
    yield "small", sound(seed, mlo=mlo, reach=0.35, height=0.28), view, ()
    yield "dark skin", sound(seed, mlo=mlo, margin=200), view, ()
    yield "implant", _with_implant(plain), view, ()
    yield "label", _with_label(plain, rng), view, ()
    yield "paddle", _with_paddle(plain, int(rng.integers(1, 9))), view, ()
    yield "markers", _with_markers(plain, rng), view, ()
    yield "clips", _with_clips(plain, rng), view, ()
    yield "rim", np.where(outside_rim("rectangle", 12, plain > 0), 0, plain).astype(np.uint16), view, ()
    yield "nipple at the edge", sound(seed, mlo=mlo, reach=0.985), view, ()
    yield "float", plain.astype(np.float32) / 7, view, ()


def _with_implant(pixels: Pixels) -> Pixels:
    rows, columns = pixels.shape
    row, column = np.mgrid[0:rows, 0:columns]
    implant = ((row - rows * 0.5) / (rows * 0.27)) ** 2 + (column / (columns * 0.4)) ** 2 < 1
    return np.where(implant & (pixels > 0), 3300 + pixels // 10, pixels).astype(np.uint16)


def _with_label(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    made, left = np.ascontiguousarray(pixels.copy()), int(pixels.shape[1] * rng.uniform(0.7, 0.78))
    drawn = np.zeros(pixels.shape, np.uint8)
    cv2.putText(drawn, "L-CC", (left, int(rng.uniform(40, 90))), cv2.FONT_HERSHEY_SIMPLEX, 1.5, 1, 4)
    made[(drawn > 0) & (pixels == 0)] = 3600
    return made


def _with_paddle(pixels: Pixels, thickness: int) -> Pixels:
    made = pixels.copy()
    for row in (25, pixels.shape[0] - 30):
        made[row : row + thickness] = np.maximum(made[row : row + thickness], 500)
    return made


def _with_markers(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Lead beads on the skin, partly beyond it."""
    row, column = np.mgrid[0 : pixels.shape[0], 0 : pixels.shape[1]]
    made = pixels.copy()
    for at in rng.integers(250, 750, 3):
        made[np.hypot(row - at, column - np.count_nonzero(pixels[at])) < 7] = FULL
    return made


def _with_clips(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    made = pixels.copy()
    for at in rng.integers(350, 650, 6):
        made[at : at + 9, at % 90 + 60 : at % 90 + 64] = FULL
    return made
