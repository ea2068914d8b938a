"""For load balancers and supervisors: whether the process lives, and whether it can serve."""

from flask import Blueprint, Response

from hasher.media import json_response
from hasher.messages import store

health = Blueprint("health", __name__)
NOW_ONLY = {"Cache-Control": "no-store"}


@health.get("/healthz")
def alive() -> Response:
    """200 from any process that answers at all; the store is not asked."""
    return json_response({"status": "alive"}, headers=NOW_ONLY)


@health.get("/readyz")
def ready() -> Response:
    """200 where the store can serve; 503 with the reason where it cannot."""
    store().check()
    return json_response({"status": "ready"}, headers=NOW_ONLY)
