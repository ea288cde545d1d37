"""A made-up point of the frontier that a search draws."""

from glam_export.search import Kind, Point


def point(kind: Kind = "int8", latency_ms: float = 20.0, *, taken: bool = False) -> Point:
    """A mixture of the local stage that passed."""
    return Point(
        stage="local",
        kind=kind,
        wide=("stem",),
        narrow_share=0.9,
        latency_ms=latency_ms,
        dice_median=0.995,
        dice_worst=0.99,
        same_patches=1.0,
        passed=True,
        taken=taken,
    )
