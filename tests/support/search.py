"""A made-up point of the frontier that a search draws."""

from glam_deploy.bundle import SearchPoint
from glam_deploy.precision import Recipe


def point(kind: str = "int8", latency_ms: float = 20.0, *, taken: bool = False) -> SearchPoint:
    """A mixture of the local stage that passed."""
    return SearchPoint(
        stage="local",
        kind=Recipe.from_json(kind),
        wide=("stem",),
        narrow_share=0.9,
        latency_ms=latency_ms,
        dice_median=0.995,
        dice_worst=0.99,
        same_patches=1.0,
        passed=True,
        taken=taken,
    )
