"""Patches that lie elsewhere than the reference's, where the reference could have chosen them as well."""

from collections.abc import Iterator

from glam_deploy import spec
from glam_deploy.patches import host
from glam_deploy.records import Float32, Int64

TIE = 2 * 2 * (spec.WINDOW - 1) * 2.0**-24
"""Relative difference of two window sums below which the reference does not know which is larger, 7.4e-6.

A sum of terms >= 0 after 62 FP32 additions is off by at most 62 roundings of 2^-24 each (Higham 2002, section 4.2), and
two sums are compared. Engines in FP32 choose differently among such windows.
"""


def are_tied(locations: Int64, saliency: Float32) -> Iterator[bool]:
    """Of each patch in order, whether the reference's map rates none higher, TIE apart, without the patches before it.

    `locations`: int64 [K, 2], upper-left input pixels. `saliency`: the reference's global map, float32 [2, 184, 120].
    """
    heat = host.contrast_stretch(saliency)[0].sum(axis=0)
    for row, column in (locations // spec.CELL).tolist():
        sums = host.window_sums(heat)
        yield bool(sums[row, column] >= sums.max() * (1 - TIE))
        heat[row : row + spec.WINDOW, column : column + spec.WINDOW] = 0
