"""For load balancers and supervisors: whether the process lives, and whether it can serve."""

from collections.abc import Callable
from threading import Lock
from time import monotonic

from flask import Blueprint, Flask, Response, abort, current_app, request

from hasher.media import NO_STORE, json_response
from hasher.stores import Store

health = Blueprint("health", __name__)
DRAINING = "hasher.draining"  # in the WSGI environment, true once the server is about to stop
INTERVAL = 1.0  # seconds between two questions to the store


class Readiness:
    """What the store's check has said, which is asked again no sooner than INTERVAL."""

    def __init__(self, check: Callable[[], object]) -> None:
        self._check = check
        self._lock = Lock()
        self._next = 0.0
        self._failure: Exception | None = None

    def require(self) -> None:
        """Raise what the store's check raises, or has raised lately."""
        with self._lock:
            if monotonic() >= self._next:
                self._failure = self._ask()
                self._next = monotonic() + INTERVAL
            failure = self._failure
        if failure:
            raise failure.with_traceback(None)  # which would grow at every raise

    def _ask(self) -> Exception | None:
        try:
            self._check()
        except Exception as failure:  # noqa: BLE001 - it is raised where readiness is asked for
            return failure
        return None


def register(app: Flask, store: Store) -> None:
    """Serve `/healthz` and `/readyz` of `app`."""
    app.extensions["readiness"] = Readiness(store.check)
    app.register_blueprint(health)


@health.get("/healthz")
def alive() -> Response:
    """200 from any process that answers at all; the store is not asked."""
    return json_response({"status": "alive"}, headers=NO_STORE)


@health.get("/readyz")
def ready() -> Response:
    """200 where the store can serve; 503 with the reason where it cannot, or before the stop."""
    if request.environ.get(DRAINING):
        abort(503, "The service is about to stop: send requests to another instance.")
    readiness: Readiness = current_app.extensions["readiness"]
    readiness.require()
    return json_response({"status": "ready"}, headers=NO_STORE)
