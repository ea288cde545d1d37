"""/health/live, /health/ready and /metrics (Prometheus).

The health routes are open and then answer yes or no only; reasons and components need authentication. Metrics are read
from `state.db` at each scrape, so that a restart loses no count. Labels hold stages, targets and codes; nothing that
identifies a study, an instance or a person.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from glam_deploy import __version__
from glam_deploy.appliance.backup.replication import COMPONENT
from glam_deploy.appliance.config import Config
from glam_deploy.appliance.data import DataFolder
from glam_deploy.appliance.state import fetches, overview, senders
from glam_deploy.appliance.state.database import HEARTBEAT_TIMEOUT_S, MonotonicClock, monotonic_clock
from glam_deploy.appliance.state.overview import Backlog, Component, DeliveryTiming, JobTiming, TargetCounts
from glam_deploy.appliance.supervisor import configured_roles
from glam_deploy.appliance.web.context import WebContext, context_of, visitor_of
from glam_deploy.errors import UsageError

PROCESSES = ("receiver", "keeper", "worker", "dispatcher", "web")
"""Processes that must be running; the heartbeat of `web` shows that this process can write to the database."""


def configured_processes(config: Config) -> tuple[str, ...]:
    """`PROCESSES`, and those that only this configuration has, such as the fetcher, which takes nothing from readiness:
    it waits for an archive that is down.
    """
    return (*PROCESSES, *(role for role in configured_roles(config) if role not in PROCESSES))


@dataclass(frozen=True, kw_only=True)
class Health:
    """Health of the appliance."""

    reasons: tuple[str, ...]
    """Why it is not ready; empty if it is."""
    components: Mapping[str, Component]
    free_bytes: int | None
    """Free bytes on the data folder's disk; None if unknown."""

    @property
    def ready(self) -> bool:
        return not self.reasons


def live(request: Request) -> JSONResponse:
    """200 while this process answers."""
    return JSONResponse({"live": True})


def ready(request: Request) -> JSONResponse:
    """200 or 503."""
    health = check(context_of(request))
    answer: dict[str, object] = {"ready": health.ready}
    if visitor_of(request):
        components = {
            name: {"state": one.state, "beat_age_s": round(one.age, 1)} for name, one in health.components.items()
        }
        answer |= {"reasons": health.reasons, "components": components, "disk_free_bytes": health.free_bytes}
    return JSONResponse(answer, 200 if health.ready else 503)


def check(context: WebContext) -> Health:
    """The health now."""
    return assess(context.data, context.config.receive.reserve_bytes, lambda connection: context.monotonic)


def assess(
    data: DataFolder, reserve: int, clock: Callable[[sqlite3.Connection], MonotonicClock] = monotonic_clock
) -> Health:
    """The health of the appliance with this data folder, as any process sees it; `reserve`: of the disk, in bytes."""
    free = free_bytes(data.root)
    try:
        data.require_owner()
        with overview.open_read_only(data.database) as connection:
            components = overview.components(connection, clock(connection)())
    except UsageError as error:
        return Health(reasons=(str(error),), components={}, free_bytes=free)
    except overview.READ_ERRORS as error:
        return Health(reasons=(f"the database cannot be read ({error})",), components={}, free_bytes=free)
    reasons = (*_process_problems(components), *_disk_problems(free, reserve))
    return Health(reasons=reasons, components=components, free_bytes=free)


def free_bytes(folder: Path) -> int | None:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def targets(health: Health) -> list[tuple[str, Component]]:
    """Targets for which the dispatcher has written a state, sorted by name."""
    names = {name.partition(":")[2]: one for name, one in health.components.items() if name.startswith("target:")}
    return sorted(names.items())


def component_state(component: Component | None) -> str:
    """State of a process for display: "missing", "silent" after HEARTBEAT_TIMEOUT_S, else its own."""
    if component is None:
        return "missing"
    return "silent" if component.age > HEARTBEAT_TIMEOUT_S else component.state


def _process_problems(components: Mapping[str, Component]) -> Iterator[str]:
    for name in PROCESSES:
        component = components.get(name)
        if component is None:
            yield f"the {name} has never started"
        elif component.age > HEARTBEAT_TIMEOUT_S:
            yield f"the {name} has written no heartbeat for {component.age:.0f} s"
        elif component.state != "ready":
            reason = component.detail.get("reason")
            yield f"the {name} is {component.state}{f' ({reason})' if reason else ''}"


def _disk_problems(free: int | None, reserve: int) -> Iterator[str]:
    if free is None:
        yield "the free space of the data folder's disk is unknown"
    elif free < reserve:
        yield f"the disk has {free} bytes free, under the reserve of {reserve}: instances are refused"


QUANTILES = (0.5, 0.9, 0.99)

BREAKER: Mapping[str, int] = MappingProxyType({"ready": 0, "waiting": 1, "failing": 2})
"""Values of glam_target_breaker, by the state of a target."""


def metrics(request: Request) -> Response:
    """Prometheus text format 0.0.4."""
    registry = CollectorRegistry()
    registry.register(_Collector(context_of(request)))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Collector:
    """Reads all metrics in one transaction."""

    def __init__(self, context: WebContext) -> None:
        self._context = context

    def describe(self) -> list[Metric]:
        """No descriptions, because they would need a second read."""
        return []

    def collect(self) -> Iterator[Metric]:
        yield from _health_metrics(check(self._context), self._context.config)
        with overview.open_read_only(self._context.data.database) as connection:
            yield from _queue_metrics(overview.backlog(connection), self._context.now())
            received = overview.received(connection)
            yield CounterMetricFamily("glam_received_instances", "SOP instances received", value=received)
            refused = CounterMetricFamily(
                "glam_refused", "Instances and associations that were refused at reception", labels=["code"]
            )
            for code, times in senders.refusals_by_code(connection).items():
                refused.add_metric([code], times)
            yield refused
            yield _gauge(
                "glam_spool_bytes", "Bytes of the received instances", [((), overview.spool_bytes(connection))]
            )
            yield from _target_metrics(overview.targets(connection))
            text, found = "Objects of undelivered result sets", overview.undelivered_objects(connection).items()
            yield _gauge("glam_undelivered_objects", text, found, "target", "state")
            codes = overview.failures_by_code(connection).items()
            yield _gauge("glam_failures", "Failed items", codes, "code")
            skipped = overview.skipped(connection).items()
            wanted = fetches.counts(connection).items()
            yield _gauge("glam_fetch_items", "Searches and studies to fetch from the archive", wanted, "state")
            yield _gauge("glam_skipped", "Items skipped by rule, which is no failure", skipped, "kind")
            yield from _stage_metrics(
                overview.latest_job_timings(connection), overview.latest_delivery_timings(connection)
            )


def _health_metrics(health: Health, config: Config) -> Iterator[Metric]:
    yield _gauge("glam_ready", "1 if /health/ready answers 200", [((), health.ready)])
    yield _gauge("glam_info", "Release of glam-deploy", [(__version__, 1)], "version")
    yield _gauge(
        "glam_disk_reserve_bytes", "Free space below which instances are refused", [((), config.receive.reserve_bytes)]
    )
    if health.free_bytes is not None:
        yield _gauge("glam_disk_free_bytes", "Free space on the data folder's disk", [((), health.free_bytes)])
    watched = (*configured_processes(config), COMPONENT)
    ages = [(name, one.age) for name, one in health.components.items() if name in watched]
    yield _gauge("glam_component_beat_age_seconds", "Seconds since the last heartbeat of a process", ages, "component")
    breakers = [(name, BREAKER.get(one.state, 2)) for name, one in targets(health)]
    yield _gauge(
        "glam_target_breaker", "0 closed; 1 open, waiting for the target; 2 open, needs a person", breakers, "target"
    )


def _queue_metrics(backlog: Iterable[Backlog], now: float) -> Iterator[Metric]:
    backlog = list(backlog)
    counts = [(one.stage, one.count) for one in backlog]
    ages = [(one.stage, max(0.0, now - one.oldest_at)) for one in backlog if one.oldest_at is not None]
    yield _gauge("glam_queue", "Studies, jobs or deliveries in a stage", counts, "stage")
    yield _gauge("glam_queue_oldest_seconds", "Age of the oldest in a stage", ages, "stage")


def _target_metrics(counts: Iterable[TargetCounts]) -> Iterator[Metric]:
    states = ("pending", "delivered", "dead")
    deliveries = [((one.target, state), getattr(one, state)) for one in counts for state in states]
    yield _gauge("glam_deliveries", "Result sets of a target, by state", deliveries, "target", "state")


def _stage_metrics(finished: Sequence[JobTiming], delivered: Sequence[DeliveryTiming]) -> Iterator[Metric]:
    seconds = {
        "waiting": [one.waited for one in finished],
        "network": [one.worked for one in finished],
        "sending": [one.sent for one in delivered],
    }
    points = [
        ((stage, str(share)), float(np.quantile(values, share)))
        for stage, values in seconds.items() if values for share in QUANTILES
    ]  # fmt: skip
    description = f"How long a stage took, over the last {overview.LATEST}"
    yield _gauge("glam_stage_seconds", description, points, "stage", "quantile")


def _gauge(name: str, description: str, points: Iterable[tuple[str | tuple[str, ...], float]], *labels: str) -> Metric:
    metric = GaugeMetricFamily(name, description, labels=labels)
    for values, number in points:
        metric.add_metric([values] if isinstance(values, str) else values, float(number))
    return metric
