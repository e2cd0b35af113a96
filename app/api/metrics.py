"""Prometheus metrics: requests of this process, and what stands in the database at the moment of the scrape."""

from collections.abc import Iterable
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.db import Database, Row

CONTENT_TYPE = CONTENT_TYPE_LATEST
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
RECENT_HOURS = 24

# One statement for all gauges. Ended runs and sent deliveries are counted for the last day: all of them would be
# a scan of the history at every scrape.
STANDING = f"""
select 'runs' as what, state as label, count(*)::float as value from runs
    where state in ('queued', 'running', 'waiting') group by state
union all select 'runs', state, count(*) from runs
    where state in ('completed', 'failed', 'cancelled') and finished_at > now() - interval '{RECENT_HOURS} hours'
    group by state
union all select 'depth', lane, count(*) from runs where state = 'queued' and ready and run_at <= now() group by lane
union all select 'age', lane, extract(epoch from now() - min(run_at)) from runs
    where state = 'queued' and ready and run_at <= now() group by lane
union all select 'deliveries', state, count(*) from deliveries
    where state in ('pending', 'sending', 'dead') or next_attempt_at > now() - interval '{RECENT_HOURS} hours'
    group by state
union all select 'breakers', provider, count(*) from breakers where opened_at is not null group by provider
union all select 'processes', kind, count(*) from workers where seen_at > now() - interval '30 seconds' group by kind
"""

GAUGES = {
    "runs": ("parley_runs", "Runs by state; ended ones of the last day.", "state"),
    "depth": ("parley_queue_depth", "Runs that are due and not started, by lane.", "lane"),
    "age": ("parley_queue_oldest_seconds", "Age of the oldest run that is due and not started, by lane.", "lane"),
    "deliveries": ("parley_deliveries", "Deliveries by state; sent ones of the last day.", "state"),
    "breakers": ("parley_breakers_open", "Model providers that are not asked for now, by provider.", "provider"),
    "processes": ("parley_processes", "Processes seen in the last 30 seconds, by kind.", "kind"),
}


class Standing(Collector):
    """The gauges of one scrape."""

    def __init__(self, rows: Iterable[Row]) -> None:
        """Take what was read."""
        self._rows = list(rows)

    def collect(self) -> Iterable[Metric]:
        """One family per gauge; a family without rows says that there is nothing."""
        for what, (name, text, label) in GAUGES.items():
            family = GaugeMetricFamily(name, text, labels=[label])
            for row in self._rows:
                if row["what"] == what:
                    family.add_metric([row["label"]], row["value"])
            yield family


class Metrics:
    """The metrics of one API process."""

    def __init__(self) -> None:
        """Begin at zero, in a registry of its own."""
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "parley_http_requests", "Requests.", ["method", "route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "parley_http_request_seconds",
            "Time until the answer was complete.",
            ["method", "route"],
            buckets=BUCKETS,
            registry=self.registry,
        )

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    async def text(self, database: Database) -> bytes:
        """Everything as Prometheus reads it; without PostgreSQL this raises `DatabaseUnavailable`."""
        standing = CollectorRegistry()
        standing.register(Standing(await database.fetch(STANDING)))
        return generate_latest(self.registry) + generate_latest(standing)


def route_of(scope: Any) -> str:
    """The template of the route that answered; paths themselves would make a series per id."""
    route = scope.get("route")
    return getattr(route, "path", "") or "unmatched"
