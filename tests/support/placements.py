"""Every way that a crop and the network's window can lie: for property tests."""

from typing import Any

from hypothesis import strategies as st

from glam_deploy.networks import PUBLISHED_FRAME
from glam_deploy.records import Placement


@st.composite
def placements(draw: Any, *, least: int = 1, most: int = 400, window: tuple[int, int] = PUBLISHED_FRAME) -> Placement:
    """Any crop of any source, whose sides have `least` to `most` pixels, with the `window` anywhere over it."""
    rows, columns = draw(st.integers(least, most)), draw(st.integers(least, most))
    top, left = draw(st.integers(0, rows - 1)), draw(st.integers(0, columns - 1))
    bottom, right = draw(st.integers(top + 1, rows)), draw(st.integers(left + 1, columns))
    return Placement(
        source_shape=(rows, columns),
        crop_window=(top, bottom, left, right),
        mirrored=draw(st.booleans()),
        row_shift=draw(st.integers(-window[0] + 1, bottom - top - 1)),
        column_shift=draw(st.integers(-window[1] + 1, right - left - 1)),
        best_center=None,
        half_turn=draw(st.booleans()),
        network_shape=window,
    )
