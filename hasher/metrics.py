"""`/metrics`, for Prometheus. Every metric is declared here, and nothing else knows of them.

gunicorn's workers share files in PROMETHEUS_MULTIPROC_DIR (hasher/server/metric_files.py), so that
any of them answers for all (https://prometheus.github.io/client_python/multiprocess/). Without that
variable, under `flask run` say, they are this process's own.
"""

import os
import platform
from functools import cache
from typing import Any

from flask import Blueprint, Flask, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from hasher.media import NO_STORE
from hasher.observe import Exchange, Observer
from hasher.stores import Store, StoreFull, Unusable

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
NEW, REPEATED = MESSAGES.labels("new"), MESSAGES.labels("repeated")


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
        headers=NO_STORE,
        content_type=CONTENT_TYPE_PLAIN_0_0_4,
    )


def register(app: Flask, version: str, kind: str, store: Store) -> Observer:
    """Serve `/metrics` of `app`, this `version` on this `kind` of store; what counts for it."""
    app.register_blueprint(metrics)
    BUILD.labels(version, platform.python_version(), kind).set(1)
    return Metrics(store)


class Metrics(Observer):
    """Counts what happens."""

    def __init__(self, store: Store) -> None:
        self._kinds = {StoreFull: "full", Unusable: "unusable"}
        self._kinds.update(dict.fromkeys(store.errors, "unreachable"))

    def began(self) -> None:
        IN_FLIGHT.inc()

    def ended(self, exchange: Exchange) -> None:
        # Each value of a label is kept for ever: a client must not be able to choose them.
        method = exchange.method if exchange.method in METHODS else "other"
        route = exchange.route or "other"
        IN_FLIGHT.dec()
        labelled(REQUESTS, method, route, exchange.status).inc()
        labelled(DURATION, method, route).observe(exchange.duration)
        if exchange.received:
            RECEIVED.inc(exchange.received)
        if exchange.sent:
            SENT.inc(exchange.sent)
        if exchange.fault == "damaged":
            DAMAGED.inc()

    def operated(self, operation: str, duration: float, error: Exception | None) -> None:
        labelled(STORE_DURATION, operation).observe(duration)
        if error:
            STORE_ERRORS.labels(operation, self._kind(error)).inc()

    def stored(self, new: int, repeated: int) -> None:
        if new:
            NEW.inc(new)
        if repeated:
            REPEATED.inc(repeated)

    def _kind(self, error: Exception) -> str:
        kinds = (word for kind, word in self._kinds.items() if isinstance(error, kind))
        return next(kinds, "other")
