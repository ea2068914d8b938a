"""`/metrics`, for Prometheus. Every metric is declared here, and nothing else knows of them.

gunicorn's workers share files in PROMETHEUS_MULTIPROC_DIR (hasher/hooks/metric_files.py), so that
any of them answers for all (https://prometheus.github.io/client_python/multiprocess/). Without that
variable, as under `flask run`, the metrics are those of this process. A scrape misses at most the
last second of other workers; a worker that is killed takes its last second with it.
"""

import os
import platform
from bisect import bisect_left
from collections import defaultdict
from functools import cache
from operator import add
from threading import Lock, Thread
from time import sleep
from typing import Any

from flask import Blueprint, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from hasher.stores import Driver, Location, Stored, StoreFull, Unusable
from hasher.telemetry import reserved_file
from hasher.telemetry.record import Observer, RequestRecord

OURS = CollectorRegistry()
# In seconds.
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
BATCH = 64  # requests that are counted at once
INTERVAL = 1.0  # seconds that a count waits, at most, until other processes can see it

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
    ["version", "python", "store", "engine"],
    multiprocess_mode="max",
    registry=OURS,
)

METHODS = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}
OUTCOMES = Stored._fields


@cache
def labelled(metric: Any, *values: object) -> Any:
    """Return `metric` with these labels, faster than prometheus-client finds it again."""
    return metric.labels(*values)


metrics = Blueprint("metrics", __name__)


@metrics.get("/metrics")
def exposition() -> Response:
    """Answer the metrics of all workers, in Prometheus's text format."""
    TALLY.flush()
    return Response(
        exposed(),
        headers={"Cache-Control": "no-store"},
        content_type=CONTENT_TYPE_PLAIN_0_0_4,
    )


def exposed() -> bytes:
    """Return the metrics of all workers, or of this one if their files cannot be used."""
    if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
        try:
            return reserved_file.values_of_all()
        except reserved_file.UNREADABLE as error:
            reserved_file.warn(error)
    return generate_latest(OURS)


def describe(version: str, location: Location) -> None:
    """Let the metrics say what runs: this `version`, on the kind of store at `location`."""
    kind, engine = location.scheme, location.engine
    TALLY.build = (version, platform.python_version(), kind, engine)


def begin_anew() -> None:
    """Make the values that are there before the first flush: they are now kept elsewhere."""
    for metric in (IN_FLIGHT, RECEIVED, SENT, DAMAGED):
        metric._metric_init()  # noqa: SLF001 - which no public method calls again


class Series:
    """The observations under one set of labels since the last flush."""

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0
        self.buckets = [0] * (len(BUCKETS) + 1)

    def observe(self, seconds: float) -> None:
        """Count one observation of `seconds`."""
        self.count += 1
        self.seconds += seconds
        self.buckets[bisect_left(BUCKETS, seconds)] += 1

    def give(self, histogram: Any) -> None:
        """Add these to `histogram`, which has no public method to add more than one."""
        histogram._sum.inc(self.seconds)  # noqa: SLF001
        for bucket, count in zip(histogram._buckets, self.buckets, strict=True):  # noqa: SLF001
            if count:
                bucket.inc(count)


class Counts:
    """The counts since the last flush."""

    def __init__(self) -> None:
        self.requests: defaultdict[tuple[str, str | None, int], Series] = defaultdict(Series)
        self.operations: defaultdict[str, Series] = defaultdict(Series)
        self.outcomes = [0] * len(OUTCOMES)
        self.received = self.sent = 0

    def add(self, record: RequestRecord) -> None:
        """Count a request."""
        # Each value of a label is kept forever: a client must not be able to choose it.
        method = record.method if record.method in METHODS else "other"
        self.requests[method, record.route, record.status].observe(record.duration)
        for name, seconds, _ in record.operations:
            self.operations[name].observe(seconds)
        for stored in record.outcomes:
            self.outcomes = list(map(add, self.outcomes, stored))
        self.received += record.received
        self.sent += record.sent

    def give(self) -> None:
        """Add these to the metrics."""
        for (method, route, status), series in self.requests.items():
            labelled(REQUESTS, method, route or "other", status).inc(series.count)
            series.give(labelled(DURATION, method, route or "other"))
        for operation, series in self.operations.items():
            series.give(labelled(STORE_DURATION, operation))
        for outcome, count in zip(OUTCOMES, self.outcomes, strict=True):
            labelled(MESSAGES, outcome).inc(count)
        RECEIVED.inc(self.received)
        SENT.inc(self.sent)


class Tally:
    """The counts of this process, given to prometheus-client once a second.

    For each value, some eight of them a request, prometheus-client takes a lock and writes to a
    shared file: five times the cost of a tally. Requests are counted 64 at a time, since code that
    has just run takes a third of the time.
    """

    def __init__(self) -> None:
        self.build: tuple[str, ...] | None = None
        """What runs: the labels of BUILD."""
        self._lock = Lock()
        self._counts = Counts()
        self._ended: list[RequestRecord] = []  # so is that of its `append`
        self._in_flight: list[None] = []  # its `append` and `pop` are atomic, and need no lock
        self._flusher: Thread | None = None

    def begin(self) -> None:
        """Count a request in flight. The first one in a process starts its flushing thread."""
        self._in_flight.append(None)
        if self._flusher is None:
            self._keep_flushing()

    def end(self, record: RequestRecord) -> None:
        """Count a request that was answered."""
        self._in_flight.pop()
        self._ended.append(record)
        # The exception in a record of a fault may hold a body.
        if len(self._ended) >= BATCH or record.fault:
            with self._lock:
                self._count()

    def _count(self) -> None:
        """Count the requests that have ended. The lock must be held."""
        ended = self._ended[:]
        del self._ended[: len(ended)]
        for record in ended:
            self._counts.add(record)

    def flush(self) -> None:
        """Give the counts to prometheus-client."""
        with self._lock:
            self._count()
            counts, self._counts = self._counts, Counts()
        IN_FLIGHT.set(len(self._in_flight))
        if self.build:
            labelled(BUILD, *self.build).set(1)
        counts.give()

    def _keep_flushing(self) -> None:
        with self._lock:
            if self._flusher is None:
                self._flusher = Thread(target=self._flush_for_ever, name="metrics", daemon=True)
                self._flusher.start()

    def _flush_for_ever(self) -> None:
        while True:
            sleep(INTERVAL)
            self.flush()


TALLY = Tally()  # one for the process, as the metrics are


class Metrics(Observer):
    """Counts requests, operations and faults."""

    def __init__(self, driver: Driver) -> None:
        self._kinds = {StoreFull: "full", Unusable: "unusable"}
        self._kinds.update(dict.fromkeys(driver.errors, "unreachable"))

    def began(self) -> None:
        TALLY.begin()

    def ended(self, record: RequestRecord) -> None:
        TALLY.end(record)
        if record.fault:
            self._count_faults(record)

    def _count_faults(self, record: RequestRecord) -> None:
        if record.fault == "damaged":
            DAMAGED.inc()
        for operation in record.operations:
            if operation.error:
                STORE_ERRORS.labels(operation.name, self._kind(operation.error)).inc()

    def _kind(self, error: Exception) -> str:
        kinds = (word for kind, word in self._kinds.items() if isinstance(error, kind))
        return next(kinds, "other")
