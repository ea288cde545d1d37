"""What a run does, the partition of its results, and what it would do."""

from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from glam_deploy.archive.actors import EnginePlan, OpenPipeline, open_pipeline
from glam_deploy.archive.dataset import RETRIED, Kept, known_entries, require_same_key
from glam_deploy.archive.identifiers import Identifiers
from glam_deploy.archive.ledger import Repeats
from glam_deploy.archive.objects import ObjectPlan, objects_folder
from glam_deploy.archive.reader import EntryReader
from glam_deploy.archive.rows import KEPT, Maker, entry_id
from glam_deploy.archive.shipping import ShippedBundle
from glam_deploy.archive.sources.base import Source
from glam_deploy.json_records import json_sha256

REPEATED = "repeated"
PASSED_OVER = "passed over"


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What a run does."""

    source: Source
    dest: Path
    """Absolute path of the folder of the tables."""
    bundle: ShippedBundle
    reader: EntryReader
    engine: EnginePlan = field(default_factory=EnginePlan)
    """Its threads are the cores of a predictor; None for all of a node."""
    opener: OpenPipeline = open_pipeline
    """Opens the pipeline in each predictor; tests replace it."""
    readers: int | None = None
    """As of `StationPlan`."""
    use_gpus: bool = False
    """Whether a predictor claims a GPU, on nodes that have some."""
    identifiers: Identifiers = field(default_factory=Identifiers)
    write: frozenset[str] = frozenset()
    """Kinds of files, keys of `objects.SUFFIXES`."""
    limit: int | None = None
    """Largest number of entries that are tried."""
    retry_failed: bool = False
    reading_limit_s: float = 300.0
    """Longest time for reading an entry, after which its process is killed."""
    computing_limit_s: float = 1800.0
    """Longest time without a result of a predictor that has views."""
    flush_s: float = 30.0
    """Longest time for which rows are only in memory."""
    flush_rows: int = 5000

    @property
    def condition(self) -> str:
        """Text of the condition on headers, or its pseudonym; "" without one."""
        return "" if self.reader.where is None else self.identifiers.text("condition", str(self.reader.where))

    def objects(self, digest: str) -> ObjectPlan | None:
        """Files that are written for each instance of a partition; None without any."""
        return ObjectPlan(folder=objects_folder(self.dest, digest), kinds=self.write) if self.write else None

    def kept(self, digest: str) -> Kept:
        """The rows of a partition that stay."""
        return Kept(tried_again=RETRIED if self.retry_failed else frozenset(), objects=self.objects(digest))


def partition(maker: Maker, *, for_processing: bool) -> str:
    """Digest of all that determines the results of a run besides the images: the name of its partition."""
    return json_sha256([maker.made_by, {"for_processing": for_processing}])[:12]


def survey(plan: RunPlan) -> Counter[str]:
    """Count the entries of the source that have no row ("new") and those that have one (KEPT), without Ray.

    An entry that the source has several times counts once, and for each further time as REPEATED; files that are no
    images count as PASSED_OVER. Opens the pipeline, because its engine determines the partition; computes and writes
    nothing.
    """
    provenance = plan.opener(plan.bundle.folder, plan.engine).provenance
    digest = partition(Maker.of(provenance), for_processing=plan.reader.for_processing)
    require_same_key(plan.dest, plan.identifiers)
    counts = Counter[str]()
    with (
        known_entries(plan.dest, digest, plan.condition, plan.kept(digest)) as is_known,
        closing(Repeats()) as is_repeated,
    ):
        for entry in plan.source.entries(lambda _: counts.update([PASSED_OVER])):
            key = entry_id(entry, plan.identifiers)
            if is_repeated(key):
                counts[REPEATED] += 1
            else:
                counts[KEPT if entry.version and is_known(key) else "new"] += 1
    return counts
