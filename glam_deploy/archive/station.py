"""A predictor and its readers on one node, and the work that they have."""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from glam_deploy.archive.actors import EnginePlan, OpenPipeline, Predictor, PredictorFacts, Reader
from glam_deploy.archive.cluster import Node
from glam_deploy.archive.objects import ObjectPlan
from glam_deploy.archive.reader import EntryReader, Fingerprint
from glam_deploy.archive.shipping import ShippedBundle
from glam_deploy.archive.sources.base import Entry

QUEUE = 2
"""Entries that a reader has at a time: one that it reads, and the next."""


@dataclass(kw_only=True, eq=False)
class Task:
    """One entry on its way through a run."""

    entry: Entry
    id: str
    suspect: bool = False
    """Whether a process ended while it had this entry and others: it is tried again alone."""
    deaths: int = 0
    """Number of processes that ended while this entry was alone in them."""
    fingerprint: Fingerprint | None = None
    instance: str = ""
    view: Any = None
    """Reference to the `DecodedView` in Ray's object store."""


@dataclass(kw_only=True, eq=False)
class ReaderSlot:
    """A reading process and its entries, in the order in which it reads them."""

    actor: Any
    is_ready: bool = False
    """Whether the process has started."""
    tasks: deque[Task] = field(default_factory=deque)
    since: float = 0.0
    """When it began with the first of them; monotonic."""


@dataclass(frozen=True, kw_only=True)
class StationPlan:
    """What all stations of a run have in common."""

    bundle: ShippedBundle
    engine: EnginePlan
    opener: OpenPipeline
    reader: EntryReader
    marker: Path | None
    write: frozenset[str]
    """As `marker` and `kinds` of `Predictor.open`."""
    environment: Mapping[str, str]
    """Environment variables of the processes, besides those that they inherit."""
    files: Any
    """Reference to the files of the bundle, None if all nodes are this machine."""
    readers: int | None
    """Reading processes of a station; None for as many as the pipeline asks for."""


class Station:
    """The processes on one node. All methods return at once; results come with the references that they return."""

    def __init__(self, ray: Any, node: Node, plan: StationPlan, *, cpus: int, gpu: bool) -> None:
        """`cpus`: cores that the predictor claims of the node; `gpu`: whether it claims a GPU."""
        self.node, self._ray, self._plan = node, ray, plan
        self._claim = {"num_cpus": cpus, "num_gpus": int(gpu)}
        self.facts: PredictorFacts | None = None
        self.slots: list[ReaderSlot] = []
        self.waiting: deque[Task] = deque()
        self.predicting: dict[Any, Task] = {}
        self.predicting_since = 0.0
        self.failures = 0
        """How often its predictor ended since it last had a result."""

    @property
    def tasks(self) -> Iterator[Task]:
        """All entries that the station has."""
        for slot in self.slots:
            yield from slot.tasks
        yield from self.waiting
        yield from self.predicting.values()

    @property
    def load(self) -> int:
        """Number of entries that the station has."""
        return sum(len(slot.tasks) for slot in self.slots) + len(self.waiting) + len(self.predicting)

    @property
    def most(self) -> int:
        """Number of entries that the station may have at a time, which bounds the memory."""
        return 0 if self.facts is None else QUEUE * len(self.slots) + self.facts.in_flight + 1

    def start_predictor(self) -> Any:
        """Start a predictor in the place of one that has ended; the reference of its facts."""
        self.facts = None
        options = self._claim | {"max_concurrency": 1 + 16}  # threads; `predict` itself bounds the views computed
        self._predictor = self._actor(Predictor, options).remote(
            self._plan.bundle, self._plan.engine, self._plan.opener
        )
        return self._predictor.open.remote(self._plan.files, self._plan.marker, self._plan.write)

    @property
    def readers(self) -> int:
        """Number of readers that the station shall have."""
        return 0 if self.facts is None else self._plan.readers or self.facts.ahead

    def start_reader(self) -> tuple[ReaderSlot, Any]:
        """Start a further reading process; its slot, and the reference that becomes ready when the process works."""
        actor = self._actor(Reader, {"num_cpus": 0}).remote(self._plan.reader)
        slot = ReaderSlot(actor=actor)
        self.slots.append(slot)
        return slot, actor.ready.remote()

    def read(self, slot: ReaderSlot, task: Task) -> Any:
        """Give an entry to a reader; the reference of its fingerprint, and `task.view` that of its view."""
        if not slot.tasks:
            slot.since = time.monotonic()
        slot.tasks.append(task)
        fingerprint, task.view = slot.actor.read.options(num_returns=2).remote(task.entry)
        return fingerprint

    def identify(self, slot: ReaderSlot, task: Task) -> Any:
        """Give a suspect to a reader, to be identified only; the reference of its fingerprint."""
        slot.since = time.monotonic()
        slot.tasks.append(task)
        return slot.actor.fingerprint.remote(task.entry)

    def predict(self, task: Task, objects: ObjectPlan | None) -> Any:
        """Give a view to the predictor; the reference of its finding."""
        if not self.predicting:
            self.predicting_since = time.monotonic()
        reference = self._predictor.predict.remote(task.view, task.instance, objects)
        task.view = None
        self.predicting[reference] = task
        return reference

    def remove(self, task: Task) -> None:
        """Remove a view that the predictor has no longer."""
        del self.predicting[next(reference for reference, other in self.predicting.items() if other is task)]

    def kill(self, slot: ReaderSlot | None = None) -> None:
        """Kill a reader, or the predictor."""
        self._ray.kill(self._predictor if slot is None else slot.actor)

    def close(self) -> None:
        """Kill all processes."""
        for actor in (self._predictor, *(slot.actor for slot in self.slots)):
            self._ray.kill(actor)

    def _actor(self, kind: type, options: dict[str, Any]) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        place = NodeAffinitySchedulingStrategy(self.node.id, soft=False)
        environment = {"env_vars": dict(self._plan.environment)}
        return self._ray.remote(kind).options(
            scheduling_strategy=place, max_restarts=0, runtime_env=environment, **options
        )


class Step(Enum):
    """What a reference of Ray stands for."""

    OPENED = "the pipeline of a station"
    STARTED = "a reading process"
    IDENTIFIED = "the fingerprint of a suspect"
    READ = "the fingerprint of an entry"
    PREDICTED = "the finding of a view"


@dataclass(frozen=True, kw_only=True)
class Pending:
    """What is done when a reference is ready."""

    step: Step
    station: Station
    slot: ReaderSlot | None = None
    task: Task | None = None
