"""/metrics for Prometheus, read from `state.db` at each scrape, so that a restart loses no count.

Labels hold stages, targets and codes; nothing that names a study, an instance or a person.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from glam_deploy import __version__
from glam_deploy.appliance.state import overview
from glam_deploy.appliance.state.overview import Backlog, Delivered, Finished, TargetCounts
from glam_deploy.appliance.web import health
from glam_deploy.appliance.web.health import Health
from glam_deploy.appliance.web.site import Site, site_of

QUANTILES = (0.5, 0.9, 0.99)

BREAKER: Mapping[str, int] = MappingProxyType({"ready": 0, "waiting": 1, "failing": 2})
"""Values of glam_target_breaker, by what the dispatcher says of a target."""


def metrics(request: Request) -> Response:
    """Prometheus' text format 0.0.4."""
    registry = CollectorRegistry()
    registry.register(_Collector(site_of(request)))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Collector:
    """Reads everything in one transaction."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def describe(self) -> list[Metric]:
        """Nothing beforehand, else it would be read twice."""
        return []

    def collect(self) -> Iterator[Metric]:
        yield from _of_health(health.check(self._site), self._site.config.receive.reserve_bytes)
        with overview.reading(self._site.data.database) as connection:
            yield from _of_queue(overview.backlog(connection), self._site.now())
            yield _counter("glam_received_instances", "SOP instances received", overview.received(connection))
            yield _gauge("glam_spool_bytes", "Of received instances", [((), overview.spool_bytes(connection))])
            yield from _of_targets(overview.targets(connection))
            codes = overview.failures_by_code(connection).items()
            yield _gauge("glam_failures", "What went wrong or was passed over", codes, "code")
            yield from _of_stages(overview.latest_finished(connection), overview.latest_delivered(connection))


def _of_health(how: Health, reserve: int) -> Iterator[Metric]:
    yield _gauge("glam_ready", "1 where /health/ready says so", [((), how.ready)])
    yield _gauge("glam_info", "Release of glam-deploy", [(__version__, 1)], "version")
    yield _gauge("glam_disk_reserve_bytes", "Free space under which instances are refused", [((), reserve)])
    if how.free_bytes is not None:
        yield _gauge("glam_disk_free_bytes", "On the data folder's disk", [((), how.free_bytes)])
    ages = [(name, one.age) for name, one in how.components.items() if name in health.PROCESSES]
    yield _gauge("glam_component_beat_age_seconds", "Since a process last said that it lives", ages, "component")
    breakers = [(name, BREAKER.get(one.state, 2)) for name, one in health.targets(how)]
    yield _gauge(
        "glam_target_breaker", "0 closed; 1 open: waits for the target; 2 open: needs a person", breakers, "target"
    )


def _of_queue(backlog: Iterable[Backlog], now: float) -> Iterator[Metric]:
    backlog = list(backlog)
    counts = [(one.stage, one.count) for one in backlog]
    ages = [(one.stage, max(0.0, now - one.oldest_at)) for one in backlog if one.oldest_at is not None]
    yield _gauge("glam_queue", "Studies, jobs or parcels in a stage", counts, "stage")
    yield _gauge("glam_queue_oldest_seconds", "Age of the oldest in a stage", ages, "stage")


def _of_targets(counts: Iterable[TargetCounts]) -> Iterator[Metric]:
    states = ("pending", "delivered", "dead")
    parcels = [((one.target, state), getattr(one, state)) for one in counts for state in states]
    yield _gauge("glam_deliveries", "Result sets of a target, by state", parcels, "target", "state")


def _of_stages(finished: Sequence[Finished], delivered: Sequence[Delivered]) -> Iterator[Metric]:
    seconds = {
        "waiting": [one.waited for one in finished],
        "network": [one.worked for one in finished],
        "sending": [one.sent for one in delivered],
    }
    points = [
        ((stage, str(share)), float(np.quantile(values, share)))
        for stage, values in seconds.items() if values for share in QUANTILES
    ]  # fmt: skip
    told = f"How long a stage took, over the last {overview.LATEST}"
    yield _gauge("glam_stage_seconds", told, points, "stage", "quantile")


def _gauge(name: str, told: str, points: Iterable[tuple[str | tuple[str, ...], float]], *labels: str) -> Metric:
    metric = GaugeMetricFamily(name, told, labels=labels)
    for values, number in points:
        metric.add_metric([values] if isinstance(values, str) else values, float(number))
    return metric


def _counter(name: str, told: str, number: float) -> Metric:
    return CounterMetricFamily(name, told, value=number)
