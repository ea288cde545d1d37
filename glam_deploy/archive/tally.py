"""Counts over one partition of an archive's data set, streamed from its Parquet parts."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from glam_deploy.errors import BackendUnavailable, UsageError
from glam_deploy.installation import is_installed, lacks

if TYPE_CHECKING:
    import pyarrow as pa

BINS = 20
"""Of a histogram of scores, over 0..1."""
MAX_REASONS = 1000
"""Different reasons that are counted by themselves; the images of further ones are counted together."""
OTHER = "other reasons"
_MADE_BY = ("engine", "bundle_id", "gate", "made_by")
_SCORE = ("y_global_", "y_local_", "y_fusion_")


@dataclass(kw_only=True)
class Tally:
    """Counts of one partition; filled batch by batch."""

    digest: str
    """That of its folder, `bundle=<digest>`."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """Outcome -> entries of the source."""
    bytes: int = 0
    """Of all entries whose size is known."""
    views: Counter[str] = field(default_factory=Counter)
    """View -> instances with a result."""
    reasons: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(outcome, reason) -> entries."""
    notices: Counter[str] = field(default_factory=Counter)
    """Code -> instances."""
    made_by: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """(engine, bundle, gate, settings) -> instances."""
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    """Column -> int64 [BINS], counts of scores in 0..1."""
    timed: int = 0
    time_ms: float = 0.0
    """Number of instances with a time, and the sum of their times."""


def tallies(dest: Path) -> Iterator[Tally]:
    """The counts of each partition of the data set in `dest`, in the order of their digests.

    Memory: one batch of rows. Raises UsageError for a folder that has no readable data set, BackendUnavailable without
    pyarrow.
    """
    if not is_installed("pyarrow"):
        raise BackendUnavailable(lacks("the summary", ["pyarrow"], "ray"))
    digests = sorted(
        {path.name.partition("=")[2] for table in ("files", "views") for path in dest.glob(f"{table}/bundle=*")}
    )
    if not digests:
        raise UsageError(f"{dest} has no tables of an archive run, expected the folder of --out")
    for digest in digests:
        tally = Tally(digest=digest)
        for batch in _batches(dest / "files" / f"bundle={digest}", ("outcome", "reason", "bytes")):
            _add_files(tally, batch)
        columns = ("status", "view", "notices", "time_ms", *_MADE_BY)
        for batch in _batches(dest / "views" / f"bundle={digest}", columns, _SCORE):
            _add_views(tally, batch)
        yield tally


def _batches(folder: Path, columns: Sequence[str], prefixes: tuple[str, ...] = ()) -> Iterator["pa.RecordBatch"]:
    import pyarrow as pa
    from pyarrow import dataset

    if not folder.is_dir():
        return
    try:
        parts = dataset.dataset(folder, format="parquet")
        wanted = [name for name in parts.schema.names if name in columns or (prefixes and name.startswith(prefixes))]
        yield from parts.to_batches(columns=wanted, batch_size=1 << 14, batch_readahead=1, fragment_readahead=1)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{folder} cannot be read ({type(error).__name__}): run the archive command again") from None


def _add_files(tally: Tally, batch: "pa.RecordBatch") -> None:
    import pyarrow.compute as pc

    tally.outcomes.update(_counts(batch.column("outcome")))
    tally.bytes += pc.sum(batch.column("bytes")).as_py() or 0
    pairs = Counter(zip(batch.column("outcome").to_pylist(), batch.column("reason").to_pylist(), strict=True))
    for (outcome, reason), count in pairs.items():
        if reason:
            is_counted = (outcome, reason) in tally.reasons or len(tally.reasons) < MAX_REASONS
            tally.reasons[outcome, reason if is_counted else OTHER] += count


def _add_views(tally: Tally, batch: "pa.RecordBatch") -> None:
    import pyarrow.compute as pc

    done = batch.filter(pc.equal(batch.column("status"), "done"))
    tally.views.update(_counts(done.column("view")))
    tally.notices.update(_counts(pc.list_flatten(batch.column("notices"))))
    tally.made_by.update(zip(*(batch.column(name).to_pylist() for name in _MADE_BY), strict=True))
    tally.timed += batch.num_rows - batch.column("time_ms").null_count
    tally.time_ms += pc.sum(batch.column("time_ms")).as_py() or 0.0
    for name in (name for name in done.schema.names if name.startswith(_SCORE)):
        values = done.column(name).drop_null()
        counts, _ = np.histogram(values.to_numpy(zero_copy_only=False), bins=BINS, range=(0, 1))
        if len(values):
            tally.scores[name] = tally.scores.get(name, np.zeros(BINS, np.int64)) + counts


def _counts(column: "pa.Array") -> Mapping[str, int]:
    return {item["values"] or "": item["counts"] for item in column.value_counts().to_pylist()}
