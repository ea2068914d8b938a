"""Health checks for load balancers and supervisors: the process lives, the store can serve."""

from collections.abc import Callable
from threading import Lock
from time import monotonic

from flask import Blueprint, Response, abort, current_app

from hasher.telemetry.record import current
from hasher.web.responses import NO_STORE, json_response

health = Blueprint("health", __name__)
INTERVAL = 1.0  # seconds between two checks


class Readiness:
    """The outcome of the store's check, which runs at most once in INTERVAL.

    `draining` returns whether the server is about to stop.
    """

    def __init__(
        self, check: Callable[[], object], draining: Callable[[], bool] = lambda: False
    ) -> None:
        self.draining = draining
        self._check = check
        self._lock = Lock()
        self._next = 0.0
        self._failure: Exception | None = None

    def require(self) -> None:
        """Raise what the store's check raises now, or raised within the last INTERVAL."""
        current().before_wait()  # for a probe that is asking the store just now
        with self._lock:
            if monotonic() >= self._next:
                self._failure = self._ask()
                self._next = monotonic() + INTERVAL
            failure = self._failure
        if failure:
            raise failure.with_traceback(None)  # a traceback that is kept grows at every raise

    def _ask(self) -> Exception | None:
        try:
            self._check()
        except Exception as failure:  # noqa: BLE001 - `require` raises it
            return failure
        return None


@health.get("/healthz")
def alive() -> Response:
    """Answer 200 without asking the store: the process lives."""
    return json_response({"status": "alive"}, headers=NO_STORE)


@health.get("/readyz")
def ready() -> Response:
    """Answer 200 if the store can serve, or 503 with the reason if it cannot or a stop is near."""
    readiness: Readiness = current_app.extensions["readiness"]
    if readiness.draining():
        abort(503, "The service is about to stop: send requests to another instance.")
    readiness.require()
    return json_response({"status": "ready"}, headers=NO_STORE)
