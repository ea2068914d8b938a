"""A circuit breaker: requests do not wait for a store that does not answer."""

from collections.abc import Callable
from threading import Lock
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class CircuitBreaker:
    """Fails calls at once after one has timed out; one thread at a time still tries.

    If every request waited for the time-out, requests in the queue would wait for many time-outs.
    The breaker closes as soon as a call does not time out. `timeouts` are the exceptions that count
    as a time-out.
    """

    def __init__(self, *timeouts: type[Exception]) -> None:
        self._timeouts: tuple[type[Exception], ...] = TimeoutError, *timeouts
        self._fault: str | None = None  # what the last time-out said, while the breaker is open
        self._trial = Lock()

    def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `function` returns. TimeoutError if it times out, or is not called."""
        fault = self._fault
        if fault is None:
            return self._watch(function, *args, **kwargs)
        if not self._trial.acquire(blocking=False):
            raise TimeoutError(f"just now: {fault}")
        try:
            return self._watch(function, *args, **kwargs)
        finally:
            self._trial.release()

    def _watch(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            returned = function(*args, **kwargs)
        except BaseException as error:
            self._fault = str(error) if isinstance(error, self._timeouts) else None
            raise
        self._fault = None
        return returned
