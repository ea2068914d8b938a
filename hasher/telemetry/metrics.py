"""`/metrics`, for Prometheus. Every metric is declared here, and nothing else knows of them.

gunicorn's workers share files in PROMETHEUS_MULTIPROC_DIR (hasher/hooks/metric_files.py), so that
any of them answers for all (https://prometheus.github.io/client_python/multiprocess/). Without that
variable, under `flask run` say, they are this process's own.
"""

import os
import platform
from functools import cache
from typing import Any

from flask import Blueprint, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from hasher.stores import Driver, Stored, StoreFull, Unusable
from hasher.telemetry.record import Observer, RequestRecord

OURS = CollectorRegistry()
BUCKETS = (
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
)  # seconds

REQUESTS = Counter(
    "hasher_requests", "Requests answered.", ["method", "route", "status"], registry=OURS
)
DURATION = Histogram(
    "hasher_request_duration_seconds",
    "Time from a request's head to its answer.",
    ["method", "route"],
    buckets=BUCKETS,
    registry=OURS,
)
IN_FLIGHT = Gauge(
    "hasher_requests_in_flight",
    "Requests being answered now.",
    multiprocess_mode="livesum",
    registry=OURS,
)
MESSAGES = Counter("hasher_messages", "Messages acknowledged.", ["outcome"], registry=OURS)
RECEIVED = Counter("hasher_received_bytes", "Bytes of request bodies.", registry=OURS)
SENT = Counter("hasher_sent_bytes", "Bytes of response bodies.", registry=OURS)
STORE_DURATION = Histogram(
    "hasher_store_operation_duration_seconds",
    "Time that the store took.",
    ["operation"],
    buckets=BUCKETS,
    registry=OURS,
)
STORE_ERRORS = Counter(
    "hasher_store_errors",
    "Operations in which the store failed: full, unreachable, unusable or other.",
    ["operation", "error"],
    registry=OURS,
)
DAMAGED = Counter(
    "hasher_damaged_messages",
    "Reads of a message that no longer matches its digest.",
    registry=OURS,
)
BUILD = Gauge(
    "hasher_build_info",
    "What runs; always 1.",
    ["version", "python", "store"],
    multiprocess_mode="max",
    registry=OURS,
)

METHODS = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}
OUTCOMES = [MESSAGES.labels(outcome) for outcome in Stored._fields]


@cache
def labelled(metric: Any, *values: object) -> Any:
    """`metric` with these labels; prometheus-client takes longer to find it again."""
    return metric.labels(*values)


metrics = Blueprint("metrics", __name__)


@metrics.get("/metrics")
def exposition() -> Response:
    """The metrics of all workers, in Prometheus's text format."""
    registry = OURS
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(
        generate_latest(registry),
        headers={"Cache-Control": "no-store"},
        content_type=CONTENT_TYPE_PLAIN_0_0_4,
    )


def describe(version: str, store: str) -> None:
    """Say what runs: this `version`, on this kind of `store`."""
    BUILD.labels(version, platform.python_version(), store).set(1)


class Metrics(Observer):
    """Counts what happens."""

    def __init__(self, driver: Driver) -> None:
        self._kinds = {StoreFull: "full", Unusable: "unusable"}
        self._kinds.update(dict.fromkeys(driver.errors, "unreachable"))

    def began(self) -> None:
        IN_FLIGHT.inc()

    def ended(self, record: RequestRecord) -> None:
        # Each value of a label is kept for ever: a client must not be able to choose them.
        method = record.method if record.method in METHODS else "other"
        route = record.route or "other"
        IN_FLIGHT.dec()
        labelled(REQUESTS, method, route, record.status).inc()
        labelled(DURATION, method, route).observe(record.duration)
        if record.received:
            RECEIVED.inc(record.received)
        if record.sent:
            SENT.inc(record.sent)
        if record.fault == "damaged":
            DAMAGED.inc()

    def operated(self, operation: str, duration: float, error: Exception | None) -> None:
        labelled(STORE_DURATION, operation).observe(duration)
        if error:
            STORE_ERRORS.labels(operation, self._kind(error)).inc()

    def stored(self, counts: Stored) -> None:
        for outcome, count in zip(OUTCOMES, counts, strict=True):
            if count:
                outcome.inc(count)

    def _kind(self, error: Exception) -> str:
        kinds = (word for kind, word in self._kinds.items() if isinstance(error, kind))
        return next(kinds, "other")
