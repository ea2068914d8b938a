"""The record of a request, and its observers: the access log and the metrics."""

from collections.abc import Sequence

from flask import Blueprint

from hasher.settings import Settings
from hasher.stores import Driver
from hasher.telemetry.access_log import AccessLog
from hasher.telemetry.record import Observer


def observers(settings: Settings, driver: Driver, version: str) -> list[Observer]:
    """Return the observers that `settings` ask for."""
    found: list[Observer] = []
    if settings.metrics == "on":
        from hasher.telemetry import metrics  # noqa: PLC0415 - its package is an extra

        metrics.describe(version, settings.store)
        found.append(metrics.Metrics(driver))
    if settings.access_log != "off":
        found.append(AccessLog(settings.access_log))
    return found


def blueprints(settings: Settings) -> Sequence[Blueprint]:
    """Return the blueprints that `settings` ask for."""
    if settings.metrics == "off":
        return ()
    from hasher.telemetry.metrics import metrics  # noqa: PLC0415 - its package is an extra

    return (metrics,)
