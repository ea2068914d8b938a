"""What happened: the record of a request, and who is told of it (the access log, the metrics)."""

from collections.abc import Sequence

from flask import Blueprint

from hasher.settings import Settings
from hasher.stores import Driver
from hasher.telemetry.access_log import AccessLog
from hasher.telemetry.record import Observer


def observers(settings: Settings, driver: Driver, version: str) -> list[Observer]:
    """Return those who are to be told what the application does."""
    found: list[Observer] = []
    if settings.metrics == "on":
        from hasher.telemetry import metrics  # noqa: PLC0415 - its package is an extra

        metrics.describe(version, settings.store)
        found.append(metrics.Metrics(driver))
    if settings.access_log != "off":
        found.append(AccessLog(settings.access_log))
    return found


def blueprints(settings: Settings) -> Sequence[Blueprint]:
    """Return the routes by which what happened is asked for."""
    if settings.metrics == "off":
        return ()
    from hasher.telemetry.metrics import metrics  # noqa: PLC0415 - its package is an extra

    return (metrics,)
