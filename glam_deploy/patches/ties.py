"""Patches that lie elsewhere than the reference's, where the reference could have chosen them as well."""

from collections.abc import Iterator

from glam_deploy.networks import NetworkSpec
from glam_deploy.patches import host
from glam_deploy.records import Float32, Int64


def tie(network: NetworkSpec) -> float:
    """Relative difference of two window sums below which rounding decides which is larger; in GLAM 7.4e-6.

    A sum of terms >= 0 after n FP32 additions is off by at most n roundings of 2^-24 each (Higham 2002, section 4.2),
    n is twice the side of the window less one, and two sums are compared. Engines in FP32 choose differently among
    such windows.
    """
    return 2 * 2 * (network.patches.window - 1) * 2.0**-24


def are_tied(locations: Int64, saliency: Float32, network: NetworkSpec) -> Iterator[bool]:
    """Of each patch in order, whether the reference's map rates none higher, a tie apart, without those before it.

    `locations`: int64 [K, 2], upper-left input pixels. `saliency`: the reference's global map, float32
    [2, rows, columns].
    """
    side = network.patches.window
    heat = host.contrast_stretch(saliency)[0].sum(axis=0)
    for row, column in (locations // network.cell).tolist():
        sums = host.window_sums(heat, side)
        yield bool(sums[row, column] >= sums.max() * (1 - tie(network)))
        heat[row : row + side, column : column + side] = 0
